"""From facts to causes: every rule names what it sees, what supports it and what would refute it.

The rules follow the way of a staple: the configuration that is loaded, the name of the responder, the
connection, the HTTP answer, the OCSP answer in it, the server's own check of it. A fault that any client
would meet has the responder's code, one that only this server meets has a `server.*` code. The server's
log is believed where it tells more than what can be seen now; otherwise it supports what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from stapleguard.diagnosis import loaded, reached, remedies
from stapleguard.diagnosis.facts import Facts, Server, Signer, Symptom, Trust
from stapleguard.diagnosis.manner import Resolving
from stapleguard.diagnosis.naming import fetches, issuer_missing, named, passes_on, sick
from stapleguard.diagnosis.reached import said
from stapleguard.finding import Code, Finding, criticals
from stapleguard.model import Json, Severity

_SKEW: Final = timedelta(minutes=5)
_TRANSPORT: Final = ("dns.", "net.", "responder.")
_AT_LOAD: Final = frozenset(
    {
        Code.SERVER_ISSUER_MISSING,
        Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD,
        Code.SERVER_UNSUPPORTED,
    }
)
_TELLS_NOTHING: Final = frozenset({Code.SERVER_RESOLVER_MISSING, Code.STAPLE_NOT_APPLICABLE})


def infer(facts: Facts) -> tuple[Finding, ...]:
    """Name everything that is wrong, each once; which of it is the cause is `cause_of`'s word."""
    found: list[Finding] = []
    for rule in _RULES:
        found += [one for one in rule(facts, found) if one.code not in {known.code for known in found}]
    return tuple(found)


_Rule = Callable[[Facts, Sequence[Finding]], Iterator[Finding]]


def _only_blocked(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """We get through, the server's own user or namespace does not."""
    server = facts.server
    if server is None or not sick(facts) or not fetches(facts):
        return
    reached = {
        door.where for door in facts.doors if door.reply.code is None or not _transport(door.reply.code)
    }
    answered = {
        one.resolver for name in facts.names for one in name.configured if one.code is None and one.resolver
    }
    if any(one.code.value.startswith("dns.") for one in server.log):
        # A name that a file of this host holds needs no name server.
        answered |= {one for name in facts.names for one in name.servers}
    place = server.place
    shut = [one for one in place.knocks if one.code is not None] if place else []
    shut = [one for one in shut if one.target in reached or one.target in answered]
    if place is not None and shut:
        who = place.user
        yield named(
            Code.SERVER_BLOCKED_ONLY,
            shut[0].target,
            f"this program reaches {shut[0].target}, {server.kind} as {who} does not: {shut[0].text}",
            [f"from the server's place as {who}, {one.target}: {one.text}" for one in shut]
            + [f"from here, {one.target}: an answer" for one in shut],
            [f"the same request made as {who} in the server's namespaces succeeds"],
            remedy=remedies.blocked_only(server, shut[0], who),
        )
        return
    for line in server.log:
        text = str(line.evidence.get("line", ""))
        # A firewall that drops what goes to a resolver says the same of that, and it is named already.
        if "while resolving" in text:
            continue
        if reached and ("(1: Operation not permitted)" in text or "(13: Permission denied)" in text):
            yield named(
                Code.SERVER_BLOCKED_ONLY,
                str(line.evidence.get("peer", line.subject)),
                f"{server.kind} may not connect to the responder, this program does",
                [f"its log: {text}", *(f"from here, {one}: an answer" for one in sorted(reached))],
                ["the same line is written no more after a reload"],
                remedy=remedies.blocked_only(server, None, place.user if place else "its user"),
            )
            return


def _transport(code: Code) -> bool:
    return code.value.startswith(("net.", "dns.")) or code is Code.RESPONDER_SLOW


# --- the server's own check of the answer ----------------------------------------------------------------


def _trust(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    server = facts.server
    if server is None or server.block is None or not server.block.on or not fetches(facts):
        return
    if not sick(facts):
        return
    block = server.block
    for reply in (door.reply for door in facts.doors):
        if reply.code is not None:
            continue
        if (
            reply.signer is Signer.DELEGATE
            and block.verify.value == "on"
            and server.trust is not Trust.COMPLETE
        ):
            file = block.trusted.value or "nothing"
            yield named(
                Code.SERVER_TRUST_MISSING,
                block.trusted.where or block.where,
                f"{server.manner.verify} is on, and {file} does not lead from the answer's signer to a root",
                [
                    f"the answer is signed by {reply.signer.value}",
                    f"{server.manner.anchors}: {server.trust.value}",
                ],
                [f"intermediate and root in {server.manner.anchors}"],
                remedy=remedies.trust(server, block),
            )
        if reply.signer is Signer.DELEGATE and server.manner.by_hand and (line := _checked(server)):
            yield named(
                Code.SERVER_TRUST_MISSING,
                block.where,
                f"{server.kind} fetches the answer and refuses it: a delegate of the issuer has signed it",
                [f"it says: {line}", f"the answer is good, and signed by {reply.signer.value}"],
                ["the same with an answer that the issuer itself has signed"],
                remedy=remedies.by_hand(server),
            )
        verifies = bool(server.manner.anchors)
        if verifies and reply.signer is Signer.ISSUER and not server.issuer_sent and server.issuer_found:
            yield issuer_missing(
                server, ["only the leaf is in it", "the answer does not hold its signer's certificate either"]
            )


def _checked(server: Server) -> str:
    """Its own words that an answer did not pass its check."""
    said = (one for one in server.log if one.code is Code.OCSP_MALFORMED)
    return next((str(one.evidence.get("line", one.message)) for one in said), "")


def _unmatched(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """Good answers that a server will not use all the same."""
    for door in facts.doors:
        judged = door.reply.judgement
        if door.reply.code is not None or judged is None or not sick(facts):
            continue
        for one in judged.findings:
            if one.code in (Code.OCSP_CERTID_UNMATCHED, Code.STAPLE_NEAR_EXPIRY):
                message = f"{one.message}; {remedies.WHY_UNUSED[one.code]}"
                yield named(
                    one.code,
                    door.url,
                    message,
                    [said(door, door.reply), one.message],
                    ["a staple on the wire with the same kind of answer"],
                    severity=Severity.CRITICAL if facts.server else Severity.WARNING,
                )


def _clock(facts: Facts, found: Sequence[Finding]) -> Iterator[Finding]:
    skews = facts.skews
    off = [(who, skew) for who, skew in skews if abs(skew) > _SKEW]
    if not off or len(off) < len(skews):
        return
    who, skew = off[0]
    told = f"{abs(skew.total_seconds()):.0f} s {'behind' if skew > timedelta() else 'ahead of'}"
    timed = [one.message for one in found if one.code in (Code.OCSP_NOT_YET_VALID, Code.OCSP_EXPIRED)]
    yield named(
        Code.HOST_CLOCK_WRONG,
        "clock",
        f"this host's clock is {told} that of {who}",
        [f"Date of {name}: {delta.total_seconds():+.0f} s from ours" for name, delta in off] + timed,
        ["another source of time that agrees with this host"],
        severity=Severity.CRITICAL if timed or sick(facts) else Severity.WARNING,
    )


# --- what the server says --------------------------------------------------------------------------------


def _loaded(facts: Facts, found: Sequence[Finding]) -> Iterator[Finding]:
    """What it said when it loaded counts until it loads again, whatever is true by now."""
    server = facts.server
    if server is None or not sick(facts):
        return
    for one in (*server.log, *server.load.findings):
        # nginx says the same of an answer whose signer it does not find: that is of the moment.
        if one.code not in _AT_LOAD or "while requesting" in str(one.evidence.get("line", "")):
            continue
        if one.code is Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD and any(
            known.critical and known.code.value.startswith("dns.") for known in found
        ):
            yield replace(one, severity=Severity.WARNING)
            continue
        remedy = remedies.after_load(server, one, facts)
        yield replace(one, severity=Severity.CRITICAL, remedy=remedy, evidence=_quoted(one))


def _quoted(one: Finding) -> dict[str, Json]:
    line = str(one.evidence.get("line", one.message))
    return {
        **one.evidence,
        "supports": [f"the server's own words: {line}"],
        "would_refute": ["a later load that is silent about it"],
    }


def _logged(facts: Facts, found: Sequence[Finding]) -> Iterator[Finding]:
    """What it failed at, where nothing that is seen now explains it: over, but the server still waits."""
    server = facts.server
    if server is None or not sick(facts) or criticals(found):
        return
    if any(one.code.value.startswith("ocsp.") for one in found) and passes_on(facts):
        return  # it is passed on now, too
    lines = [one for one in server.log if one.code not in _TELLS_NOTHING]
    gone = _blind(server) and bool(facts.names)
    for one in lines:
        code = _by_whom(server, one, facts.symptom)
        if gone and _transport(one.code):
            yield _moved(facts, server, str(one.evidence.get("line", "")))
            return
        yield named(
            code,
            one.subject,
            f"{server.kind} failed before, though it would succeed now: {one.message}",
            [f"its log: {one.evidence.get('line', one.message)}", "the same request succeeds from here now"],
            ["the same line again after a reload"],
            remedy=remedies.reload(server),
        )
        return
    if gone:
        yield _moved(facts, server, "")


def _blind(server: Server) -> bool:
    """Whether it goes on with the address that it found when it loaded, whatever the name means now."""
    block = server.block
    at_load = server.manner.resolving is Resolving.AT_LOAD
    return at_load and block is not None and block.fetches and not block.resolver.value


def _by_whom(server: Server, one: Finding, symptom: Symptom) -> Code:
    """Tell whose fault a line is about.

    What is logged of a name is the configured resolver's doing where the system's is not asked at run time;
    an answer that was kept back was bad itself.
    """
    because = one.evidence.get("because")
    if one.code is Code.SERVER_SERVES_BAD_STAPLE and symptom is not Symptom.BAD and because:
        return Code(str(because))
    asks_others = server.manner.resolving is not Resolving.SYSTEM
    return Code.SERVER_RESOLVER_BROKEN if asks_others and one.code.value.startswith("dns.") else one.code


def _moved(facts: Facts, server: Server, line: str) -> Finding:
    name = facts.names[0]
    return named(
        Code.SERVER_RESOLVER_MISSING,
        server.block.where if server.block else server.config,
        f"no resolver is in force: {server.kind} still asks the address that {name.host} had when it loaded",
        [
            *([f"its log: {line}"] if line else []),
            f"{name.host} is at {', '.join(name.system.addresses)} now, and answers from there",
        ],
        ["a `resolver` in force for this block, or the old address still answers"],
        remedy=remedies.no_resolver(server, name),
    )


def _advice(facts: Facts, _: Sequence[Finding]) -> Iterator[Finding]:
    """Not wrong yet."""
    server = facts.server
    if facts.symptom is not Symptom.GOOD or server is None or server.block is None or not facts.names:
        return
    if server.block.on and _blind(server):
        yield named(
            Code.SERVER_RESOLVER_MISSING,
            server.block.where,
            f"no resolver is in force: {server.kind} goes on with the address of {facts.names[0].host} "
            "that it found when it loaded",
            [f"{server.block.where}: no resolver", "the staple is there"],
            ["a `resolver` in force for this block"],
            severity=Severity.WARNING,
            remedy=remedies.no_resolver(server, facts.names[0]),
        )


def _served(facts: Facts, found: Sequence[Finding]) -> Iterator[Finding]:
    """What the handshakes showed; an `ocsp.*` of a staple that somebody else passed on stands beside it."""
    blamed = {one.code for one in found if one.critical}
    by_file = blamed & {Code.SERVER_STAPLE_FILE_BAD, Code.SERVER_RELOAD_NOT_TAKEN}
    made_up = any(code.value.startswith(_TRANSPORT) for code in blamed)
    for one in facts.handshakes:
        if one.code is Code.SERVER_SERVES_BAD_STAPLE and not by_file:
            told = _passed_on(facts, one)
            yield replace(told, severity=Severity.WARNING) if made_up else told
        elif one.code is Code.SERVER_SERVES_BAD_STAPLE or one in beside(facts):
            yield replace(one, severity=Severity.WARNING)
        else:
            yield one


def _passed_on(facts: Facts, one: Finding) -> Finding:
    """Say how this server is kept from it."""
    server = facts.server
    if server is None or server.block is None or not server.manner.passes_on:
        return one
    told = [said(door, door.reply) for door in facts.doors if door.reply.code is not None]
    evidence: dict[str, Json] = {
        **one.evidence,
        "supports": [f"handshake: {one.message}", *told],
        "would_refute": ["a handshake whose staple the judge accepts"],
    }
    return replace(one, remedy=remedies.passing_on(server, server.block), evidence=evidence)


def beside(facts: Facts) -> tuple[Finding, ...]:
    """What is bad about the staple that is served: who serves it is named, and this stands beside it."""
    told = (one for one in facts.handshakes if one.code.value.startswith("ocsp."))
    return tuple(told) if facts.symptom is Symptom.BAD else ()


_RULES: Final[tuple[_Rule, ...]] = (
    loaded.refused,
    loaded.cache,
    loaded.key,
    loaded.stopped,
    loaded.block,
    loaded.staple_file,
    reached.names,
    reached.doors,
    reached.slow,
    _only_blocked,
    _trust,
    _unmatched,
    _clock,
    _loaded,
    loaded.unloaded,
    _logged,
    _advice,
    _served,
)
