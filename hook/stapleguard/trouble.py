"""What a person is told, and when: once for each trouble, and once when it is over. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
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
    told: bool = False


Book = Mapping[str, Trouble]


def kind_of(verdict: Verdict, cause: Code | None) -> str:
    """Return what makes two troubles the same: a responder may fail in a new way at each attempt."""
    if may_pass(cause):
        return f"{verdict.value}/responder"
    return f"{verdict.value}/{cause.value if cause else ''}"


def after(
    book: Book, lineage: str, verdict: Verdict, cause: Code | None, now: datetime
) -> tuple[Book, Trouble | None]:
    """Return the book after a run, and the trouble that it ended, where a person had been told of one."""
    known = book.get(lineage)
    if verdict in GOOD:
        return without(book, lineage), known if known is not None and known.told else None
    if verdict is Verdict.PENDING:  # neither over nor worse
        return book, None
    kind = kind_of(verdict, cause)
    if known is not None and known.kind == kind:
        return book, None
    since = known.since if known is not None else now
    trouble = Trouble(lineage, kind, verdict.value, cause.value if cause else "", since)
    return {**book, lineage: trouble}, None


def crashed(book: Book, unit: str, result: str, now: datetime) -> Book:
    """Return the book after a unit ended in a way that is none of our verdicts."""
    known = book.get(unit)
    if known is not None and known.kind == result:
        return book
    return {**book, unit: Trouble(unit, result, "", "", now)}


def without(book: Book, about: str) -> Book:
    """Return the book without one trouble; the same book when it has none."""
    return {key: one for key, one in book.items() if key != about} if about in book else book


def tell(book: Book) -> tuple[Book, tuple[Trouble, ...]]:
    """Return the book with everything told, and what was not told before."""
    news = tuple(one for one in book.values() if not one.told)
    return {key: replace(one, told=True) for key, one in book.items()} if news else book, news


def to_json(book: Book) -> dict[str, Json]:
    """Return plain data for the state directory."""
    return {
        key: {
            "kind": one.kind,
            "verdict": one.verdict,
            "cause": one.cause,
            "since": one.since.isoformat(timespec="seconds"),
            "told": one.told,
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
        try:
            moment = datetime.fromisoformat(since)
        except ValueError:
            continue
        if moment.tzinfo is not None:
            book[about] = Trouble(about, kind, verdict, cause, moment, one.get("told") is True)
    return book
