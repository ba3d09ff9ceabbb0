"""What a private instance of the server has shown of a generation, and whether that one is published (0014).

A renewal is held back only where that helps: the fault is in the generation or between the server and the
responder, waiting does not mend it, and visitors have something better as long as nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Final, assert_never

from stapleguard.diagnosis import NEAR_EXPIRY, Previous, cause_of, may_pass
from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.model import Severity


class Showing(Enum):
    """What was seen of an understudy."""

    GOOD = "a good staple"
    BARE = "no staple"
    BAD = "what clients would refuse"
    NOTHING = "nothing"
    """It did not come to a handshake, for a reason of its own: no permission, no program, no port."""


class Course(Enum):
    """What becomes of the generation."""

    PUBLISH = "publish"
    HOLD = "hold"
    """The previous one stays, and the renewal waits for somebody to mend what is in its way."""
    REFUSE = "refuse"
    """It is unfit: no later attempt with the same files would end otherwise."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The previous generation as it is served at this moment, seen just now on the wire."""

    previous: Previous | None
    served: bool = False
    stapled: bool = False


_UNFIT: Final = frozenset(
    {
        Code.SERVED_TLS_FAILURE,
        Code.SERVED_CHAIN_INCOMPLETE,
        Code.SERVED_NOT_TRUSTED,
        Code.SERVED_NAME_MISMATCH,
        Code.SERVER_CONFIG_INVALID,
        Code.SERVER_ISSUER_MISSING,
        Code.SERVER_TRUST_MISSING,
        Code.SERVER_STAPLE_FILE_BAD,
    }
)
"""What is wrong with the files of the generation themselves."""

_REFUSED_BY_CLIENTS: Final = frozenset(
    {
        Code.SERVED_TLS_FAILURE,
        Code.SERVED_CHAIN_INCOMPLETE,
        Code.SERVED_NOT_TRUSTED,
        Code.SERVED_NAME_MISMATCH,
        Code.SERVER_CONFIG_INVALID,
        Code.SERVER_SERVES_BAD_STAPLE,
    }
)


def choose(showing: Showing, findings: Sequence[Finding], standing: Standing, now: datetime) -> Course:
    """Decide between publishing all the same, and leaving the previous generation in service."""
    match showing:
        case Showing.GOOD | Showing.NOTHING:
            return Course.PUBLISH
        case Showing.BARE | Showing.BAD:
            pass
        case _ as never:
            assert_never(never)
    cause = cause_of(criticals(findings))
    breaking = showing is Showing.BAD or cause in _REFUSED_BY_CLIENTS
    if cause is None or (may_pass(cause) and not breaking):
        return Course.PUBLISH
    previous = standing.previous
    if previous is None or criticals(previous.faults) or previous.leaf.not_after - now < NEAR_EXPIRY:
        return Course.PUBLISH
    # A missing staple is worth staying for as long as there is one now; a broken handshake in any case.
    if not standing.served or not (standing.stapled or breaking):
        return Course.PUBLISH
    return Course.REFUSE if cause in _UNFIT or cause.value.startswith("material.") else Course.HOLD


def may_mend_itself(findings: Sequence[Finding]) -> bool:
    """Whether what is held may need nobody: a responder that is slow, or a staple that is a lagging one's."""
    if may_pass(cause_of(criticals(findings))):
        return True
    served = any(one.code is Code.SERVER_SERVES_BAD_STAPLE for one in findings)
    answers = [one for one in findings if one.code.value.startswith("ocsp.")]
    return served and bool(answers) and all(may_pass(one.code) for one in answers)


_ONLY_HERE: Final = "this program gets a good answer at the same time"


def only_here(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Say again what a server met on a way on which we met nothing: then it is the server's own way."""
    return tuple(map(_only_here, findings))


def _only_here(found: Finding) -> Finding:
    match found.code.value.partition(".")[0]:
        case "dns":
            code = Code.SERVER_RESOLVER_BROKEN
        case "net" | "responder":
            code = Code.SERVER_BLOCKED_ONLY
        case _:
            return found
    return find(code, found.subject, f"{found.message}; {_ONLY_HERE}", evidence=found.evidence)


def beside(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Let what is wrong with a staple stand beside the fact that it is served, which is the cause."""
    every = tuple(findings)
    if not any(one.code is Code.SERVER_SERVES_BAD_STAPLE for one in every):
        return every
    return tuple(
        replace(one, severity=Severity.WARNING) if one.code.value.startswith("ocsp.") else one
        for one in every
    )
