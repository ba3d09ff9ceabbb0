"""What the server of this host tells: its configuration and files, its test, its log, where it stands."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from stapleguard import host, material, ocsp
from stapleguard.diagnosis.facts import (
    Block,
    Door,
    Knock,
    Load,
    Name,
    Place,
    Server,
    StapleFile,
    Trust,
    Unseen,
)
from stapleguard.disk import read_bounded
from stapleguard.engine.world import World
from stapleguard.finding import Code, Finding
from stapleguard.model import Endpoint, StapleguardError
from stapleguard.servers import ConfigOutcome, Instance, nginx, nginx_stapling
from stapleguard.wire import dns

_TAIL: Final = 262_144
_KNOCK_SECONDS: Final = 4.0
_JOURNAL_SECONDS: Final = 5.0
_LINE: Final = re.compile(r"(?P<at>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[\w+\] (?P<pid>\d+)#")
_BEFORE: Final = 5.0
_AFTER: Final = 2.0
_OUTCOMES: Final = {
    "refused": Code.NET_REFUSED,
    "denied": Code.NET_BLOCKED,
    "unreachable": Code.NET_BLOCKED,
    "silent": Code.NET_BLOCKED,
    "mute": Code.RESPONDER_SLOW,
    "reset": Code.NET_RESET,
}


@dataclass(frozen=True, slots=True)
class Bedside:
    """The server as it was found, and what could not be looked at."""

    server: Server
    unseen: tuple[Unseen, ...] = ()


def owner(world: World, endpoint: Endpoint) -> Instance | None:
    """Find the installation whose processes listen there; one that stands still, where its files say so."""
    given = (world.config.nginx_binary or None, world.config.nginx_config or None)
    found = dict.fromkeys((*nginx.instances(*given), *(nginx.instances() if any(given) else ())))
    listening = host.listeners(endpoint.port)
    for one in found:
        if one.master is not None and ({one.master, *nginx.workers(one)} & listening):
            return one
    for one in found:
        if one.master is None and not listening and block(one, endpoint) is not None:
            return one
    return None


def block(instance: Instance, endpoint: Endpoint) -> Block | None:
    """Read the server block that answers there; None where the files cannot be read or name none."""
    try:
        return nginx_stapling.block_for(instance.config, endpoint)
    except StapleguardError:
        return None


def look_at(
    world: World,
    instance: Instance,
    endpoint: Endpoint | None,
    leaf: x509.Certificate | None,
    issuer: x509.Certificate | None,
) -> Bedside:
    """Read everything that does not depend on the way to the responder."""
    unseen: list[Unseen] = []
    found: Block | None = None
    try:
        found = nginx_stapling.block_for(instance.config, endpoint) if endpoint else None
    except StapleguardError as error:
        unseen.append(Unseen("nginx's configuration", error.message, error.hint))
    test = nginx.test(instance, world.config.test_timeout)
    refused = test.refusals[0] if test.outcome is ConfigOutcome.REFUSED and test.refusals else ""
    if test.outcome is ConfigOutcome.UNTESTED:
        unseen.append(Unseen("nginx -t", (test.refusals or ("the test did not run",))[0], "root"))
    log, told = _log(instance)
    unseen += told
    server = Server(
        instance.kind,
        instance.version,
        instance.config,
        instance.master is not None,
        found,
        Load(nginx.log_findings(test.text), refused, _changed(instance)),
        _about(log, found),
    )
    if found is not None:
        server = _with_files(world, server, found, leaf, issuer, unseen)
    return Bedside(server, tuple(unseen))


def _about(log: Sequence[Finding], found: Block | None) -> tuple[Finding, ...]:
    """Leave out what is said of other certificates."""
    path = found.certificate.value if found else ""
    real = os.path.realpath(path) if path else ""
    return tuple(
        one
        for one in log
        if not path or not one.subject.startswith("/") or os.path.realpath(one.subject) == real
    )


# --- files -----------------------------------------------------------------------------------------------


def certificates(path: str) -> tuple[x509.Certificate, ...]:
    """Read the certificates of a PEM file; none where it cannot be read."""
    try:
        return tuple(x509.load_pem_x509_certificates(Path(path).read_bytes()[: 1 << 20]))
    except (OSError, *material.REFUSALS):
        return ()


def _with_files(
    world: World,
    server: Server,
    found: Block,
    leaf: x509.Certificate | None,
    issuer: x509.Certificate | None,
    unseen: list[Unseen],
) -> Server:
    if found.variable is not None:
        return server  # which file it is, only a handshake tells
    sent = certificates(found.certificate.value)
    anchors = certificates(found.trusted.value)
    if not sent:
        unseen.append(Unseen(found.certificate.value or "the certificate file", "it cannot be read", "root"))
        return server
    mine = leaf or (sent[0] if sent else None)
    if mine is None:
        return server
    behind = any(material.issued(mine, one) for one in sent[1:])
    return replace(
        server,
        issuer_sent=behind,
        issuer_found=behind or any(material.issued(mine, one) for one in anchors),
        trust=_trust(issuer, (*sent[1:], *anchors), anchors),
        staple_file=_staple_file(world, found, mine, issuer) if found.file.value and found.on else None,
    )


def _trust(
    issuer: x509.Certificate | None, known: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]
) -> Trust:
    """Follow the issuers up to a root as OpenSSL does without partial chains."""
    link = issuer if issuer in known else None
    if link is None:
        return Trust.NO_ISSUER
    for _ in range(8):
        if link.subject == link.issuer:
            return Trust.COMPLETE if link in anchors else Trust.NO_ROOT
        above = next((one for one in known if material.issued(link, one)), None)
        if above is None:
            return Trust.NO_ROOT
        link = above
    return Trust.NO_ROOT


def _staple_file(
    world: World, found: Block, leaf: x509.Certificate, issuer: x509.Certificate | None
) -> StapleFile:
    path = found.file.value
    data = read_bounded(Path(path))
    if isinstance(data, Finding):
        return StapleFile(path, data.message, None)
    if issuer is None:
        return StapleFile(path, "the issuer is not known, so it was not judged", None)
    changed = datetime.fromtimestamp(Path(path).stat().st_mtime, UTC)
    return StapleFile(path, "", ocsp.judge(data, leaf, issuer, world.clock.now()), changed)


def _changed(instance: Instance) -> str:
    """Name a file of the configuration that is newer than the workers."""
    begun = [at for one in nginx.workers(instance) if (at := host.started_at(one)) is not None]
    if not begun:
        return ""
    for path in nginx_stapling.files(instance.config):
        try:
            if Path(path).stat().st_mtime > min(begun) + _AFTER:
                return path
        except OSError:
            continue
    return ""


# --- its log ---------------------------------------------------------------------------------------------


def _log(instance: Instance) -> tuple[tuple[Finding, ...], tuple[Unseen, ...]]:
    path = nginx.error_log(instance)
    if path is None:
        text, unseen = _journal(instance)
    else:
        try:
            with Path(path).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                text, unseen = file.read(_TAIL).decode("utf-8", "replace"), ()
        except OSError as error:
            return (), (Unseen(f"the log {path}", error.strerror or "unreadable", "root, or the group adm"),)
    workers = nginx.workers(instance)
    begun = [at for one in workers if (at := host.started_at(one)) is not None]
    return nginx.log_findings("\n".join(recent(text, workers, min(begun, default=0.0)))), unseen


def _journal(instance: Instance) -> tuple[str, tuple[Unseen, ...]]:
    unit = host.unit_of(instance.master) if instance.master is not None else None
    if unit is None:
        return "", (Unseen("nginx's log", "it does not go to a file", "the place that its output goes to"),)
    argv = ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", "500", "-u", unit]
    done = host.run(argv, _JOURNAL_SECONDS)
    if done.status != 0:
        return "", (
            Unseen(f"the journal of {unit}", done.stderr.strip(), "root, or the group systemd-journal"),
        )
    return done.stdout, ()


def recent(text: str, workers: Sequence[int], begun: float) -> list[str]:
    """Keep the lines that count since the last load: those of the workers, and those of the load itself."""
    kept = []
    for line in text.splitlines():
        parts = _LINE.search(line)
        if parts is None:
            continue
        if int(parts["pid"]) in workers:
            kept.append(line)
            continue
        at = datetime.strptime(parts["at"], "%Y/%m/%d %H:%M:%S").astimezone().timestamp()
        if begun - _BEFORE <= at <= begun + _AFTER:
            kept.append(line)
    return kept


# --- where it stands -------------------------------------------------------------------------------------


def place(instance: Instance, doors: Sequence[Door], names: Sequence[Name]) -> Place | Unseen | None:
    """Try from the server's namespace and as its user what was reached from here.

    A responder that takes the connection and hangs up was reached: not every one answers this bare request.
    """
    workers = nginx.workers(instance)
    if not workers or not host.differs(workers[0]):
        return None
    tries: list[tuple[str, host.Try]] = []
    for door in doors:
        if not door.proxy and door.get.code not in (Code.NET_BLOCKED, Code.NET_REFUSED):
            request = f"GET / HTTP/1.0\r\nHost: {door.address}\r\n\r\n".encode()
            tries.append((door.where, host.Try("tcp", door.address, door.port, request)))
    for name in names:
        tries += [
            (one.resolver, host.Try("udp", *asked))
            for one in name.configured
            if one.code is None and (asked := dns.question(one.resolver, name.host)) is not None
        ]
    told = host.try_as(workers[0], [one for _, one in tries], _KNOCK_SECONDS)
    who = host.process(workers[0])
    user = f"uid {who.uid}" if who else "its user"
    if isinstance(told, str):
        return Unseen(f"the way to the responder as {user}", told, "root")
    knocks = (
        Knock(target, _OUTCOMES.get(one.outcome), one.text)
        for (target, _), one in zip(tries, told, strict=True)
    )
    return Place(user, tuple(knocks))
