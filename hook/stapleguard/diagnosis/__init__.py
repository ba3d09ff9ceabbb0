"""From what was seen to what it means: settled or not, the findings, the cause, the verdict, whether to undo.

Pure: judged sightings in, decisions out. The engine gathers and obeys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from stapleguard.diagnosis.cluster import differences
from stapleguard.diagnosis.strand import (
    ASSUMED_WORKERS,
    Decision,
    Method,
    Need,
    Patience,
    Served,
    Sighting,
    Strand,
    Workers,
    confidence_of,
    handshakes_needed,
    settle,
    strand_findings,
)
from stapleguard.finding import Code, Finding, criticals
from stapleguard.model import Json, LeafFacts, Severity, Verdict

__all__ = [
    "ASSUMED_WORKERS",
    "BREAKING",
    "MISSING",
    "NEAR_EXPIRY",
    "Decision",
    "Method",
    "Need",
    "Patience",
    "Previous",
    "Result",
    "Served",
    "Sighting",
    "Strand",
    "Undo",
    "Workers",
    "cause_of",
    "confidence_of",
    "differences",
    "handshakes_needed",
    "may_pass",
    "settle",
    "strand_findings",
    "undo",
    "unique",
    "verdict_of",
]

NEAR_EXPIRY: Final = timedelta(days=1)
"""A previous certificate with less life than this is nothing to go back to (promise I5)."""

_CAUSE_RANK: Final[tuple[str, ...]] = (
    "host.",
    "material.",
    "server.config-invalid",
    "server.not-running",
    "server.reload-not-taken",
    "server.unsupported",
    "server.variable-certificate",
    "server.stapling-disabled",
    "server.staple-file-bad",
    "server.issuer-missing",
    "ocsp.revoked",
    "server.responder-unresolvable-at-load",
    "server.resolver-broken",
    "dns.",
    "net.",
    "server.blocked-only",
    "responder.",
    "ocsp.",
    "server.trust-missing",
    "server.resolver-missing",
    "served.name-mismatch",
    "server.cache-missing",
    "server.serves-bad-staple",
    "served.",
    "server.",
    "staple.",
)


def cause_of(findings: Iterable[Finding]) -> Code | None:
    """Return the code of the most probable root: what lies nearest the beginning of the chain of events.

    A critical finding comes before a warning; an info is never a cause.
    """

    def rank(found: Finding) -> tuple[int, int]:
        place = next(
            (i for i, start in enumerate(_CAUSE_RANK) if found.code.value.startswith(start)), len(_CAUSE_RANK)
        )
        return (0 if found.critical else 1, place)

    ranked = sorted((found for found in findings if found.severity is not Severity.INFO), key=rank)
    return ranked[0].code if ranked else None


BREAKING: Final = frozenset(
    {
        Code.SERVER_SERVES_BAD_STAPLE,
        Code.STAPLE_MUST_STAPLE_UNMET,
        Code.SERVED_TLS_FAILURE,
        Code.SERVED_UNREACHABLE,
        Code.SERVED_OLD_CERTIFICATE,
        Code.SERVED_NOT_TRUSTED,
        Code.SERVED_NAME_MISMATCH,
        Code.SERVED_CHAIN_INCOMPLETE,
        Code.SERVER_CONFIG_INVALID,
        Code.SERVER_RELOAD_NOT_TAKEN,
    }
)
"""Findings after a publish that real clients suffer from: worth going back for, where that helps."""

MISSING: Final = frozenset({Code.STAPLE_ABSENT, Code.SERVER_WORKER_UNSTAPLED})
"""A staple is missing though nothing breaks by that alone."""

_MAY_PASS: Final = ("dns.", "net.", "responder.")
_MAY_PASS_TOO: Final = frozenset(
    {Code.OCSP_TRY_LATER, Code.OCSP_UNAUTHORIZED, Code.OCSP_UNKNOWN, Code.OCSP_INTERNAL_ERROR}
)
"""Causes that a fresh certificate's responder may grow out of by itself."""


def may_pass(code: Code | None) -> bool:
    """Whether waiting alone may cure this cause (design: a fresh certificate's responder may lag)."""
    if code is None or code is Code.RESPONDER_FORBIDDEN_ADDRESS:
        return False
    return code in _MAY_PASS_TOO or code.value.startswith(_MAY_PASS)


@dataclass(frozen=True, slots=True)
class Previous:
    """What is known of the generation to go back to; `staple_until` is the end of its staple file, if any."""

    leaf: LeafFacts
    served_before: bool
    staple_until: datetime | None = None
    faults: tuple[Finding, ...] = ()


def unique(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings without repetition of code, subject and message, in order."""
    return tuple({(one.code, one.subject, one.message): one for one in findings}.values())


class Undo(Enum):
    """Whether going back helps (promise I5)."""

    HELPS = "helps"
    NO_PREVIOUS = "there is no previous generation"
    EXPIRING = "the previous certificate has expired or is about to"
    UNFIT = "the previous generation is unfit itself"
    SHARED = "the previous certificate would meet the same fault"
    NOT_WANTED = "nothing that is served is broken by it"


def undo(
    findings: Sequence[Finding], previous: Previous | None, *, wanted: frozenset[Code], now: datetime
) -> Undo:
    """Decide whether the previous generation is put back; `wanted` are the codes policy goes back for."""
    if not any(found.code in wanted and found.severity is not Severity.INFO for found in findings):
        return Undo.NOT_WANTED
    if previous is None:
        return Undo.NO_PREVIOUS
    if previous.leaf.not_after - now < NEAR_EXPIRY:
        return Undo.EXPIRING
    if criticals(previous.faults):
        return Undo.UNFIT
    needs_staple = bool(previous.leaf.ocsp_urls) and previous.leaf.must_staple
    cause = cause_of(findings)
    if needs_staple and may_pass(cause) and (previous.staple_until is None or previous.staple_until <= now):
        return Undo.SHARED
    return Undo.HELPS


def verdict_of(findings: Sequence[Finding], strands: Sequence[Strand]) -> Verdict:
    """Return the verdict of a proof alone: verified, not-applicable, degraded or inconclusive."""
    reached = [
        strand for strand in strands if strand.last is not None and strand.last.observation.fault is None
    ]
    if not reached:
        return Verdict.INCONCLUSIVE
    if criticals(findings) or any(found.code in MISSING for found in findings):
        return Verdict.DEGRADED
    if all(strand.need is Need.NOT_APPLICABLE for strand in strands):
        return Verdict.NOT_APPLICABLE
    return Verdict.VERIFIED


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found out: one verdict, one cause, all findings; `extra` is of this command only."""

    command: str
    verdict: Verdict
    cause: Code | None = None
    findings: tuple[Finding, ...] = ()
    strands: tuple[Strand, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)
    exit_status: int | None = None

    @property
    def status(self) -> int:
        """The process's exit status."""
        return int(self.verdict.exit_status) if self.exit_status is None else self.exit_status
