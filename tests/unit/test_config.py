"""The configuration: defaults, every key, and errors that name the key and the remedy."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from stapleguard.config import (
    LINEAGE_SCHEMA,
    MODULE_SCHEMA,
    SCHEMA,
    SERVER_SCHEMA,
    Commands,
    Config,
    Lineage,
    MissingStaple,
    Module,
    Understudies,
    endpoint,
    networks,
    parse,
)
from stapleguard.model import Depth, KeyType, Prime, UsageError

pytestmark = pytest.mark.unit

VALUES: dict[str, tuple[str, object, str]] = {
    "anchors": ('"/etc/ca.pem"', "/etc/ca.pem", '"ca.pem"'),
    "generations": ("2", 2, "1"),
    "policy.prime": ('"warm"', Prime.WARM, '"cold"'),
    "policy.missing_staple": ('"rollback"', MissingStaple.ROLLBACK, "[]"),
    "policy.understudy": ('"off"', Understudies.OFF, '"never"'),
    "policy.understudy_budget": ("1.5", 1.5, "-1"),
    "fetch.timeout": ("3", 3.0, '"3"'),
    "fetch.allow_addresses": ('["10.1.2.3/8", "::1"]', ("10.0.0.0/8", "::1/128"), '["example.org"]'),
    "fetch.proxy": ('"http://p:1"', "http://p:1", '"http://p\\n"'),
    "prove.timeout": ("1.5", 1.5, "-1"),
    "prove.interval": ("0", 0.0, "true"),
    "prove.backoff": ("1", 1.0, "0.9"),
    "prove.interval_max": ("2", 2.0, "nan"),
    "prove.quiet": ("2", 2.0, "inf"),
    "prove.handshake_timeout": ("2", 2.0, "[2]"),
    "prove.confidence": ("0.5", 0.5, "1"),
    "prove.assumed_workers": ("16", 16, "0"),
    "responder.wait": ("2", 2.0, '""'),
    "responder.patience": ("2", 2.0, "-0.1"),
    "retry.floor": ("2", 2.0, '"2"'),
    "retry.cap": ("2", 2.0, "-1"),
    "watch.interval": ("2", 2.0, "[]"),
    "refresh.margin": ("2", 2.0, "true"),
    "nginx.binary": ('"/bin/nginx"', "/bin/nginx", "1"),
    "nginx.config": ('"/n.conf"', "/n.conf", '"n.conf"'),
    "nginx.resolver": ('["127.0.0.53"]', ("127.0.0.53",), '"127.0.0.53"'),
    "nginx.resolver_timeout": ("2", 2.0, "false"),
    "nginx.test_timeout": ("2", 2.0, "99999999999"),
    "apache.binary": ('"/bin/httpd"', "/bin/httpd", "1"),
    "apache.config": ('"/a.conf"', "/a.conf", '"a.conf"'),
    "haproxy.binary": ('"/bin/haproxy"', "/bin/haproxy", "1"),
    "haproxy.config": ('"/h.cfg"', "/h.cfg", '"h.cfg"'),
    "lighttpd.binary": ('"/bin/lighttpd"', "/bin/lighttpd", "1"),
    "lighttpd.config": ('"/l.conf"', "/l.conf", '"l.conf"'),
    "alerts.repeat": ("0", 0.0, "-1"),
    "alerts.host": ('"web1"', "web1", "1"),
}
LINEAGE_VALUES: dict[str, tuple[str, object, str]] = {
    "sources": ('["/a", "/b/"]', ("/a", "/b/"), '["a"]'),
    "endpoints": ('["[::1]:443", "a.test:1"]', ("[::1]:443", "a.test:1"), '["a.test:65536"]'),
    "nodes": ('["192.0.2.1:443"]', ("192.0.2.1:443",), '["192.0.2.1"]'),
    "names": ('["a.test"]', ("a.test",), "[1]"),
    "prime": ('"file"', Prime.FILE, '"FILE"'),
    "missing_staple": ('"rollback"', MissingStaple.ROLLBACK, '"never"'),
}
SERVER_VALUES: dict[str, tuple[str, object, str]] = {
    "lineages": ('["a.test"]', ("a.test",), "[1]"),
    "test": ('["/bin/true", "-t"]', ("/bin/true", "-t"), '["true"]'),
    "reload": ('["/bin/kill"]', ("/bin/kill",), "[]"),
    "staple_file": ('"/a.der"', "/a.der", '"a.der"'),
}
MODULE_VALUES: dict[str, tuple[str, object, str]] = {
    "server_name": ('"a.test"', "a.test", "1"),
    "ca_file": ('"/ca.pem"', "/ca.pem", '"ca.pem"'),
    "starttls": ('"smtp"', "smtp", '"ftp"'),
    "timeout": ("2", 2.0, "0"),
    "key_types": ('["rsa", "ecdsa"]', (KeyType.RSA, KeyType.ECDSA), '["dsa"]'),
    "depth": ('"thorough"', Depth.THOROUGH, '"deep"'),
}


def line(key: str, value: str) -> str:
    table, _, name = key.rpartition(".")
    return f"[{table}]\n{name} = {value}" if table else f"{name} = {value}"


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(text, "the.toml")
    assert caught.value.message.startswith("the.toml: ")
    assert caught.value.hint
    return caught.value


def test_an_empty_file_means_the_defaults() -> None:
    assert parse("# nothing", "the.toml") == Config()


def test_the_tables_know_every_attribute_once_and_these_tests_know_every_key() -> None:
    attributes = {field.name for field in fields(Config)} - {"lineages", "modules", "servers", "channels"}
    assert sorted(key.attribute for key in SCHEMA.values()) == sorted(attributes)
    of_lineage = {field.name for field in fields(Lineage)} - {"name"}
    assert sorted(key.attribute for key in LINEAGE_SCHEMA.values()) == sorted(of_lineage)
    assert (VALUES.keys(), LINEAGE_VALUES.keys()) == (SCHEMA.keys(), LINEAGE_SCHEMA.keys())


@pytest.mark.parametrize("key", SCHEMA)
def test_each_key_sets_its_attribute_and_refuses_what_does_not_fit(key: str) -> None:
    good, expected, bad = VALUES[key]
    changed = replace(Config(), **{SCHEMA[key].attribute: expected})  # type: ignore[arg-type]  # by the table
    assert changed != Config()
    assert parse(line(key, good), "the.toml") == changed
    assert f"{key} must be " in refused(line(key, bad)).message


@pytest.mark.parametrize("key", LINEAGE_SCHEMA)
def test_each_key_of_a_lineage(key: str) -> None:
    good, expected, bad = LINEAGE_VALUES[key]
    head = '[lineage."a.test"]\n'
    read = parse(f"{head}{key} = {good}", "the.toml").lineage("a.test")
    assert read == replace(Lineage("a.test"), **{LINEAGE_SCHEMA[key].attribute: expected})  # type: ignore[arg-type]
    assert f"lineage.a.test.{key} must be " in refused(f"{head}{key} = {bad}").message


@pytest.mark.parametrize("key", SERVER_SCHEMA)
def test_each_key_of_a_server(key: str) -> None:
    good, expected, bad = SERVER_VALUES[key]
    head = "[server.mine]\n" + ('reload = ["/bin/r"]\n' if key != "reload" else "")
    read = parse(f"{head}{key} = {good}", "the.toml").servers["mine"]
    known = Commands("mine", reload=("/bin/r",))
    assert read == replace(known, **{SERVER_SCHEMA[key].attribute: expected})  # type: ignore[arg-type]
    assert f"server.mine.{key} must be " in refused(f"{head}{key} = {bad}").message
    assert SERVER_VALUES.keys() == SERVER_SCHEMA.keys()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[server.mine]\nlineages = []", "name the command that makes it load certificates"),
        ("server = 1", "write [server.NAME]"),
        ("[server]\nmine = 1", "write [server.NAME]"),
        ("[server.'a b']\nreload = ['/r']", "write [server.NAME]"),
    ],
)
def test_a_server_without_its_commands_is_refused(text: str, hint: str) -> None:
    assert refused(text).hint == hint


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("[prove]\ntimeuot = 3", "prove.timeout"),
        ("[policy]\nmissing-staple = 'alert'", "policy.missing_staple"),
        ("generation = 3", "generations"),
        ("[nginx]\nresolvers = []", "nginx.resolver"),
        ("[lineage.a]\nsource = []", "lineage.a.sources"),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, nearest: str) -> None:
    error = refused(text)
    assert "unknown key" in error.message
    assert error.hint == f"did you mean {nearest}?"


@pytest.mark.parametrize(
    "text",
    [
        "a = ",
        "lineage = 3",
        "[lineage]\na = 3",
        '[lineage."../a"]',
        '[lineage.".a"]',
        '[lineage."-a"]',
        "[prove.x]",
    ],
)
def test_what_is_no_configuration_is_refused(text: str) -> None:
    refused(text)


def test_a_lineage_falls_back_to_the_policy() -> None:
    config = parse(
        "[policy]\nprime = 'warm'\nmissing_staple = 'rollback'\n[lineage.a]\nprime = 'file'", "the.toml"
    )
    assert (config.prime_for("a"), config.prime_for("b")) == (Prime.FILE, Prime.WARM)
    assert config.missing_staple_for("a") is MissingStaple.ROLLBACK
    assert config.lineage("b") == Lineage("b")


def test_the_owner_of_a_source() -> None:
    config = parse(
        "[lineage.a]\nsources = ['/x/a', '/x/a-rsa/']\n[lineage.b]\nsources = ['/x/b']", "the.toml"
    )
    assert [config.owner_of(one) for one in ("/x/a/", "/x/a-rsa", "/x/b", "/x", "/x/a/b")] == [
        "a",
        "a",
        "b",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "read"),
    [("a.test:443", ("a.test", 443)), ("[::1]:1", ("::1", 1)), ("127.0.0.1:65535", ("127.0.0.1", 65535))],
)
def test_an_endpoint(text: str, read: tuple[str, int]) -> None:
    assert endpoint(text) == read


@pytest.mark.parametrize(
    "text", ["", "a.test", "a.test:", ":443", "a.test:0", "a.test:65536", "::1:443", "a b:1", "a:1\n"]
)
def test_no_endpoint(text: str) -> None:
    with pytest.raises(UsageError, match="not HOST:PORT"):
        endpoint(text)


def test_networks_are_normalised_or_refused() -> None:
    assert networks(["127.0.0.1", "fd00::1/8"]) == ("127.0.0.1/32", "fd00::/8")
    with pytest.raises(UsageError, match="not an address range"):
        networks(["127.0.0.1/33"])


def test_the_default_module_is_always_there() -> None:
    assert parse("", "the.toml").modules == {"default": Module("default")}
    read = parse(
        "[exporter.modules.default]\ntimeout = 3\n[exporter.modules.mail]\nstarttls = 'smtp'", "the.toml"
    )
    assert read.modules == {
        "default": Module("default", timeout=3.0),
        "mail": Module("mail", starttls="smtp"),
    }
    assert MODULE_VALUES.keys() == MODULE_SCHEMA.keys()


@pytest.mark.parametrize("key", MODULE_SCHEMA)
def test_each_key_of_a_module_sets_its_attribute_and_refuses_what_does_not_fit(key: str) -> None:
    value, read, wrong = MODULE_VALUES[key]
    module = parse(f"[exporter.modules.m]\n{key} = {value}", "the.toml").modules["m"]
    assert module == replace(Module("m"), **{MODULE_SCHEMA[key].attribute: read})
    assert f"exporter.modules.m.{key} must be" in refused(f"[exporter.modules.m]\n{key} = {wrong}").message


@pytest.mark.parametrize(
    "text", ["exporter = 1", "[exporter]\nlisten = 1", "[exporter]\nmodules = 1", "[exporter.modules]\nm = 1",
             "[exporter.modules.'a b']", "[exporter.modules.m]\nsni = 1"]
)  # fmt: skip
def test_what_is_no_module_is_refused(text: str) -> None:
    refused(text)
