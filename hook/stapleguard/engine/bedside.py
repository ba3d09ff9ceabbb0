"""What the server of this host tells: its configuration and files, its test, its log, where it stands.

How each kind of server is read is its own module's business; what is made of it here is the same for all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, assert_never

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from stapleguard import host, material, ocsp
from stapleguard.diagnosis.facts import (
    Block,
    Door,
    Knock,
    Load,
    Name,
    Place,
    Server,
    Setting,
    StapleFile,
    Trust,
    Unseen,
)
from stapleguard.diagnosis.manner import Manner
from stapleguard.diagnosis.observed import Ability, Observed
from stapleguard.disk import read_bounded
from stapleguard.engine.world import World
from stapleguard.finding import Code, Finding
from stapleguard.model import Endpoint, StapleguardError
from stapleguard.servers import SERVERS, STAPLERS, ConfigOutcome, Instance
from stapleguard.wire import dns

_KNOCK_SECONDS: Final = 4.0
_AFTER: Final = 2.0
_SHUT: Final = (Code.NET_BLOCKED, Code.NET_REFUSED, Code.RESPONDER_SLOW)
"""What nobody gets through: from the server's place it cannot be any better."""
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


@dataclass(frozen=True, slots=True)
class Owner:
    """Who answers at a place of this host, and what kept us from being sure."""

    instance: Instance | None
    unseen: tuple[Unseen, ...] = ()


def owner(world: World, endpoint: Endpoint) -> Owner:
    """Find the installation whose processes listen there; one that stands still, where its files say so."""
    found = _installations(world)
    listening = host.listeners(endpoint.port)
    for one in found:
        if one.master is not None and ({one.master, *SERVERS[one.kind].workers(one)} & listening):
            return Owner(one)
    if listening:
        return Owner(None)
    charts = [(one, *chart(one, endpoint, None)) for one in found]
    if not host.listened(endpoint.port):
        still = (one for one, block, _ in charts if one.master is None and block is not None)
        return Owner(next(still, None))
    # Somebody listens, and who it is is hidden from other users: then the files have to say it.
    runs = [(one, block, unseen) for one, block, unseen in charts if one.master is not None]
    for one, block, _ in runs:
        if block is not None:
            why = "the sockets of other users' processes are hidden; its configuration names this place"
            return Owner(one, (Unseen(f"who listens on port {endpoint.port}", why, "root"),))
    return Owner(None, tuple(told for _, _, unseen in runs for told in unseen))


def _installations(world: World) -> tuple[Instance, ...]:
    found: dict[Instance, None] = {}
    for kind, server in SERVERS.items():
        program = world.config.program(kind)
        given = (program.binary or None, program.config or None)
        found |= dict.fromkeys(server.instances(*given))
        found |= dict.fromkeys(server.instances() if any(given) else ())
    return tuple(found)


def chart(
    instance: Instance, endpoint: Endpoint | None, leaf: x509.Certificate | None
) -> tuple[Block | None, tuple[Unseen, ...]]:
    """Read what is in force there; None where the files cannot be read or name no such place."""
    stapler = STAPLERS.get(instance.kind)
    if stapler is None or endpoint is None:
        return None, ()
    try:
        return stapler.block_for(instance, endpoint, leaf), ()
    except StapleguardError as error:
        return None, (Unseen(f"{instance.kind}'s configuration", error.message, error.hint),)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
        return None, (Unseen(f"{instance.kind}'s configuration", why, "root"),)


def look_at(
    world: World,
    instance: Instance,
    block: Block | None,
    leaf: x509.Certificate | None,
    issuer: x509.Certificate | None,
) -> Bedside:
    """Read everything that does not depend on the way to the responder."""
    server, stapler = SERVERS.get(instance.kind), STAPLERS.get(instance.kind)
    running = instance.master is not None
    if server is None or stapler is None:
        return Bedside(Server(instance.kind, instance.version, instance.config, running))
    unseen: list[Unseen] = []
    test = server.test(instance, world.config.test_timeout)
    refused = test.refusals[0] if test.outcome is ConfigOutcome.REFUSED and test.refusals else ""
    if test.outcome is ConfigOutcome.UNTESTED:
        why = (test.refusals or ("the test did not run",))[0]
        unseen.append(Unseen(stapler.MANNER.test.format(config=instance.config), why, "root"))
    try:
        heard = stapler.heard(instance, block, leaf)
        unseen += heard.unseen
        changed = _changed(stapler.files(instance), stapler.loaded_at(instance))
    except (StapleguardError, OSError):  # its files, which was said already
        heard, changed = None, ""
    seen = Server(
        instance.kind,
        instance.version,
        instance.config,
        running,
        block,
        Load(_ours(server.log_findings(test.text), block), refused, changed),
        heard.findings if heard else (),
        manner=stapler.MANNER,
    )
    if block is not None:
        seen = _with_files(world, seen, block, (leaf, issuer), instance, unseen)
    return Bedside(seen, tuple(unseen))


_OF_ONE: Final = frozenset(
    {Code.SERVER_ISSUER_MISSING, Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD, Code.SERVER_UNSUPPORTED}
)
"""What a test says of one certificate; what it refuses is the matter of all."""


def _ours(said: Sequence[Finding], found: Block | None) -> tuple[Finding, ...]:
    """Leave out what a test says of the certificates of other blocks."""
    mine = {os.path.realpath(path) for path in found.certificate.words} if found else set()
    return tuple(
        one
        for one in said
        if not mine
        or one.code not in _OF_ONE
        or not one.subject.startswith("/")
        or os.path.realpath(one.subject) in mine
    )


def bystander(program: Observed, endpoint: Endpoint | None) -> Server:
    """Say of a program that is only looked at what it can do: its files are not read."""
    where = f"{program.name} at {endpoint}"
    match program.ability:
        case Ability.FETCHES | Ability.NOTHING:
            block = Block(where, Setting(("on",)), fetches=program.ability is Ability.FETCHES)
        case Ability.FILE:
            block = Block(where, fetches=False)
        case _ as never:
            assert_never(never)
    manner = Manner(stapling="staple file", turn_on=f"{program.name} takes a file: {program.advice}.")
    return Server(program.name, "", "", running=True, block=block, manner=manner)


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
    certified: tuple[x509.Certificate | None, x509.Certificate | None],
    instance: Instance,
    unseen: list[Unseen],
) -> Server:
    if found.variable is not None:
        return server  # which file it is, only a handshake tells
    leaf, issuer = certified
    sent = certificates(found.certificate.value)
    above = certificates(found.chain.value) if found.chain.value else ()
    anchors = certificates(found.trusted.value) if found.trusted.value else ()
    if not sent:
        unseen.append(Unseen(found.certificate.value or "the certificate file", "it cannot be read", "root"))
        return server
    mine = leaf or sent[0]
    hidden = [one for one in (found.chain.value, found.trusted.value) if one and _is_hidden(one)]
    unseen += [Unseen(one, "permission denied", "root") for one in hidden]
    file = _staple_file(world, found, mine, issuer, instance) if _by_file(found) else None
    if isinstance(file, Unseen):
        unseen.append(file)
        file = None
    behind = any(material.issued(mine, one) for one in (*sent[1:], *above))
    return replace(
        server,
        # What may not be read is not held to be missing.
        issuer_sent=behind or bool(hidden),
        issuer_found=behind or bool(hidden) or any(material.issued(mine, one) for one in anchors),
        key_fits=_key_fits(found.key.value, sent[0]),
        trust=Trust.COMPLETE if hidden else _trust(issuer, (*sent[1:], *above, *anchors), anchors),
        staple_file=file,
    )


def _is_hidden(path: str) -> bool:
    found = read_bounded(Path(path))
    return isinstance(found, Finding) and found.code is Code.HOST_PERMISSION


def _key_fits(path: str, certificate: x509.Certificate) -> bool:
    """Whether a key file belongs to a certificate; also where it is not named, or not ours to read."""
    try:
        key = serialization.load_pem_private_key(Path(path).read_bytes(), None) if path else None
    except (OSError, TypeError, *material.REFUSALS):
        return True
    return key is None or key.public_key() == certificate.public_key()


def _by_file(found: Block) -> bool:
    return found.on and bool(found.file.value) and not found.fetches


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
    world: World,
    found: Block,
    leaf: x509.Certificate,
    issuer: x509.Certificate | None,
    instance: Instance,
) -> StapleFile | Unseen:
    path = found.file.value
    data = read_bounded(Path(path))
    if isinstance(data, Finding):
        if data.code is Code.HOST_PERMISSION:
            return Unseen(path, data.message, "root")
        return StapleFile(path, data.message, None)
    if issuer is None:
        return StapleFile(path, "the issuer is not known, so it was not judged", None)
    changed = datetime.fromtimestamp(Path(path).stat().st_mtime, UTC)
    denied = host.denied(instance.master, path) if instance.master is not None else ""
    return StapleFile(path, "", ocsp.judge(data, leaf, issuer, world.clock.now()), changed, denied)


def _changed(files: Sequence[str], loaded: float | None) -> str:
    """Name a file of the configuration that is newer than what runs."""
    if loaded is None:
        return ""
    for path in files:
        try:
            if Path(path).stat().st_mtime > loaded + _AFTER:
                return path
        except OSError:
            continue
    return ""


# --- where it stands -------------------------------------------------------------------------------------


def place(
    instance: Instance, doors: Sequence[Door], names: Sequence[Name], proxy: str
) -> Place | Unseen | None:
    """Try from the server's namespace and as its user what was reached from here.

    `proxy` is the way that the server takes, '' for the straight one. A responder that takes the
    connection and hangs up was reached: not every one answers this bare request.
    """
    server = SERVERS.get(instance.kind)
    workers = (server.workers(instance) if server else ()) or tuple(filter(None, [instance.master]))
    if not workers or not host.differs(workers[0]):
        return None
    tries: list[tuple[str, host.Try]] = []
    for door in doors:
        if door.proxy == proxy and door.reply.code not in _SHUT:
            request = f"GET / HTTP/1.0\r\nHost: {door.address}\r\n\r\n".encode()
            tries.append((door.where, host.Try("tcp", door.address, door.port, request)))
    for name in names:
        known = [one.resolver for one in name.configured if one.code is None]
        tries += [
            (one, host.Try("udp", *asked))
            for one in (*known, *name.servers)
            if (asked := dns.question(one, name.host)) is not None
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
