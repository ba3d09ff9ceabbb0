"""How a cause is named: with what supports it, with what would refute it, and with its weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stapleguard.diagnosis import remedies
from stapleguard.diagnosis.facts import Facts, Server, Symptom
from stapleguard.finding import Code, Finding, find
from stapleguard.model import Json, Severity

SICK: Final = frozenset({Symptom.ABSENT, Symptom.PARTIAL, Symptom.BAD})
"""A staple is missing or bad."""


def sick(facts: Facts) -> bool:
    """Whether a staple is missing or bad; or the fetching itself may be what ends the handshakes."""
    block = facts.server.block if facts.server and facts.server.running else None
    holds = block is not None and block.on and block.fetches and block.in_handshake
    return facts.symptom in SICK or (facts.symptom is Symptom.UNSEEN and holds)


def named(
    code: Code,
    subject: str,
    message: str,
    supports: Sequence[str],
    refutes: Sequence[str],
    *,
    severity: Severity = Severity.CRITICAL,
    remedy: str | None = None,
) -> Finding:
    """Make a finding that says why it is believed and what would show it to be wrong."""
    evidence: dict[str, Json] = {"supports": [*supports], "would_refute": [*refutes]}
    return find(code, subject, message, severity=severity, remedy=remedy, evidence=evidence)


def fetches(facts: Facts) -> bool:
    """Whether this server would have to ask the responder itself."""
    server = facts.server
    return server is None or server.block is None or server.block.fetches


def passes_on(facts: Facts) -> bool:
    """Whether the server hands out a bad answer that it fetched: that is the cause then."""
    return facts.symptom is Symptom.BAD and fetches(facts)


def weigh(facts: Facts) -> Severity:
    """How much a fault on the way to the responder matters: nothing is missing, or somebody else fetches."""
    if sick(facts) and fetches(facts):
        return Severity.CRITICAL
    return Severity.WARNING if sick(facts) else Severity.INFO


def issuer_missing(server: Server, why: Sequence[str]) -> Finding:
    """Name the issuer as missing; `why` says where it is not."""
    block = server.block
    path = block.certificate.value if block else server.config
    return named(
        Code.SERVER_ISSUER_MISSING,
        path,
        f"{server.kind} cannot find the issuer of {path}",
        [f"{path}: {one}" for one in why],
        ["the issuer's certificate right behind the leaf in that file"],
        remedy=remedies.issuer(server),
    )
