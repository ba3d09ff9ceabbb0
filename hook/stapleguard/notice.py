"""What a person is told: the facts of a trouble, and the words for them. Pure.

A message says what happened, to which name, where, what is served now, the cause, what to do, and until
when there is time. The subject fits on a phone; the same facts go out as JSON. Whatever came from a
certificate or a peer is escaped here, and each channel escapes what has a meaning in its own format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final

from stapleguard.diagnosis import Result, Strand
from stapleguard.finding import CATALOGUE, Code
from stapleguard.model import Json, Verdict, escape
from stapleguard.trouble import Trouble

SCHEMA: Final = "stapleguard.message/1"
CHANNEL: Final = "alerts."
"""How the trouble of a channel is called: this and its name."""
MOST: Final = 10
"""Endpoints, certificates and steps that one message names."""
_SUBJECT: Final = 78
_STEP: Final = 600


class Event(Enum):
    """Why a message is sent."""

    TROUBLE = "trouble"
    REMINDER = "reminder"
    RECOVERED = "recovered"
    TEST = "test"


class Urgency(Enum):
    """How much it matters, in the words of PagerDuty."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Notice:
    """One message, whatever it will look like."""

    event: Event
    host: str
    about: str
    at: datetime
    since: datetime
    verdict: str = ""
    cause: str = ""
    kind: str = ""
    facts: Mapping[str, Json] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What all messages about one trouble have in common, from its beginning to its end."""
        return f"stapleguard/{self.host}/{self.about}"

    @property
    def urgency(self) -> Urgency:
        """How much it matters."""
        if self.event in (Event.RECOVERED, Event.TEST):
            return Urgency.INFO
        if self.about.startswith(CHANNEL):
            return Urgency.WARNING
        return _URGENCY.get(self.verdict, Urgency.ERROR)


_URGENCY: Final = {
    Verdict.STRANDED.value: Urgency.CRITICAL,
    Verdict.ROLLED_BACK.value: Urgency.WARNING,
    Verdict.INCONCLUSIVE.value: Urgency.WARNING,
}

_HAPPENED: Final = {
    Verdict.DEGRADED.value: "The certificate is served, but something is missing or wrong.",
    Verdict.REFUSED.value: "The new certificate was refused; what was served before stays.",
    Verdict.ROLLED_BACK.value: "The new certificate could not be proved; the previous one is served again.",
    Verdict.STRANDED.value: "Neither the new nor the previous certificate could be proved; "
    "clients may be failing now.",
    Verdict.INCONCLUSIVE.value: "The certificate could not be observed from this host.",
}


def facts_of(result: Result, live_until: datetime | None = None) -> dict[str, Json]:
    """Return what a message says of a result; `live_until` is the end of what is published, where known."""
    found = next((one for one in result.findings if one.code is result.cause), None)
    ends = [end for strand in result.strands for end in _ends(strand)]
    if not ends and live_until is not None:
        ends = [(live_until, "the published certificate ends")]
    facts: dict[str, Json] = {
        "message": escape(found.message, 500) if found else "",
        "remedy": steps_of(found.remedy) if found else [],
        "endpoints": _few(escape(str(one.endpoint)) for one in result.strands),
        "served": _few(one for strand in result.strands for one in _served(strand)),
    }
    if ends and result.verdict is not Verdict.STRANDED:
        until, why = min(ends)
        facts |= {"until": until.isoformat(timespec="seconds"), "until_what": why}
    return facts


def steps_of(remedy: str) -> list[Json]:
    """Split a remedy into its numbered steps."""
    steps = [one for one in re.split(r"\s*\(\d\) ", remedy) if one]
    return [escape(one, _STEP) for one in steps[:MOST]]


def _few(texts: Iterator[str]) -> Sequence[Json]:
    return [*dict.fromkeys(texts)][:MOST]


def _served(strand: Strand) -> Iterator[str]:
    last = strand.last
    where = escape(str(strand.endpoint))
    if last is None or last.leaf is None:
        yield f"{where}: nothing"
        return
    if last.good_staple:
        staple = "a good staple"
    else:
        staple = "a bad staple" if last.observation.staple else "no staple"
    yield f"{where}: {last.leaf.sha256[:12]} until {_day(last.leaf.not_after)}, {staple}"


def _ends(strand: Strand) -> Iterator[tuple[datetime, str]]:
    last = strand.last
    if last is None or last.leaf is None:
        return
    yield last.leaf.not_after, "the served certificate ends"
    if last.leaf.must_staple and last.judgement is not None and last.judgement.next_update is not None:
        yield last.judgement.next_update, "the staple that it must have ends"


def of_trouble(trouble: Trouble, event: Event, host: str, at: datetime) -> Notice:
    """Make the message of a trouble."""
    one = trouble
    return Notice(event, host, one.about, at, one.since, one.verdict, one.cause, one.kind, one.facts)


def probe(host: str, at: datetime) -> Notice:
    """Make the message of `stapleguard alert test`."""
    facts: dict[str, Json] = {
        "message": "This is a test: nothing is wrong. This channel works.",
        "remedy": ["Nothing is to be done."],
        "endpoints": ["www.example.org at 192.0.2.1:443"],
        "served": ["nothing was looked at"],
    }
    return Notice(Event.TEST, host, "test", at, at, facts=facts)


# --- words -----------------------------------------------------------------------------------------------


def subject(notice: Notice) -> str:
    """Return one line that fits on a phone."""
    what = ", ".join(one for one in (notice.verdict, notice.cause) if one) or escape(notice.kind, 40)
    match notice.event:
        case Event.RECOVERED:
            what = "recovered"
        case Event.REMINDER:
            what = f"still {what}"
        case Event.TEST:
            what = "a test message"
        case Event.TROUBLE:
            pass
    return escape(f"{escape(notice.about, 40)}: {what} ({escape(notice.host, 20)})", _SUBJECT)


def body(notice: Notice) -> str:
    """Return the message as plain text, with line ends of its own only."""
    return "\n".join(_lines(notice)) + "\n"


def rows(notice: Notice) -> list[tuple[str, str]]:
    """Return the facts as pairs of a title and one line."""
    facts = notice.facts
    found = [
        ("Name", escape(notice.about)),
        ("Host", escape(notice.host)),
        ("What happened", _happened(notice)),
        ("Cause", _cause(notice)),
        ("Where", "; ".join(_texts(facts.get("endpoints")))),
        ("Served now", "; ".join(_texts(facts.get("served")))),
        ("Since", _day(notice.since)),
        ("Time left", _time(notice)),
    ]
    return [(title, text) for title, text in found if text]


def steps(notice: Notice) -> list[str]:
    """Return what to do, step by step."""
    if notice.event is Event.RECOVERED:
        return []
    told = _texts(notice.facts.get("remedy"), _STEP)
    if notice.cause:
        told.append(f"More: stapleguard explain {escape(notice.cause)}")
    elif notice.event is not Event.TEST:
        told.append("More: journalctl -t stapleguard")
    return told


def _lines(notice: Notice) -> Iterator[str]:
    yield subject(notice)
    yield ""
    for title, text in rows(notice):
        yield f"{title}: {text}"
    todo = steps(notice)
    if todo:
        yield ""
        yield "What to do:"
        yield from (f"{number}. {text}" for number, text in enumerate(todo, 1))


def _happened(notice: Notice) -> str:
    message = escape(str(notice.facts.get("message") or ""), 500)
    match notice.event:
        case Event.RECOVERED:
            return f"It is over: {escape(notice.cause or notice.verdict or notice.kind)}."
        case Event.TEST:
            return message
        case Event.TROUBLE | Event.REMINDER:
            known = _HAPPENED.get(notice.verdict)
    return known or message or f"it ended with {escape(notice.kind)}"


def _cause(notice: Notice) -> str:
    if notice.event in (Event.RECOVERED, Event.TEST) or not notice.cause:
        return ""
    message = escape(str(notice.facts.get("message") or ""), 500)
    titles = {code.value: entry.title for code, entry in CATALOGUE.items()}
    return f"{escape(notice.cause)}: {message or titles.get(notice.cause, '')}"


def _time(notice: Notice) -> str:
    until = _moment(notice.facts.get("until"))
    if until is None or notice.event in (Event.RECOVERED, Event.TEST):
        return "none" if notice.verdict == Verdict.STRANDED.value and notice.event is Event.TROUBLE else ""
    hours = (until - notice.at).total_seconds() / 3600
    left = "it is past" if hours <= 0 else f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"
    return f"{left}; {escape(str(notice.facts.get('until_what') or 'it ends'))} on {_day(until)}"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _texts(value: Json, limit: int = 256) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return []
    return [escape(one, limit) for one in value[:MOST] if isinstance(one, str)]


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


# --- data ------------------------------------------------------------------------------------------------


def as_json(notice: Notice) -> dict[str, Json]:
    """Return the same facts for a program."""
    return {
        "schema": SCHEMA,
        "event": notice.event.value,
        "urgency": notice.urgency.value,
        "key": notice.key,
        "host": notice.host,
        "about": notice.about,
        "at": notice.at.isoformat(timespec="seconds"),
        "since": notice.since.isoformat(timespec="seconds"),
        "verdict": notice.verdict or None,
        "cause": notice.cause if notice.cause in {one.value for one in Code} else None,
        "kind": notice.kind or None,
        "subject": subject(notice),
        "facts": {**notice.facts},
    }


def from_json(data: Mapping[str, object]) -> Notice | None:
    """Read what `as_json` wrote; None when it is something else."""
    texts = {name: data.get(name) for name in ("host", "about", "verdict", "cause", "kind")}
    words = {name: text if isinstance(text, str) else "" for name, text in texts.items()}
    at, since, facts = _moment(data.get("at")), _moment(data.get("since")), data.get("facts")
    try:
        event = Event(data.get("event"))
    except ValueError:
        return None
    if at is None or since is None or not words["about"]:
        return None
    read = facts if isinstance(facts, dict) else {}
    return Notice(
        event, words["host"], words["about"], at, since, words["verdict"], words["cause"], words["kind"], read
    )
