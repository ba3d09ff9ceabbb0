"""What a person is told, and when: once for each trouble, and once when it is over. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from stapleguard.diagnosis import may_pass
from stapleguard.finding import Code
from stapleguard.model import Json, Verdict

GOOD: Final = frozenset({Verdict.VERIFIED, Verdict.NOT_APPLICABLE})


@dataclass(frozen=True, slots=True)
class Trouble:
    """One trouble of a lineage or a unit (`about`); `kind` tells whether another is the same."""

    about: str
    kind: str
    verdict: str
    cause: str
    since: datetime
    told: datetime | None = None
    facts: Mapping[str, Json] = field(default_factory=dict)
    """What a message says beyond this (see `notice`); of the newest run."""


Book = Mapping[str, Trouble]


def kind_of(verdict: Verdict, cause: Code | None) -> str:
    """Return what makes two troubles the same: a responder may fail in a new way at each attempt."""
    if may_pass(cause):
        return f"{verdict.value}/responder"
    return f"{verdict.value}/{cause.value if cause else ''}"


def after(
    book: Book,
    lineage: str,
    verdict: Verdict,
    cause: Code | None,
    now: datetime,
    facts: Mapping[str, Json] | None = None,
) -> tuple[Book, Trouble | None]:
    """Return the book after a run, and the trouble that it ended, where a person had been told of one."""
    known = book.get(lineage)
    if verdict in GOOD:
        return without(book, lineage), known if known is not None and known.told else None
    if verdict is Verdict.PENDING:  # neither over nor worse
        return book, None
    kind = kind_of(verdict, cause)
    if known is not None and known.kind == kind:
        return {**book, lineage: replace(known, facts=facts or known.facts)}, None
    since = known.since if known is not None else now
    code = cause.value if cause else ""
    trouble = Trouble(lineage, kind, verdict.value, code, since, facts=facts or {})
    return {**book, lineage: trouble}, None


def crashed(
    book: Book, about: str, kind: str, now: datetime, facts: Mapping[str, Json] | None = None
) -> Book:
    """Return the book after a unit ended, or a channel failed, in a way that is none of our verdicts."""
    known = book.get(about)
    if known is not None and known.kind == kind:
        return {**book, about: replace(known, facts=facts or known.facts)}
    return {**book, about: Trouble(about, kind, "", "", now, facts=facts or {})}


def without(book: Book, about: str) -> Book:
    """Return the book without one trouble; the same book when it has none."""
    return {key: one for key, one in book.items() if key != about} if about in book else book


def tell(book: Book, now: datetime) -> tuple[Book, tuple[Trouble, ...]]:
    """Return the book with everything told, and what was not told before."""
    news = tuple(one for one in book.values() if one.told is None)
    return _told(book, news, now), news


def remind(book: Book, now: datetime, interval: float) -> tuple[Book, tuple[Trouble, ...]]:
    """Return the book with every reminder given, and what was last told `interval` seconds ago or earlier."""
    span = timedelta(seconds=interval)
    again = tuple(one for one in book.values() if span and one.told is not None and now - one.told >= span)
    return _told(book, again, now), again


def _told(book: Book, which: tuple[Trouble, ...], now: datetime) -> Book:
    return {**book, **{one.about: replace(one, told=now) for one in which}} if which else book


def to_json(book: Book) -> dict[str, Json]:
    """Return plain data for the state directory."""
    return {
        key: {
            "kind": one.kind,
            "verdict": one.verdict,
            "cause": one.cause,
            "since": one.since.isoformat(timespec="seconds"),
            "told": one.told.isoformat(timespec="seconds") if one.told else None,
            "facts": one.facts,
        }
        for key, one in book.items()
    }


def from_json(data: Mapping[str, object]) -> dict[str, Trouble]:
    """Read what `to_json` wrote; what cannot be read is left out, and told again when it lasts."""
    book: dict[str, Trouble] = {}
    for about, one in data.items():
        if not isinstance(one, Mapping):
            continue
        texts = [one.get(name) for name in ("kind", "verdict", "cause", "since")]
        kind, verdict, cause, since = (text if isinstance(text, str) else "" for text in texts)
        moment = _moment(since)
        if moment is None:
            continue
        # Up to 0.1 it was only noted that a trouble had been told.
        told = moment if one.get("told") is True else _moment(one.get("told"))
        facts = one.get("facts")
        book[about] = Trouble(
            about, kind, verdict, cause, moment, told, facts if isinstance(facts, dict) else {}
        )
    return book


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
