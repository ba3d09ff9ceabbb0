"""What each server's module reads of its configuration and its words, and what the rules make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from stapleguard.diagnosis import cause_of
from stapleguard.diagnosis.facts import Block, Facts, Lookup, Name, Server, Setting, StapleFile, Symptom
from stapleguard.diagnosis.inference import infer
from stapleguard.finding import Code, find
from stapleguard.model import Endpoint
from stapleguard.servers import (
    STAPLERS,
    Instance,
    apache_config,
    apache_stapling,
    haproxy_config,
    haproxy_stapling,
    lighttpd_stapling,
)
from test_inference import DOOR, FACTS, GOOD, OLD, URL, fails

pytestmark = pytest.mark.unit

HERE = Endpoint("a.test", 443, "a.test", "192.0.2.1")


def instance(kind: str, config: Path, version: str = "") -> Instance:
    return Instance(kind, f"/usr/sbin/{kind}", str(config), ("-f", str(config)), version, None)


# --- Apache ----------------------------------------------------------------------------------------------

APACHE = """ServerRoot "/etc/apache2"
Listen 443
SSLStaplingCache shmcb:/run/x(1)
SSLUseStapling on
<VirtualHost *:443>
  ServerName other.test
  SSLCertificateFile /o.pem
</VirtualHost>
<VirtualHost 192.0.2.1:443>
  ServerName first.test
  SSLCertificateFile /first.pem
  SSLUseStapling off
</VirtualHost>
<VirtualHost 192.0.2.1:443>
  ServerName b.test
  ServerAlias *.a.test a.test
  SSLCertificateFile a.pem
  SSLStaplingForceURL http://forced.test/
  SSLStaplingReturnResponderErrors off
</VirtualHost>
"""


def apache_block(tmp_path: Path, text: str, endpoint: Endpoint) -> Block | None:
    config = tmp_path / "apache2.conf"
    config.write_text(text)
    return apache_stapling.block_for(instance("apache", config), endpoint, None)


def test_apache_answers_a_name_at_the_very_address_first(tmp_path: Path) -> None:
    found = apache_block(tmp_path, APACHE, HERE)
    assert found is not None
    assert found.where == f"{tmp_path}/apache2.conf:14"
    assert found.stapling == Setting(("on",), f"{tmp_path}/apache2.conf:4")  # inherited
    assert found.certificate.value == "/etc/apache2/a.pem"
    assert found.responder == Setting(("http://forced.test/",), f"{tmp_path}/apache2.conf:18")
    assert (found.errors.value, found.made_up.value) == ("off", "off")
    assert found.cache is not None
    assert found.cache.value


@pytest.mark.parametrize(
    ("address", "name", "certificate"),
    [
        ("192.0.2.1", "x.a.test", "/etc/apache2/a.pem"),
        ("192.0.2.1", "unknown.test", "/first.pem"),
        ("192.0.2.1", "other.test", "/first.pem"),  # at another address
        ("192.0.2.9", "other.test", "/o.pem"),
    ],
)
def test_which_host_of_apache_answers(tmp_path: Path, address: str, name: str, certificate: str) -> None:
    found = apache_block(tmp_path, APACHE, Endpoint(name, 443, name, address))
    assert found is not None
    assert found.certificate.value == certificate


def test_apache_passes_on_everything_unless_told_otherwise(tmp_path: Path) -> None:
    found = apache_block(tmp_path, APACHE.replace("SSLStaplingReturnResponderErrors off", ""), HERE)
    assert found is not None
    assert (found.errors.value, found.made_up.value, found.errors.where) == ("on", "on", "")
    managed = apache_block(tmp_path, f"MDStapling on\n{APACHE}", HERE)
    assert managed is not None
    assert (managed.errors.value, managed.cache, managed.in_handshake) == ("off", None, False)


LOG = """\
[Wed Nov 25 06:00:00.000001 2026] [mpm_event:notice] [pid 1:tid 1] AH00489: configured -- resuming
[Wed Nov 25 06:00:01.000001 2026] [ssl:error] [pid 2:tid 2] AH01974: could not connect to OCSP responder 'old'
[Wed Nov 25 06:00:02.000001 2026] [mpm_event:notice] [pid 1:tid 1] AH00493: SIGUSR1 received.
[Wed Nov 25 06:00:03.000001 2026] [ssl:error] [pid 1:tid 1] AH02217: can't retrieve issuer
[Wed Nov 25 06:00:03.000002 2026] [mpm_event:notice] [pid 1:tid 1] AH00489: configured -- resuming
[Wed Nov 25 06:00:04.000001 2026] [ssl:error] [pid 3:tid 3] AH01980: bad response from OCSP server: 500
"""


def test_apache_is_heard_from_its_last_load_on() -> None:
    lines, since = apache_stapling.recent(LOG)
    assert [line.split("] ")[3][:7] for line in lines] == ["AH02217", "AH00489", "AH01980"]
    assert since is not None
    assert since.second == 3
    assert apache_stapling.recent("no load in sight\n") == (["no load in sight"], None)


def test_a_config_without_hosts_is_the_main_servers() -> None:
    scope = apache_config.Scope("")
    config = apache_config.Config(scope, (), ())
    assert apache_config.host_for(config, "192.0.2.1", 443, "a.test") is None


# --- HAProxy ---------------------------------------------------------------------------------------------


def haproxy_block(
    tmp_path: Path, line: str, version: str = "2.8.1", main: str = "", name: str = "a.test"
) -> Block:
    (tmp_path / "list").write_text(f"# ours\n{tmp_path}/b.pem [ocsp-update on] b.test\n{line}\n")
    config = tmp_path / "haproxy.cfg"
    config.write_text(f"global\n{main}\nfrontend f\n  bind :443 ssl crt-list {tmp_path}/list\n")
    endpoint = replace(HERE, server_name=name)
    found = haproxy_stapling.block_for(instance("haproxy", config, version), endpoint, None)
    assert found is not None
    return found


def test_haproxy_is_asked_for_the_entry_of_a_name(tmp_path: Path) -> None:
    found = haproxy_block(tmp_path, f"{tmp_path}/a.pem [alpn h2 ocsp-update on] *.a.test a.test")
    assert found.certificate == Setting((f"{tmp_path}/a.pem",), f"{tmp_path}/list:3")
    assert (found.on, found.fetches, found.file.value) == (True, True, "")
    other = haproxy_block(tmp_path, f"{tmp_path}/a.pem x.test")
    assert other.certificate.value == f"{tmp_path}/b.pem"  # the first, for a name that none has


def test_haproxy_before_2_8_fetches_nothing(tmp_path: Path) -> None:
    line = f"{tmp_path}/a.pem [ocsp-update on] a.test"
    assert haproxy_block(tmp_path, line, "2.6.12").on is False
    (tmp_path / "a.pem.ocsp").write_bytes(b"x")
    by_file = haproxy_block(tmp_path, line, "2.6.12")
    assert (by_file.on, by_file.fetches, by_file.file.value) == (True, False, f"{tmp_path}/a.pem.ocsp")
    unread = haproxy_block(tmp_path, line, "2.6.12", "  ssl-load-extra-files key")
    assert unread.on is False


def test_haproxy_asks_the_name_servers_of_its_section(tmp_path: Path) -> None:
    section = "resolvers default\n  nameserver one 192.0.2.53:5353\n  nameserver two udp@192.0.2.54:53\n"
    found = haproxy_block(tmp_path, f"{tmp_path}/a.pem [ocsp-update on] a.test", main=section)
    assert found.resolver.words == ("192.0.2.53:5353", "192.0.2.54:53")
    host = haproxy_block(tmp_path, f"{tmp_path}/a.pem [ocsp-update on] a.test")
    assert host.resolver.where == "/etc/resolv.conf"


def test_the_exact_address_is_bound_before_every_address(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    binds = "  bind :443 ssl crt /every.pem\n  bind 192.0.2.1:443 ssl crt /exact.pem\n"
    config.write_text(f"frontend f\n{binds}")
    bound = haproxy_config.bound([str(config)], "192.0.2.1", 443)
    assert bound is not None
    assert [one.path for one in bound.entries] == ["/exact.pem"]
    assert haproxy_config.bound([str(config)], "192.0.2.1", 444) is None


# --- lighttpd --------------------------------------------------------------------------------------------


def test_lighttpd_has_a_file_or_nothing(tmp_path: Path) -> None:
    config = tmp_path / "lighttpd.conf"
    socket = '$SERVER["socket"] == ":443" {\n  ssl.engine = "enable"\n  ssl.pemfile = "/a.pem"\n'
    config.write_text(f"{socket}}}\n")
    bare = lighttpd_stapling.block_for(instance("lighttpd", config), HERE, None)
    assert bare is not None
    assert (bare.on, bare.fetches, bare.where) == (False, False, f"{config}:3")
    config.write_text(f'{socket}  ssl.stapling-file = "/a.der"\n}}\n')
    given = lighttpd_stapling.block_for(instance("lighttpd", config), HERE, None)
    assert given is not None
    assert given.file == Setting(("/a.der",), f"{config}:4")
    assert lighttpd_stapling.block_for(instance("lighttpd", config), replace(HERE, port=444), None) is None


# --- what the rules make of it ---------------------------------------------------------------------------


def on(kind: str, facts: Facts = FACTS, **block: object) -> Facts:
    made = Block("/x:1", Setting(("on",), "/x:2"), certificate=Setting(("/a.pem",), "/x:3"), **block)  # type: ignore[arg-type]
    return replace(facts, server=Server(kind, "1", "/x", True, made, manner=STAPLERS[kind].MANNER))


SERVES_BAD = find(Code.SERVER_SERVES_BAD_STAPLE, "a.test", "a.test staples a bad answer")
REVOKED = find(Code.OCSP_REVOKED, "a.test", "revoked")


def bad(facts: Facts) -> Facts:
    return replace(facts, symptom=Symptom.BAD, handshakes=(SERVES_BAD, REVOKED))


BROKEN = Name(
    "ocsp.test", Lookup("", ("192.0.2.8",)), (Lookup("192.0.2.53", (), Code.DNS_TIMEOUT, "silent"),)
)
OWN_ONLY = Name("ocsp.test", Lookup("", (), Code.DNS_NAME_NOT_FOUND), (Lookup("192.0.2.53", ("192.0.2.8",)),))
OLD_FILE = StapleFile("/a.pem.ocsp", "", OLD)
FILE = Setting(("/a.pem.ocsp",), "/x:4")


def by_file(kind: str, file: StapleFile, symptom: Symptom = Symptom.ABSENT) -> Facts:
    facts = replace(on(kind, file=FILE, fetches=False), symptom=symptom)
    assert facts.server is not None
    return replace(facts, server=replace(facts.server, staple_file=file))


ROWS: list[tuple[str, Facts, Code | None]] = [
    ("apache passes on revoked", bad(on("apache", fails(Code.OCSP_REVOKED))), Code.SERVER_SERVES_BAD_STAPLE),
    ("apache invents a try-later", bad(on("apache", fails(Code.NET_REFUSED))), Code.NET_REFUSED),
    ("apache keeps it back", on("apache", fails(Code.OCSP_TRY_LATER)), Code.OCSP_TRY_LATER),
    ("apache without a cache", on("apache", cache=Setting()), Code.SERVER_CACHE_MISSING),
    (
        "apache waits in the handshake",
        replace(on("apache", fails(Code.NET_BLOCKED), in_handshake=True), symptom=Symptom.UNSEEN),
        Code.NET_BLOCKED,
    ),
    (
        "apache does not run",
        replace(on("apache", in_handshake=True), symptom=Symptom.UNSEEN),
        None,
    ),
    ("haproxy's own resolver", replace(on("haproxy"), names=(BROKEN,)), Code.SERVER_RESOLVER_BROKEN),
    ("only haproxy's resolver knows", replace(on("haproxy"), names=(OWN_ONLY,), symptom=Symptom.GOOD), None),
    ("haproxy's file", by_file("haproxy", OLD_FILE), Code.SERVER_STAPLE_FILE_BAD),
    ("haproxy has not read it", by_file("haproxy", StapleFile("/f", "", GOOD)), Code.SERVER_RELOAD_NOT_TAKEN),
    ("lighttpd's file", by_file("lighttpd", OLD_FILE), Code.SERVER_STAPLE_FILE_BAD),
    (
        "lighttpd may not read it",
        by_file("lighttpd", StapleFile("/f", "", GOOD, None, "uid 33")),
        Code.SERVER_STAPLE_FILE_BAD,
    ),
    (
        "by a file the responder matters little",
        by_file("lighttpd", StapleFile("/f", "", GOOD), Symptom.GOOD),
        None,
    ),
]


@pytest.mark.parametrize(("facts", "cause"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_servers_manner_decides_who_is_to_blame(facts: Facts, cause: Code | None) -> None:
    critical = [one for one in infer(facts) if one.critical]
    assert cause_of(critical) is cause
    assert {one.code for one in critical} <= {cause}


def test_remedies_are_in_the_words_of_the_server() -> None:
    for kind, words in {
        "apache": ("SSLUseStapling on", "apachectl graceful"),
        "haproxy": ("/a.pem.ocsp", "ocsp-update"),
        "lighttpd": ("ssl.stapling-file", "kill -USR1"),
    }.items():
        off = on(kind, fetches=kind == "apache", cache=None)
        assert off.server is not None
        assert off.server.block is not None
        off = replace(
            off, server=replace(off.server, block=replace(off.server.block, stapling=Setting(("off",))))
        )
        (found,) = [one for one in infer(off) if one.code is Code.SERVER_STAPLING_DISABLED]
        assert all(word in found.remedy for word in words), found.remedy
        assert "nginx" not in found.remedy


def test_a_proxy_of_the_servers_own_is_its_way() -> None:
    shut = replace(fails(Code.NET_BLOCKED).doors[0])
    through = replace(DOOR, proxy="http://p.test:3128", named_by=("",))
    dead = replace(through, replies=shut.replies)
    proxy = Setting(("http://p.test:3128",), "/x:5")
    # The straight way is shut, and is not the server's.
    elsewhere = replace(on("apache", proxy=proxy), doors=(shut, through), handshakes=())
    assert infer(elsewhere) == ()
    ill = replace(on("apache", proxy=proxy), doors=(DOOR, dead))
    (found,) = [one for one in infer(ill) if one.critical]
    assert (found.code, found.subject) == (Code.NET_BLOCKED, "http://p.test:3128")
    assert "/x:5" in found.remedy
    assert URL in found.remedy
