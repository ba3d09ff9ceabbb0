"""When: thisUpdate, nextUpdate, producedAt and the caller's age, to the second (RFC 6960 section 4.2.2.1)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pki
from pki import Answer
from stapleguard.finding import Code
from stapleguard.ocsp import Rules
from twins import DAY, HOUR, MINUTE, SECOND, By, Make, Mutation, Setting, Table, Variant

SKEW = 5 * MINUTE
EARLY = Code.OCSP_NOT_YET_VALID


def early(broken: Make, twin: Make) -> Mutation:
    return Mutation(EARLY, broken, twin)


def late(broken: Make, twin: Make) -> Mutation:
    return Mutation(Code.OCSP_EXPIRED, broken, twin)


def old(broken: Make, twin: Make) -> Mutation:
    return Mutation(Code.OCSP_TOO_OLD, broken, twin)


def both(setting: Setting, at: datetime, **changes: datetime | None) -> Answer:
    """Set thisUpdate and producedAt to one time."""
    return replace(setting.entry(this_update=at, **changes), produced_at=at)


def aged(setting: Setting, age: timedelta, limit: float, *, ends: bool = True) -> Variant:
    """Judge an answer of this age by a limit of the caller."""
    at = setting.now - age
    made = both(setting, at) if ends else both(setting, at, next_update=None)
    return Variant(made, rules=Rules(max_age=limit))


def seen(setting: Setting, at: datetime, answer: Answer | None = None) -> Variant:
    return Variant(answer or setting.base, now=at)


def issuer_until(setting: Setting, end: datetime) -> Variant:
    """Judge by an issuer's certificate that ends, or ended, then; it is trusted as it stands."""
    issuer = pki.Blank("Test CA", setting.now - 700 * DAY, end, extensions=(pki.CA,)).sign(
        setting.pki.issuer.key
    )
    return Variant(setting.base, of=replace(setting.pki, issuer=issuer))


def issuer_from(setting: Setting, start: datetime) -> Variant:
    issuer = pki.Blank("Test CA", start, setting.now + 700 * DAY, extensions=(pki.CA,)).sign(
        setting.pki.issuer.key
    )
    return Variant(setting.base, of=replace(setting.pki, issuer=issuer))


TIMES: Final[Table] = {
    "thisUpdate too far ahead": early(
        lambda s: both(s, s.now + SKEW + SECOND), lambda s: both(s, s.now + SKEW)
    ),
    "thisUpdate tomorrow": early(lambda s: both(s, s.now + DAY), lambda s: both(s, s.now)),
    "producedAt too far ahead": early(
        lambda s: s.but(produced_at=s.now + SKEW + SECOND), lambda s: s.but(produced_at=s.now + SKEW)
    ),
    "producedAt a second before thisUpdate": early(
        lambda s: s.but(produced_at=s.then - SECOND), lambda s: s.but(produced_at=s.then)
    ),
    "producedAt a day before thisUpdate": early(
        lambda s: s.but(produced_at=s.then - DAY), lambda s: s.but(produced_at=s.then + HOUR)
    ),
    "seen before it was made": early(
        lambda s: seen(s, s.then - SKEW - SECOND), lambda s: seen(s, s.then - SKEW)
    ),
    "nextUpdate now": late(
        lambda s: s.entry(next_update=s.now), lambda s: s.entry(next_update=s.now + SECOND)
    ),
    "nextUpdate a second ago": late(
        lambda s: s.entry(next_update=s.now - SECOND), lambda s: s.entry(next_update=s.now + SECOND)
    ),
    "nextUpdate within what others grant": late(
        lambda s: s.entry(next_update=s.now - 4 * MINUTE), lambda s: s.entry(next_update=s.now + 4 * MINUTE)
    ),
    "seen at nextUpdate": late(
        lambda s: seen(s, s.now + 6 * DAY), lambda s: seen(s, s.now + 6 * DAY - SECOND)
    ),
    "seen a fraction after nextUpdate": late(
        lambda s: seen(s, s.now + 6 * DAY + timedelta(microseconds=1)),
        lambda s: seen(s, s.now + 6 * DAY - timedelta(microseconds=1)),
    ),
    "seen at the end of time": Mutation(
        Code.OCSP_EXPIRED,
        lambda s: seen(s, datetime.max.replace(tzinfo=UTC)),
        lambda s: seen(s, s.now),
        by=By.ISSUER,
    ),
    "no nextUpdate and a week and a second old": old(
        lambda s: both(s, s.now - 7 * DAY - SECOND, next_update=None),
        lambda s: both(s, s.now - 7 * DAY, next_update=None),
    ),
    "no nextUpdate and a month old": old(
        lambda s: both(s, s.now - 29 * DAY, next_update=None),
        lambda s: aged(s, 29 * DAY, 2592000, ends=False),
    ),
    "older than the caller allows": old(
        lambda s: aged(s, HOUR + SECOND, 3600), lambda s: aged(s, HOUR, 3600)
    ),
    "older than the caller allows, without nextUpdate": old(
        lambda s: aged(s, HOUR + SECOND, 3600, ends=False), lambda s: aged(s, HOUR, 3600, ends=False)
    ),
    "an age of nought": old(lambda s: aged(s, SECOND, 0), lambda s: aged(s, 0 * SECOND, 0)),
    "a week and a second, where a week is allowed": old(
        lambda s: aged(s, 7 * DAY + SECOND, 604800), lambda s: aged(s, 7 * DAY, 604800)
    ),
    "signed after the issuer's end": Mutation(
        Code.OCSP_UNAUTHORIZED_RESPONDER,
        lambda s: issuer_until(s, s.then - SECOND),
        lambda s: issuer_until(s, s.then),
        by=By.ISSUER,
    ),
    "signed before the issuer's life": Mutation(
        EARLY,
        lambda s: issuer_from(s, s.then + SECOND),
        lambda s: issuer_from(s, s.then),
        by=By.ISSUER,
    ),
}
