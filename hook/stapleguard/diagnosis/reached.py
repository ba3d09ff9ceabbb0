"""What stands between a server and its responder: the name, the connection, the HTTP answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from stapleguard.diagnosis import remedies
from stapleguard.diagnosis.facts import Door, Facts, Lookup, Name, Reply
from stapleguard.diagnosis.manner import UNKNOWN, Resolving
from stapleguard.diagnosis.naming import fetches, named, passes_on, sick, weigh
from stapleguard.finding import Code, Finding
from stapleguard.model import Severity


def names(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """Names that do not resolve: for anybody, for the server when it loads, or for it at run time."""
    for name in facts.names:
        yield from _name(facts, name)


def _name(facts: Facts, name: Name) -> Iterator[Finding]:
    server, weight = facts.server, weigh(facts)
    system = name.system
    manner = server.manner if server else UNKNOWN
    # nginx waits for the answers to both of its questions.
    waits = manner.resolving is Resolving.AT_LOAD
    bad = [one for one in name.configured if one.code is not None or (one.silent and waits)]
    good = [one for one in name.configured if one not in bad]
    if system.code is not None and good:
        if manner.resolving is Resolving.AT_LOAD:
            yield _unresolvable(facts, name)
    elif system.code is not None:
        asked = [f"the system's resolver: {system.text or system.code.value}"]
        asked += [f"the configured resolver {one.resolver}: {one.text}" for one in bad]
        yield named(
            system.code,
            name.host,
            f"the responder's name {name.host} does not resolve: {system.text or system.code.value}",
            asked,
            ["an address for it from any resolver"],
            severity=weight,
            remedy=remedies.name(name, server),
        )
        if bad and _worse(bad[0].code, system.code):
            yield _resolver_broken(facts, name, bad, weight)
        return
    if bad and not good:
        yield _resolver_broken(facts, name, bad, weight)
    elif bad and server is not None:
        less = Severity.WARNING if weight is Severity.CRITICAL else weight
        yield _resolver_broken(facts, name, bad, less)


def _worse(configured: Code | None, system: Code) -> bool:
    """Whether the configured resolver fails in a way of its own: not a name that nobody knows."""
    return configured is not system and configured is not Code.DNS_NAME_NOT_FOUND


def _unresolvable(facts: Facts, name: Name) -> Finding:
    system, server = name.system, facts.server
    asks = server.kind if server else "the server"
    return named(
        Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD,
        name.host,
        f"{name.host} does not resolve by this host's own resolver, which {asks} uses when it loads",
        [
            f"the system's resolver: {system.text or 'no address'}",
            *(f"the configured resolver {one.resolver} knows it" for one in name.configured if not one.code),
        ],
        [f"`getent ahosts {name.host}` prints an address, and a reload cures it"],
        severity=weigh(facts),
        remedy=remedies.at_load(name, server),
    )


def _resolver_broken(facts: Facts, name: Name, bad: Sequence[Lookup], weight: Severity) -> Finding:
    server = facts.server
    said = "; ".join(f"{one.resolver}: {one.text}" for one in bad)
    known = ", ".join(name.system.addresses)
    supports = [f"the configured resolver {one.resolver}: {one.text}" for one in bad]
    if known:
        supports.append(f"the system's resolver answers {known}")
    where = server.block.resolver.where if server and server.block else name.host
    return named(
        Code.SERVER_RESOLVER_BROKEN,
        where or name.host,
        f"the resolver in force does not find {name.host} ({said})",
        supports,
        ["an answer of that resolver with an address of the responder"],
        severity=weight,
        remedy=remedies.resolver(name, server),
    )


# --- the connection and the answer -----------------------------------------------------------------------


def doors(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """What the responder does for everybody; an address that only the configured resolver gives is its."""
    direct = [door for door in facts.doors if not door.proxy]
    yield from _proxies(facts, direct)
    if _own_proxy(facts):
        return  # the server does not go that way
    for url in dict.fromkeys(door.url for door in direct):
        every = [door for door in direct if door.url == url]
        mine = _asked(facts, every)
        broken = [door for door in mine if door.reply.code is not None]
        whole = [door for door in mine if door.reply.code is None]
        right = [door for door in every if "" in door.named_by and _speaks(door)]
        wrong = [door for door in broken if "" not in door.named_by and not _speaks(door)]
        if wrong and right and not any(_speaks(door) for door in mine if door not in right):
            yield _wrong_address(facts, wrong, right)
            left = [door for door in every if door in right or (door in mine and door not in wrong)]
            broken = [door for door in left if door.reply.code is not None]
        yield from _each_way(facts, broken, whole)


def _asked(facts: Facts, every: Sequence[Door]) -> list[Door]:
    """Keep the doors that the server goes to: with resolvers of its own, those that they name."""
    own = {one.resolver for name in facts.names for one in name.configured if one.code is None}
    return [door for door in every if own.intersection(door.named_by)] or [*every]


def _speaks(door: Door) -> bool:
    """Whether a responder is there, whatever it answers."""
    return door.reply.code is None or door.reply.code.value.startswith("ocsp.")


SLOW: Final = 2.0
"""Seconds after which a handshake has long been without its staple."""


def slow(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """Good answers that take long: the first handshakes of every worker go without."""
    for door in facts.doors:
        reply = door.reply
        if door.proxy or reply.code is not None or reply.seconds < SLOW or not fetches(facts):
            continue
        yield named(
            Code.RESPONDER_SLOW,
            door.url,
            f"{door.url} at {door.where} answers well, but only after {reply.seconds:.1f} s",
            [said(door, one) for one in door.replies],
            [f"an answer within {SLOW:g} s"],
            severity=weigh(facts) if sick(facts) else Severity.WARNING,
            remedy=remedies.door(facts, Code.RESPONDER_SLOW, door, ()),
        )


def _each_way(facts: Facts, broken: Sequence[Door], whole: Sequence[Door]) -> Iterator[Finding]:
    for code in dict.fromkeys(door.reply.code for door in broken):
        if code is None:
            continue
        same = [door for door in broken if door.reply.code is code]
        weight = weigh(facts)
        passed_on = code.value.startswith("ocsp.") and passes_on(facts)
        if code is Code.RESPONDER_FORBIDDEN_ADDRESS or passed_on:
            weight = Severity.WARNING
        elif whole and (weight is Severity.INFO or not _stops_at(code)):
            weight = Severity.WARNING if fetches(facts) else weight
        yield _door(facts, code, same, whole, weight)


def _stops_at(code: Code) -> bool:
    """Whether a server that meets this at one address fails, though another address is well.

    A refusal sends it to the next address at once; silence holds it up for a minute, and what came back
    by HTTP is its answer.
    """
    return code is not Code.NET_REFUSED


def _wrong_address(facts: Facts, wrong: Sequence[Door], whole: Sequence[Door]) -> Finding:
    first = wrong[0]
    name = next((one for one in facts.names if f"//{one.host}" in first.url), None)
    host = name.host if name else first.url
    where = facts.server.block.resolver.where if facts.server and facts.server.block else host
    return named(
        Code.SERVER_RESOLVER_BROKEN,
        where or host,
        f"the resolver in force gives another address for {host} ({first.address}), and that one fails",
        [
            f"{', '.join(first.named_by)} answers {first.address}: {first.reply.text}",
            f"the system's resolver answers {whole[0].address}, where a responder is",
        ],
        ["a good answer from the address that the configured resolver gives"],
        severity=weigh(facts),
        remedy=remedies.resolver(name, facts.server),
    )


def _door(facts: Facts, code: Code, same: Sequence[Door], whole: Sequence[Door], weight: Severity) -> Finding:
    first = same[0]
    reply = first.reply
    supports = [said(door, one) for door in same for one in door.replies]
    supports += [f"{door.where} answers well" for door in whole]
    return named(
        code,
        first.url,
        f"{first.url} at {', '.join(dict.fromkeys(door.where for door in same))}: {reply.text}",
        supports,
        [f"a good answer to {reply.method} from {first.where}"],
        severity=weight,
        remedy=remedies.door(facts, code, first, whole),
    )


def said(door: Door, reply: Reply) -> str:
    """One reply in one line."""
    said = "a good answer" if reply.code is None else reply.text
    return f"{reply.method} {door.where}: {said} ({reply.seconds:.2f} s)"


def _own_proxy(facts: Facts) -> str:
    """The proxy that the server itself goes through, '' for none."""
    block = facts.server.block if facts.server else None
    return block.proxy.value if block else ""


def _proxies(facts: Facts, direct: Sequence[Door]) -> Iterator[Finding]:
    """A proxy is the server's own way, or only this program's: then it breaks nothing of the server's."""
    for door in facts.doors:
        reply = door.reply
        if not door.proxy or reply.code is None:
            continue
        own = door.proxy == _own_proxy(facts)
        if not own and any(one.reply.code is reply.code for one in direct):
            continue
        heavy = (own or not direct) and weigh(facts) is Severity.CRITICAL
        passed_on = reply.code.value.startswith("ocsp.") and passes_on(facts)
        yield named(
            reply.code,
            door.proxy,
            f"through the proxy {door.proxy} there is no good answer: {reply.text}",
            [said(door, reply), *(said(one, one.reply) for one in direct)],
            ["a good answer through that proxy"],
            severity=Severity.CRITICAL if heavy and not passed_on else Severity.WARNING,
            remedy=remedies.proxy(door, facts.server),
        )
