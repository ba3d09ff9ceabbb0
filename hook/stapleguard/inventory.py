"""Inventories: the text of a list of endpoints in, places to look at out, or one error with file and line.

Four forms are read: plain lines, Ansible's INI inventory, what `ansible-inventory --list` prints, and
Prometheus's file_sd JSON. `Form` tells them apart by their text where nobody names one.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final, assert_never

from stapleguard.model import STARTTLS, Endpoint, KeyType, StartTls, UsageError, escape

MAX_TEXT: Final = 32 << 20
"""Characters of an inventory; a hundred thousand endpoints with labels take less than half of it."""
MAX_PLACES: Final = 250_000
MAX_LINE: Final = 4096
HTTPS: Final = 443

_HOST: Final = re.compile(r"(?![-.])[\w.-]{1,253}")
_ENDPOINT: Final = re.compile(
    r"(?:(?P<scheme>[a-z0-9]{1,16})://)?"
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,15})?)\]|(?P<host>[^\s:/\[\]]{1,253}))"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/\S*)?"
)
_SECTION: Final = re.compile(r"\[(?P<group>[^\[\]:\s]+)(?::(?P<kind>[a-z]+))?\]\s*(?:[#;].*)?")
_RANGE: Final = re.compile(
    r"\[(?P<first>[0-9]{1,9}|[A-Za-z]):(?P<last>[0-9]{1,9}|[A-Za-z])(?::(?P<step>[0-9]{1,9}))?\]"
)
_SSH_PORT: Final = re.compile(r"(?P<host>\[[^\[\]]+\]|[^:]+):[0-9]{1,5}")
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OURS: Final = frozenset({"ansible_host", "ansible_ssh_host", "stapleguard_port", "stapleguard_sni"})


class Form(Enum):
    """How an inventory is written."""

    LINES = "lines"
    ANSIBLE_INI = "ansible-ini"
    ANSIBLE_JSON = "ansible-json"
    FILE_SD = "file-sd"


@dataclass(frozen=True, slots=True)
class Place:
    """One thing to look at: a host on all of its addresses, or on `addresses` instead.

    `server_name` is the SNI ('': the host itself, None: none at all), `starttls` the protocol that is
    spoken before TLS, `key_types` are asked for one by one (empty: whatever the server picks).
    """

    host: str
    port: int
    server_name: str | None = ""
    addresses: tuple[str, ...] = ()
    starttls: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    key_types: tuple[KeyType, ...] = ()

    @property
    def authority(self) -> str:
        """HOST:PORT as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """What a person types to look at it again."""
        return f"{self.starttls}://{self.authority}" if self.starttls else self.authority

    def __str__(self) -> str:
        return self.address + (f" {self.server_name}" if self.server_name else "")

    def at(self, address: str) -> Endpoint:
        """Return the endpoint at one address."""
        starttls = StartTls(self.starttls) if self.starttls else None
        name = "" if self.server_name is None else self.server_name or self.host
        return Endpoint(self.host, self.port, name, address, starttls)


def place(text: str) -> Place:
    """Read `HOST[:PORT]`, with a scheme such as `smtp://` where STARTTLS comes first; UsageError if not."""
    match = _ENDPOINT.fullmatch(text)
    host = (match["v6"] or match["host"]) if match is not None else text
    literal = _address(host)
    if match is None and literal is None:
        raise _not_endpoint(text)
    scheme = (match["scheme"] if match is not None else None) or "https"
    if scheme != "https" and scheme not in STARTTLS:
        raise UsageError(
            f"unknown scheme {escape(scheme, 40)}://",
            f"known are https, {', '.join(STARTTLS)}; or leave it out",
        )
    if literal is None and _HOST.fullmatch(host) is None:
        raise _not_endpoint(text)
    if match is not None and ((match["v6"] and literal is None) or (match["path"] and not match["scheme"])):
        raise _not_endpoint(text)
    given = match["port"] if match is not None else None
    port = int(given) if given else STARTTLS.get(scheme, HTTPS)
    if not 0 < port < 65536:
        raise _not_endpoint(text)
    return Place(literal or host, port, starttls=None if scheme == "https" else scheme)


def server_name(text: str) -> str:
    """Check a name to ask for (SNI); UsageError when it cannot be one."""
    if _HOST.fullmatch(text) is None:
        raise UsageError(f"not a server name: {escape(text, 80)}", "write it like www.example.org")
    return text


def _not_endpoint(text: str) -> UsageError:
    return UsageError(
        f"not an endpoint: {escape(text, 80)}",
        "expected HOST[:PORT], such as example.org, [2001:db8::1]:8443 or smtp://mail.example.org:25",
    )


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def detect(text: str) -> Form:
    """Tell which form a text has; anything that resembles none of the others is plain lines."""
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("{"):
        return Form.ANSIBLE_JSON
    if re.match(r'\[\s*(?:[{\]"]|$)', start):
        return Form.FILE_SD
    for line in itertools.islice(start.splitlines(), 1000):
        words = _without_comment(line).split()
        if words and _SECTION.fullmatch(" ".join(words)) and _address(words[0].strip("[]")) is None:
            return Form.ANSIBLE_INI
        if any(re.match(r"[A-Za-z_]\w*=", word) for word in words[1:]):
            return Form.ANSIBLE_INI
    return Form.LINES


def parse(text: str, file: str, form: Form | None = None) -> tuple[Place, ...]:
    """Read the places of an inventory in its order, each once; `file` is for messages."""
    if len(text) > MAX_TEXT:
        raise UsageError(f"{escape(file)}: larger than {MAX_TEXT >> 20} MiB", "split it into several files")
    form = form or detect(text)
    match form:
        case Form.LINES:
            found = _lines(text, file)
        case Form.ANSIBLE_INI:
            found = _ansible_ini(text, file)
        case Form.ANSIBLE_JSON:
            found = _ansible_json(text, file)
        case Form.FILE_SD:
            found = _file_sd(text, file)
        case _ as never:
            assert_never(never)
    places: dict[tuple[object, ...], Place] = {}
    for one in found:
        places.setdefault((one.host, one.port, one.server_name, one.addresses, one.starttls), one)
        if len(places) > MAX_PLACES:
            raise UsageError(
                f"{escape(file)}: more than {MAX_PLACES} endpoints", "split it into several files"
            )
    return tuple(places.values())


def _at(file: str, line: int, error: UsageError) -> UsageError:
    return UsageError(f"{escape(file)}:{line}: {error.message}", error.hint)


def _numbered(text: str, file: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, without their comments."""
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if len(raw) > MAX_LINE:
            raise _at(file, number, UsageError(f"longer than {MAX_LINE} characters", "one endpoint a line"))
        line = _without_comment(raw)
        if line:
            yield number, line


def _without_comment(line: str) -> str:
    return re.sub(r"(?:^|\s)#.*", "", line.strip()).strip()


# --- plain lines -----------------------------------------------------------------------------------------


def _lines(text: str, file: str) -> Iterator[Place]:
    for number, line in _numbered(text, file):
        try:
            yield _one(line)
        except UsageError as error:
            raise _at(file, number, error) from None


def _one(line: str) -> Place:
    words = line.split()
    if len(words) > 2:
        raise UsageError(f"too many words: {escape(line, 80)}", "expected HOST[:PORT] [SNI]")
    found = place(words[0])
    name = server_name(words[1]) if len(words) == 2 else ""
    return Place(found.host, found.port, name, starttls=found.starttls)


# --- Ansible ---------------------------------------------------------------------------------------------

_Values = dict[str, tuple[str, int]]
"""The variables of ours, each with the line it stands on."""


class _Misfit(Exception):
    """A value of an inventory that cannot be used, and its line (0: to be looked for)."""

    def __init__(self, line: int, error: UsageError) -> None:
        super().__init__(error.message)
        self.line = line
        self.error = error


@dataclass(slots=True)
class _Group:
    hosts: dict[str, int] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)
    values: _Values = field(default_factory=dict)


def _ansible_ini(text: str, file: str) -> Iterator[Place]:
    groups: dict[str, _Group] = {"all": _Group(), "ungrouped": _Group()}
    own: dict[str, _Values] = {}
    group, kind = "ungrouped", "hosts"
    for number, line in _numbered(text, file):
        if line.startswith(";"):
            continue
        section = _SECTION.fullmatch(line)
        if section is not None:
            group, kind = section["group"], section["kind"] or "hosts"
            groups.setdefault(group, _Group())
            continue
        try:
            _ini_line((groups[group], kind), line, number, own)
        except UsageError as error:
            raise _at(file, number, error) from None
    yield from _grouped(groups, own, text, file)


def _ini_line(section: tuple[_Group, str], line: str, number: int, own: dict[str, _Values]) -> None:
    group, kind = section
    match kind:
        case "vars":
            group.values.update(_assignments([line], number))
        case "children":
            group.children.append(line.split()[0])
        case "hosts":
            names, values = _host_line(line, number)
            for name in names:
                group.hosts.setdefault(name, number)
                own.setdefault(name, {}).update(values)
            if len(own) > MAX_PLACES:
                raise UsageError(f"more than {MAX_PLACES} hosts", "split it into several files")
        case _:
            raise UsageError(
                f"unknown section [...:{escape(kind, 80)}]",
                "expected [GROUP], [GROUP:vars] or [GROUP:children]",
            )


def _host_line(line: str, number: int) -> tuple[list[str], _Values]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{error}: {escape(line, 80)}".lower(), "close the quotation") from None
    if not words:
        raise UsageError(f"no host: {escape(line, 80)}", "expected HOST [KEY=VALUE ...]")
    ssh = _SSH_PORT.fullmatch(words[0])
    pattern = ssh["host"] if ssh is not None else words[0]
    return _expanded(pattern), _assignments(words[1:], number)


def _assignments(words: Sequence[str], number: int) -> _Values:
    values: _Values = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"not KEY=VALUE: {escape(word, 80)}", "expected HOST [KEY=VALUE ...]")
        if key.strip() in _OURS:
            values[key.strip()] = (value.strip().strip("\"'"), number)
    return values


def _expanded(pattern: str) -> list[str]:
    """Expand ranges such as web[01:20].example.org, as Ansible does: both ends count, zeros pad."""
    pieces: list[list[str]] = []
    end, count = 0, 1
    for match in _RANGE.finditer(pattern):
        pieces += [[pattern[end : match.start()]], _range(match)]
        count *= len(pieces[-1])
        end = match.end()
        if count > MAX_PLACES:
            raise _too_wide(pattern)
    pieces.append([pattern[end:]])
    return ["".join(parts) for parts in itertools.product(*pieces)]


def _range(match: re.Match[str]) -> list[str]:
    first, last, step = match["first"], match["last"], int(match["step"] or 1)
    numbers = first.isdigit() and last.isdigit()
    if step == 0 or first.isdigit() is not last.isdigit():
        raise _too_wide(match[0])
    low, high = (int(first), int(last)) if numbers else (ord(first), ord(last))
    if not 0 <= high - low <= MAX_PLACES * step or (not numbers and first.isupper() is not last.isupper()):
        raise _too_wide(match[0])
    width = len(first) if first.startswith("0") else 0
    return [f"{one:0{width}d}" if numbers else chr(one) for one in range(low, high + 1, step)]


def _too_wide(text: str) -> UsageError:
    return UsageError(
        f"not a range of hosts: {escape(text, 80)}", "expected FIRST:LAST, such as web[01:20] or web[a:f]"
    )


def _grouped(
    groups: Mapping[str, _Group], own: Mapping[str, _Values], text: str, file: str
) -> Iterator[Place]:
    """Give each host what its groups say, the nearer group before the farther, the host before all."""
    parents: dict[str, list[str]] = {}
    direct: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for name, group in groups.items():
        for child in group.children:
            parents.setdefault(child, []).append(name)
        for host, line in group.hosts.items():
            direct.setdefault(host, []).append(name)
            lines.setdefault(host, line)
    inherited: dict[tuple[str, ...], _Values] = {}
    for host, among in direct.items():
        key = tuple(among)
        if key not in inherited:
            inherited[key] = _inherited(key, groups, parents)
        values = {**inherited[key], **own.get(host, {})}
        try:
            yield _host(host, values, among, lines[host])
        except _Misfit as misfit:
            raise _at(file, misfit.line or _line(text, host), misfit.error) from None


def _inherited(
    among: Sequence[str], groups: Mapping[str, _Group], parents: Mapping[str, list[str]]
) -> _Values:
    order = list(dict.fromkeys(among))
    for name in order:  # grows while it is walked: nearest first, each once, so a circle ends
        order += [one for one in parents.get(name, ()) if one not in order]
    values: _Values = dict(groups["all"].values)
    for name in reversed(order):
        values.update(groups[name].values)
    return values


def _host(name: str, values: _Values, among: Sequence[str], line: int) -> Place:
    connect, connect_line = values.get("ansible_host") or values.get("ansible_ssh_host") or ("", line)
    sni, sni_line = values.get("stapleguard_sni", ("", line))
    port, port_line = values.get("stapleguard_port", (str(HTTPS), line))
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        problem = UsageError(f"stapleguard_port is no port: {escape(port, 80)}", "expected 1 to 65535")
        raise _Misfit(port_line, problem)
    bare, address = name.strip("[]"), _address(connect)
    named = [("the host", bare, line)] + ([("ansible_host", connect, connect_line)] if connect else [])
    for what, text, at in named:
        if _address(text) is None and _HOST.fullmatch(text) is None:
            problem = UsageError(f"{what} is no host: {escape(text, 80)}", "expected a name or an address")
            raise _Misfit(at, problem)
    try:
        wanted = server_name(sni) if sni else ""
    except UsageError as error:
        raise _Misfit(sni_line, error) from None
    grouped = ",".join(one for one in among if one not in ("all", "ungrouped"))
    labels = MappingProxyType({"groups": grouped} if grouped else {})
    if connect and address is None:
        # Ansible's own name for the host is the one that its certificate is for.
        return Place(connect, int(port), wanted or ("" if _address(bare) else bare), labels=labels)
    return Place(_address(bare) or bare, int(port), wanted, (address,) if address else (), labels=labels)


def _ansible_json(text: str, file: str) -> Iterator[Place]:
    document = _json(text, file)
    if not isinstance(document, dict):
        raise _wrong(file, "", "what `ansible-inventory --list` prints")
    meta = document.get("_meta", {})
    listed = meta.get("hostvars", {}) if isinstance(meta, dict) else None
    if not isinstance(listed, dict):
        raise _wrong(file, "_meta", 'an object with "hostvars"')
    groups: dict[str, _Group] = {}
    for name, group in document.items():
        if name != "_meta":
            groups[name] = _json_group(name, group, file)
    known = {host for group in groups.values() for host in group.hosts}
    rest = {host: 0 for host in listed if host not in known}
    groups.setdefault("ungrouped", _Group()).hosts.update(rest)
    groups.setdefault("all", _Group())
    own: dict[str, _Values] = {}
    for host, values in listed.items():
        if not isinstance(values, dict):
            raise _wrong(file, f"_meta.hostvars.{host}", "an object")
        # Those of the groups have been merged into them by `--list` already.
        own[host] = {key: (str(values[key]), 0) for key in _OURS & values.keys() if values[key] is not None}
    yield from _grouped(groups, own, text, file)


def _json_group(name: str, group: object, file: str) -> _Group:
    if not isinstance(group, dict):
        raise _wrong(file, name, 'an object with "hosts"')
    hosts, children = group.get("hosts", []), group.get("children", [])
    for what, listed in (("hosts", hosts), ("children", children)):
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise _wrong(file, f"{name}.{what}", "a list of names")
    return _Group(dict.fromkeys(hosts, 0), children)


# --- Prometheus ------------------------------------------------------------------------------------------


def _file_sd(text: str, file: str) -> Iterator[Place]:
    document = _json(text, file)
    if not isinstance(document, list):
        raise _wrong(file, "", 'a list of {"targets": [...], "labels": {...}}')
    for index, entry in enumerate(document):
        where = f"[{index}]"
        targets = entry.get("targets") if isinstance(entry, dict) else None
        if not isinstance(targets, list) or not all(isinstance(one, str) for one in targets):
            raise _wrong(file, f"{where}.targets", "a list of HOST:PORT")
        labels = _labels(entry.get("labels", {}), f"{where}.labels", file)
        for target in targets:
            try:
                found = place(target)
            except UsageError as error:
                raise _at(file, _line(text, target), error) from None
            yield Place(found.host, found.port, starttls=found.starttls, labels=labels)


def _labels(value: object, where: str, file: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise _wrong(file, where, "an object of names and strings")
    for name, text in value.items():
        if _LABEL.fullmatch(name) is None or not isinstance(text, str):
            raise _wrong(file, f"{where}.{name}", "a label name and a string")
    # Those with two underscores are for relabelling and are not kept, as in Prometheus itself.
    return MappingProxyType({name: text for name, text in value.items() if not name.startswith("__")})


def _json(text: str, file: str) -> object:
    try:
        document: object = json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        problem = UsageError(f"not valid JSON: {error.msg.lower()}", f"look near column {error.colno}")
        raise _at(file, error.lineno, problem) from None
    except (ValueError, RecursionError):
        raise UsageError(
            f"{escape(file)}:1: not valid JSON: a number or a nesting without end", "see --format"
        ) from None
    return document


def _line(text: str, value: str) -> int:
    """Say where a string stands first in a JSON text, as far as it is written plainly."""
    return text.count("\n", 0, max(0, text.find(f'"{value}"'))) + 1


def _wrong(file: str, where: str, expected: str) -> UsageError:
    message = f"{escape(file)}: {escape(where, 120)}".rstrip(": ") + f" must be {expected}"
    return UsageError(message, "name the form of the file with --format if it is another one")
