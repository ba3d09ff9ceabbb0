"""The configuration: TOML text in, one frozen `Config` out, or one error that names file, key and remedy.

Every key has a default and the file may be absent. `SCHEMA` is the single table of keys: the parser, the
nearest-key hint and docs/reference/configuration.md are all made from it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from stapleguard import channels
from stapleguard.channels import Channel
from stapleguard.model import STARTTLS, Depth, KeyType, Prime, UsageError, escape
from stapleguard.values import Bad as _Bad
from stapleguard.values import Key
from stapleguard.values import listed as _list
from stapleguard.values import path as _path
from stapleguard.values import paths as _paths
from stapleguard.values import read as _read
from stapleguard.values import seconds as _seconds
from stapleguard.values import text as _text
from stapleguard.values import timeout as _timeout

NAME: Final = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9._*@+-]{0,199}")
"""What a lineage may be called: one path component that is neither hidden nor an option."""


class MissingStaple(Enum):
    """What to do when a certificate that is not must-staple gets no staple within the budget."""

    ALERT = "alert"
    ROLLBACK = "rollback"


class Understudies(Enum):
    """Whether a private instance of a server proves a generation before it is published."""

    AUTO = "auto"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Lineage:
    """One configured lineage; empty values fall back to what is found or to the global setting."""

    name: str
    sources: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    prime: Prime | None = None
    missing_staple: MissingStaple | None = None


@dataclass(frozen=True, slots=True)
class Module:
    """One module of the exporter: how a target of Prometheus is looked at."""

    name: str
    server_name: str = ""
    ca_file: str = ""
    starttls: str = ""
    timeout: float = 10.0
    key_types: tuple[KeyType, ...] = ()
    depth: Depth = Depth.QUICK


@dataclass(frozen=True, slots=True)
class Program:
    """Which installation of one kind of server is meant; empty means what is found."""

    binary: str = ""
    config: str = ""


@dataclass(frozen=True, slots=True)
class Commands:
    """A server that stapleguard does not know: how it is tested and reloaded, and its staple file."""

    name: str
    lineages: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    staple_file: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. Durations are seconds."""

    anchors: str = ""
    prime: Prime = Prime.AUTO
    missing_staple: MissingStaple = MissingStaple.ALERT
    generations: int = 5
    understudy: Understudies = Understudies.AUTO
    understudy_budget: float = 5.0
    fetch_timeout: float = 15.0
    allow_addresses: tuple[str, ...] = ()
    proxy: str = ""
    prove_timeout: float = 60.0
    prove_interval: float = 0.05
    prove_backoff: float = 1.6
    prove_interval_max: float = 5.0
    prove_quiet: float = 10.0
    handshake_timeout: float = 5.0
    confidence: float = 0.99
    assumed_workers: int = 4
    responder_wait: float = 60.0
    responder_patience: float = 3600.0
    retry_floor: float = 60.0
    retry_cap: float = 3600.0
    watch_interval: float = 3600.0
    refresh_margin: float = 900.0
    nginx_binary: str = ""
    nginx_config: str = ""
    nginx_resolver: tuple[str, ...] = ()
    nginx_resolver_timeout: float | None = None
    test_timeout: float = 30.0
    apache_binary: str = ""
    apache_config: str = ""
    haproxy_binary: str = ""
    haproxy_config: str = ""
    lighttpd_binary: str = ""
    lighttpd_config: str = ""
    servers: Mapping[str, Commands] = field(default_factory=dict)
    alert_repeat: float = 86400.0
    alert_host: str = ""
    channels: Mapping[str, Channel] = field(default_factory=dict)
    lineages: Mapping[str, Lineage] = field(default_factory=dict)
    modules: Mapping[str, Module] = field(default_factory=lambda: {"default": Module("default")})

    def lineage(self, name: str) -> Lineage:
        """Return what is configured for a lineage, or a bare one of that name."""
        return self.lineages.get(name) or Lineage(name)

    def program(self, kind: str) -> Program:
        """Return which installation of a kind of server is meant."""
        programs = {
            "nginx": Program(self.nginx_binary, self.nginx_config),
            "apache": Program(self.apache_binary, self.apache_config),
            "haproxy": Program(self.haproxy_binary, self.haproxy_config),
            "lighttpd": Program(self.lighttpd_binary, self.lighttpd_config),
        }
        return programs.get(kind, Program())

    def owner_of(self, directory: str) -> str | None:
        """Return the configured lineage that has `directory` among its sources."""
        for lineage in self.lineages.values():
            if directory.rstrip("/") in (source.rstrip("/") for source in lineage.sources):
                return lineage.name
        return None

    def prime_for(self, name: str) -> Prime:
        """Return how this lineage is primed."""
        return self.lineage(name).prime or self.prime

    def missing_staple_for(self, name: str) -> MissingStaple:
        """Return what a missing staple means for this lineage."""
        return self.lineage(name).missing_staple or self.missing_staple


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 1000:
        raise _Bad("a whole number from 2 to 1000")
    return value


def _workers(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
        raise _Bad("a whole number from 1 to 1024")
    return value


def _factor(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 10:
        raise _Bad("a number from 1 to 10")
    return float(value)


def _confidence(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value < 1:
        raise _Bad("a number from 0.5 to below 1")
    return float(value)


def _prime(value: object) -> Prime:
    try:
        return Prime(value)
    except ValueError:
        raise _Bad('"auto", "file" or "warm"') from None


def _missing(value: object) -> MissingStaple:
    try:
        return MissingStaple(value)
    except ValueError:
        raise _Bad('"alert" or "rollback"') from None


def _understudy(value: object) -> Understudies:
    try:
        return Understudies(value)
    except ValueError:
        raise _Bad('"auto" or "off"') from None


def _starttls(value: object) -> str:
    if value not in STARTTLS:
        raise _Bad("one of " + ", ".join(STARTTLS))
    return str(value)


def _depth(value: object) -> Depth:
    try:
        return Depth(value)
    except ValueError:
        raise _Bad('"quick" or "thorough"') from None


def _key_types(value: object) -> tuple[KeyType, ...]:
    try:
        return tuple(KeyType(one) for one in _list(value))
    except ValueError:
        raise _Bad('a list of "rsa", "ecdsa" or "eddsa"') from None


def _argv(value: object) -> tuple[str, ...]:
    listed = _list(value)
    if not listed or not listed[0].startswith("/"):
        raise _Bad("a list of strings, the first of them the absolute path of a program")
    return listed


def networks(values: Sequence[str]) -> tuple[str, ...]:
    """Check address ranges in CIDR notation (a bare address is a range of one); UsageError when not."""
    try:
        return tuple(str(ipaddress.ip_network(value, strict=False)) for value in values)
    except ValueError as error:
        raise UsageError(
            f"not an address range: {escape(str(error))}", "write it like 192.0.2.0/24 or 2001:db8::/32"
        ) from None


def _networks(value: object) -> tuple[str, ...]:
    try:
        return networks(_list(value))
    except UsageError:
        raise _Bad('a list of address ranges such as "192.0.2.0/24"') from None


_ENDPOINT: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s/]+):(\d{1,5})")


def endpoint(text: str) -> tuple[str, int]:
    """Split HOST:PORT or [V6]:PORT; UsageError when it is neither."""
    match = _ENDPOINT.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise UsageError(
            f"not HOST:PORT: {escape(text)}", "write it like example.org:443 or [2001:db8::1]:443"
        )
    return match[1].strip("[]"), int(match[2])


def _endpoints(value: object) -> tuple[str, ...]:
    listed = _list(value)
    try:
        for item in listed:
            endpoint(item)
    except UsageError as error:
        raise _Bad(f"a list of HOST:PORT ({error.message})") from None
    return listed


SCHEMA: Final[Mapping[str, Key]] = {
    "anchors": Key("anchors", _path, "PEM file of trust anchors instead of the system's store"),
    "generations": Key("generations", _count, "how many generations of a lineage are kept"),
    "policy.prime": Key("prime", _prime, "how a server gets its first staple: auto, file or warm"),
    "policy.missing_staple": Key(
        "missing_staple",
        _missing,
        "alert or rollback when a certificate that is not must-staple gets no staple",
    ),
    "policy.understudy": Key(
        "understudy",
        _understudy,
        "auto or off: whether a private instance of the server proves a renewal before it is published",
    ),
    "policy.understudy_budget": Key(
        "understudy_budget", _seconds, "seconds that this instance has until it shows a good staple"
    ),
    "fetch.timeout": Key("fetch_timeout", _seconds, "seconds for one exchange with a responder, in all"),
    "fetch.allow_addresses": Key(
        "allow_addresses", _networks, "private or loopback ranges that a responder or AIA host may have"
    ),
    "fetch.proxy": Key("proxy", _text, "HTTP proxy for responders and AIA, http://host:port"),
    "prove.timeout": Key(
        "prove_timeout", _seconds, "seconds from the reload until the proof must be complete"
    ),
    "prove.interval": Key("prove_interval", _seconds, "seconds between two rounds of handshakes at first"),
    "prove.backoff": Key("prove_backoff", _factor, "factor by which the interval grows from round to round"),
    "prove.interval_max": Key("prove_interval_max", _seconds, "seconds between two rounds at most"),
    "prove.quiet": Key(
        "prove_quiet", _seconds, "seconds without any progress after which more waiting is held to be useless"
    ),
    "prove.handshake_timeout": Key(
        "handshake_timeout", _seconds, "seconds for one connection and one handshake each"
    ),
    "prove.confidence": Key(
        "confidence", _confidence, "wanted confidence where the workers of a server cannot be told apart"
    ),
    "prove.assumed_workers": Key(
        "assumed_workers",
        _workers,
        "how many workers a server is held to have where this host cannot tell",
    ),
    "responder.wait": Key(
        "responder_wait",
        _seconds,
        "seconds in the foreground for an answer about a certificate that needs one",
    ),
    "responder.patience": Key(
        "responder_patience",
        _seconds,
        "seconds that a fresh certificate's responder may lag before it is a failure",
    ),
    "retry.floor": Key("retry_floor", _seconds, "seconds between two attempts at the same trouble at least"),
    "retry.cap": Key("retry_cap", _seconds, "seconds between two attempts at the same trouble at most"),
    "watch.interval": Key(
        "watch_interval", _seconds, "seconds after which what is deployed is proved again by the timer"
    ),
    "refresh.margin": Key(
        "refresh_margin",
        _seconds,
        "seconds before its end at which a staple file that could not be renewed is withdrawn "
        "(at most an eighth of its life)",
    ),
    "nginx.binary": Key("nginx_binary", _path, "the nginx program, when the running one is not to be used"),
    "nginx.config": Key("nginx_config", _path, "its configuration file, when several nginx run here"),
    "nginx.resolver": Key(
        "nginx_resolver", _list, "values of the `resolver` line of the include, e.g. 127.0.0.53"
    ),
    "nginx.resolver_timeout": Key("nginx_resolver_timeout", _seconds, "value of its `resolver_timeout` line"),
    "nginx.test_timeout": Key(
        "test_timeout", _seconds, "seconds for a configuration test or a reload command, of any server"
    ),
    "apache.binary": Key("apache_binary", _path, "the Apache program, when not the running one"),
    "apache.config": Key("apache_config", _path, "its configuration file, when several Apache run here"),
    "haproxy.binary": Key("haproxy_binary", _path, "the HAProxy program, when not the running one"),
    "haproxy.config": Key("haproxy_config", _path, "its first configuration file, when several run here"),
    "lighttpd.binary": Key("lighttpd_binary", _path, "the lighttpd program, when not the running one"),
    "lighttpd.config": Key("lighttpd_config", _path, "its configuration file, when several run here"),
    "alerts.repeat": Key(
        "alert_repeat", _seconds, "seconds after which a trouble that lasts is told again; 0: never"
    ),
    "alerts.host": Key("alert_host", _text, "what messages call this host, instead of its own name"),
}

LINEAGE_SCHEMA: Final[Mapping[str, Key]] = {
    "sources": Key(
        "sources", _paths, "the ACME client's directories; a second one of another key type is served beside"
    ),
    "endpoints": Key(
        "endpoints", _endpoints, "HOST:PORT to prove on, besides what the server's configuration tells"
    ),
    "nodes": Key(
        "nodes",
        _endpoints,
        "HOST:PORT of each member of a cluster, asked for the certificate's own name",
    ),
    "names": Key("names", _list, "names that the certificate must cover, besides the server's own"),
    "prime": Key("prime", _prime, "as policy.prime, for this lineage"),
    "missing_staple": Key("missing_staple", _missing, "as policy.missing_staple, for this lineage"),
}

SERVER_SCHEMA: Final[Mapping[str, Key]] = {
    "lineages": Key("lineages", _list, "the lineages that it serves; each names its `endpoints`"),
    "test": Key("test", _argv, "the command that tests its configuration: program and arguments, no shell"),
    "reload": Key("reload", _argv, "the command that makes it load its certificates anew"),
    "staple_file": Key(
        "staple_file", _path, "where it wants the OCSP answer (DER); without, it has to ask for itself"
    ),
}

MODULE_SCHEMA: Final[Mapping[str, Key]] = {
    "server_name": Key("server_name", _text, "the name to ask for (SNI) instead of the target's own"),
    "ca_file": Key("ca_file", _path, "PEM file of trust anchors for these targets"),
    "starttls": Key("starttls", _starttls, "what is spoken before TLS: " + ", ".join(STARTTLS)),
    "timeout": Key("timeout", _timeout, "seconds for one look, where Prometheus does not allow less"),
    "key_types": Key("key_types", _key_types, "key types to ask for one by one: rsa, ecdsa, eddsa"),
    "depth": Key(
        "depth", _depth, "quick (one handshake an address) or thorough (key types, versions, every worker)"
    ),
}


def parse(text: str, file: str) -> Config:
    """Read the text of a configuration file (TOML 1.0); `file` is for messages; UsageError on a fault."""
    if not text:
        return Config()
    import tomllib  # a host without a configuration file need not wait for it

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{file}: not valid TOML: {escape(str(error))}", "see docs/reference/configuration.md"
        ) from None
    lineages = document.pop("lineage", {})
    modules = _modules(document.pop("exporter", {}), file)
    servers = _servers(document.pop("server", {}), file)
    told = channels.take(document, file)
    values = _read(_flat(document), SCHEMA, file, "")
    if not isinstance(lineages, dict):
        raise UsageError(f"{file}: lineage must be tables", 'write [lineage."example.org"]')
    read = {name: _lineage(name, table, file) for name, table in lineages.items()}
    made = Config(lineages=read, modules=modules, servers=servers, channels=told)
    return replace(made, **values)  # type: ignore[arg-type]  # each parser of SCHEMA gives its attribute's type


def _lineage(name: str, table: object, file: str) -> Lineage:
    if NAME.fullmatch(name) is None or not isinstance(table, dict):
        raise UsageError(f"{file}: not a lineage: {escape(name)}", 'write [lineage."example.org"]')
    values = _read(table, LINEAGE_SCHEMA, file, f"lineage.{name}.")
    return replace(Lineage(name), **values)  # type: ignore[arg-type]  # as above


def _servers(table: object, file: str) -> dict[str, Commands]:
    if not isinstance(table, dict):
        raise UsageError(f"{file}: server must be tables", "write [server.NAME]")
    read: dict[str, Commands] = {}
    for name, keys in table.items():
        if NAME.fullmatch(name) is None or not isinstance(keys, dict):
            raise UsageError(f"{file}: not a server: {escape(name)}", "write [server.NAME]")
        values = _read(keys, SERVER_SCHEMA, file, f"server.{name}.")
        read[name] = replace(Commands(name), **values)  # type: ignore[arg-type]  # as above
        if not read[name].reload:
            raise UsageError(
                f"{file}: server.{name} has no reload", "name the command that makes it load certificates"
            )
    return read


def _modules(table: object, file: str) -> dict[str, Module]:
    modules = table.get("modules", {}) if isinstance(table, dict) and table.keys() <= {"modules"} else None
    if not isinstance(modules, dict):
        raise UsageError(f"{file}: exporter holds only modules", "write [exporter.modules.NAME]")
    read = {"default": Module("default")}
    for name, keys in modules.items():
        if NAME.fullmatch(name) is None or not isinstance(keys, dict):
            raise UsageError(f"{file}: not a module: {escape(name)}", "write [exporter.modules.NAME]")
        values = _read(keys, MODULE_SCHEMA, file, f"exporter.modules.{name}.")
        read[name] = replace(Module(name), **values)  # type: ignore[arg-type]  # as above
    return read


def _flat(document: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        else:
            flat[key] = value
    return flat
