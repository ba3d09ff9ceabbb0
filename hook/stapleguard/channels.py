"""The alert channels as they are configured: `[alerts.NAME]` in, one frozen `Channel` each out. Pure.

A secret is never a value of this module: `Reference` says where it is to be read when a message is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from stapleguard.model import UsageError, escape
from stapleguard.values import Bad, Key, listed, path, read, text, timeout

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What a channel may be called: it becomes part of a file name."""
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_ADDRESS: Final = re.compile(r"[^\s<>,;:\"()\[\]\\@]{1,64}@[A-Za-z0-9.-]{1,255}")


class Kind(Enum):
    """What a channel speaks."""

    MAIL = "mail"
    WEBHOOK = "webhook"
    SLACK = "slack"
    DISCORD = "discord"
    TEAMS = "teams"
    NTFY = "ntfy"
    PAGERDUTY = "pagerduty"
    ALERTMANAGER = "alertmanager"
    HEALTHCHECKS = "healthchecks"
    COMMAND = "command"
    APPRISE = "apprise"


class Security(Enum):
    """How a connection to a mail server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class Source(Enum):
    """Where a secret is kept."""

    CREDENTIAL = "credential"
    FILE = "file"
    ENV = "env"
    LITERAL = "literal"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the value of a key is: a systemd credential, a file, a variable, or the configuration itself."""

    source: Source
    where: str

    def __repr__(self) -> str:
        shown = "..." if self.source is Source.LITERAL else self.where
        return f"Reference({self.source.value}, {shown})"


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to a person."""

    name: str
    kind: Kind
    url: Reference | None = None
    token: Reference | None = None
    to: tuple[str, ...] = ()
    sender: str = ""
    server: str = ""
    security: Security = Security.STARTTLS
    user: str = ""
    password: Reference | None = None
    sendmail: str = "/usr/sbin/sendmail"
    command: tuple[str, ...] = ()
    ca_file: str = ""
    proxy: str = ""
    timeout: float = 10.0

    @property
    def place(self) -> tuple[str, int]:
        """Host and port of the mail server."""
        host, _, port = self.server.rpartition(":")
        return host.strip("[]"), int(port or 25)


def _kind(value: object) -> Kind:
    try:
        return Kind(value)
    except ValueError:
        raise Bad("one of " + ", ".join(one.value for one in Kind)) from None


def _security(value: object) -> Security:
    try:
        return Security(value)
    except ValueError:
        raise Bad('"starttls", "tls" or "none"') from None


def _secret(value: object) -> Reference:
    """Read where a secret is; the configuration itself is no place for one."""
    forms = {"credential": _CREDENTIAL, "env": _VARIABLE}
    if isinstance(value, dict) and len(value) == 1:
        [(source, where)] = value.items()
        if source == "file":
            return Reference(Source.FILE, path(where))
        if source in forms and isinstance(where, str) and forms[source].fullmatch(where):
            return Reference(Source(source), where)
    raise Bad('{ credential = "NAME" }, { file = "/PATH" } or { env = "NAME" }')


def _url(value: object) -> Reference:
    """Read a URL that is no secret, or where one that is a secret is kept."""
    if not isinstance(value, str):
        return _secret(value)
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[!-~]+", value):
        raise Bad("a URL, or where it is kept: { credential = ... }, { file = ... } or { env = ... }")
    return Reference(Source.LITERAL, value)


def _server(value: object) -> str:
    match = _SERVER.fullmatch(text(value))
    if match is None or not 0 < int(match[2]) < 65536:
        raise Bad("HOST:PORT, such as smtp.example.org:587")
    return match[0]


def _address(value: object) -> str:
    if not _ADDRESS.fullmatch(text(value)):
        raise Bad("a mail address such as ops@example.org")
    return text(value)


def _addresses(value: object) -> tuple[str, ...]:
    found = tuple(_address(one) for one in listed(value))
    if not found:
        raise Bad("at least one mail address")
    return found


def _argv(value: object) -> tuple[str, ...]:
    words = listed(value)
    if not words or not words[0].startswith("/"):
        raise Bad("a list of words that begins with an absolute path; no shell reads it")
    return words


def _proxy(value: object) -> str:
    if not re.fullmatch(r"http://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}", text(value)):
        raise Bad("http://HOST:PORT")
    return text(value)


CHANNEL_SCHEMA: Final[Mapping[str, Key]] = {
    "kind": Key("kind", _kind, "what it speaks: " + ", ".join(one.value for one in Kind)),
    "url": Key("url", _url, 'where to; for most services it is a secret: `{ credential = "NAME" }`'),
    "token": Key("token", _secret, "bearer token; of PagerDuty the routing (integration) key"),
    "to": Key("to", _addresses, "mail: the recipients"),
    "from": Key("sender", _address, "mail: the sender; root at this host without it"),
    "server": Key("server", _server, "mail: HOST:PORT of the server; without it the local sendmail takes it"),
    "security": Key("security", _security, "mail: starttls, tls (from the first byte) or none"),
    "user": Key("user", text, "mail: the name to log in with"),
    "password": Key("password", _secret, "mail: the password to log in with"),
    "sendmail": Key("sendmail", path, "mail: the program that takes a message on stdin (-t -i)"),
    "command": Key("command", _argv, "command: argv; it gets the facts as JSON on stdin"),
    "ca_file": Key("ca_file", path, "PEM file of trust anchors for this channel"),
    "proxy": Key("proxy", _proxy, "HTTP proxy for this channel, http://HOST:PORT"),
    "timeout": Key("timeout", timeout, "seconds for one attempt, in all"),
}

_ALWAYS: Final = frozenset({"kind", "timeout"})
_HTTP: Final = frozenset({"url", "token", "ca_file", "proxy"})
_MAIL: Final = frozenset({"to", "from", "server", "security", "user", "password", "sendmail", "ca_file"})
TAKES: Final[Mapping[Kind, tuple[frozenset[str], frozenset[str]]]] = {
    Kind.MAIL: (frozenset({"to"}), _MAIL),
    Kind.WEBHOOK: (frozenset({"url"}), _HTTP),
    Kind.SLACK: (frozenset({"url"}), _HTTP - {"token"}),
    Kind.DISCORD: (frozenset({"url"}), _HTTP - {"token"}),
    Kind.TEAMS: (frozenset({"url"}), _HTTP - {"token"}),
    Kind.NTFY: (frozenset({"url"}), _HTTP),
    Kind.PAGERDUTY: (frozenset({"token"}), _HTTP),
    Kind.ALERTMANAGER: (frozenset({"url"}), _HTTP),
    Kind.HEALTHCHECKS: (frozenset({"url"}), _HTTP - {"token"}),
    Kind.COMMAND: (frozenset({"command"}), frozenset({"command"})),
    Kind.APPRISE: (frozenset({"url"}), frozenset({"url"})),
}
"""What each kind must have, and what it may have."""


def take(document: dict[str, object], file: str) -> dict[str, Channel]:
    """Take every `[alerts.NAME]` out of a document; UsageError names the key that is wrong or missing."""
    alerts = document.get("alerts")
    if not isinstance(alerts, dict):
        return {}
    tables = {name: one for name, one in alerts.items() if isinstance(one, dict)}
    document["alerts"] = {name: one for name, one in alerts.items() if name not in tables}
    return {name: _channel(name, table, file) for name, table in tables.items()}


def _channel(name: str, table: object, file: str) -> Channel:
    if NAME.fullmatch(name) is None or not isinstance(table, dict):
        raise UsageError(
            f"{file}: not an alert channel: {escape(name)}", "write [alerts.NAME] and kind = ..."
        )
    where = f"{file}: alerts.{name}"
    if "kind" not in table:
        raise UsageError(f"{where} has no kind", CHANNEL_SCHEMA["kind"].about)
    values = read(table, CHANNEL_SCHEMA, file, f"alerts.{name}.")
    channel = replace(Channel(name, Kind(table["kind"])), **values)  # type: ignore[arg-type]  # each parser of the schema gives its attribute's type
    must, may = TAKES[channel.kind]
    for key in sorted(must - table.keys()):
        raise UsageError(f"{where} ({channel.kind.value}) has no {key}", CHANNEL_SCHEMA[key].about)
    for key in sorted(table.keys() - may - _ALWAYS):
        raise UsageError(f"{where}: {key} has no meaning for {channel.kind.value}", "remove it")
    _agree(channel, where)
    return channel


def _agree(channel: Channel, where: str) -> None:
    """Refuse what would leak a password or can never work."""
    if bool(channel.user) != (channel.password is not None):
        raise UsageError(f"{where}: user and password belong together", "give both or neither")
    if channel.user and not channel.server:
        raise UsageError(f"{where}: a login needs a server", 'add server = "HOST:PORT"')
    local = channel.place[0] in ("localhost", "127.0.0.1", "::1")
    if channel.user and channel.security is Security.NONE and not local:
        raise UsageError(
            f"{where}: the password would cross the network in clear", 'set security = "starttls"'
        )
