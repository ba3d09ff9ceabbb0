"""The one line of a monitoring plugin (Monitoring Plugins guidelines, chapters 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, assert_never

from stapleguard.finding import criticals
from stapleguard.model import Severity, Verdict, escape
from stapleguard.report.readings import Reading, summary


class State(IntEnum):
    """The exit status of a plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_WORST_FIRST: Final = (State.CRITICAL, State.WARNING, State.UNKNOWN, State.OK)
"""A problem that is known is not hidden by one endpoint that could not be looked at."""
_SHOWN: Final = 3
"""How many endpoints are told of in words: NRPE of old cuts at 1 KiB."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The certificate life below which a line says WARNING or CRITICAL."""

    warning: timedelta = timedelta(days=14)
    critical: timedelta = timedelta(days=3)


def state(reading: Reading, limits: Thresholds, now: datetime) -> State:
    """Return what one endpoint is to a monitoring system; only what could not be observed is UNKNOWN."""
    life = reading.certificate_ends - now if reading.certificate_ends else None
    match reading.verdict:
        case Verdict.VERIFIED | Verdict.NOT_APPLICABLE:
            if life is not None and life < limits.critical:
                return State.CRITICAL
            uneasy = any(one.severity is Severity.WARNING for one in reading.findings)
            short = life is not None and life < limits.warning
            return State.WARNING if uneasy or short else State.OK
        case Verdict.DEGRADED | Verdict.PENDING:
            short = life is not None and life < limits.critical
            return State.CRITICAL if short or criticals(reading.findings) else State.WARNING
        case Verdict.INCONCLUSIVE:
            return State.UNKNOWN
        case Verdict.REFUSED | Verdict.ROLLED_BACK | Verdict.STRANDED:
            return State.CRITICAL
        case _ as never:
            assert_never(never)


def line(readings: Sequence[Reading], limits: Thresholds, now: datetime) -> tuple[State, str]:
    """Return the worst state of all, and the line with its performance data."""
    states = [state(one, limits, now) for one in readings]
    worst = next((one for one in _WORST_FIRST if one in states), State.UNKNOWN)
    counted = summary(one.verdict for one in readings)
    problems = [
        (each, one)
        for each in _WORST_FIRST[:-1]
        for one, own in zip(readings, states, strict=True)
        if own is each
    ]
    words = [str(counted)]
    words += [_problem(each, one, now) for each, one in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        words.append(f"and {len(problems) - _SHOWN} more")
    data = [
        _seconds("staple_life", _least([one.staple_ends for one in readings], now), "", ""),
        _seconds(
            "certificate_life",
            _least([one.certificate_ends for one in readings], now),
            f"{limits.warning.total_seconds():.0f}:",
            f"{limits.critical.total_seconds():.0f}:",
        ),
        f"endpoints={len(readings)};;;0",
        *(
            f"{verdict.value}={count};;;0;{len(readings)}"
            for verdict, count in counted.counts.items()
            if count
        ),
    ]
    return worst, f"STAPLEGUARD {worst.name} - {'; '.join(words)} | {' '.join(one for one in data if one)}"


def unknown(message: str) -> str:
    """Return the line for a run that could not even begin."""
    return f"STAPLEGUARD {State.UNKNOWN.name} - {_text(message)}"


def _problem(own: State, reading: Reading, now: datetime) -> str:
    told = reading.findings[0] if reading.findings else None
    for found in reading.findings:
        if found.code is reading.cause:
            told = found
            break
    if reading.verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE) and reading.certificate_ends is not None:
        told = next((one for one in reading.findings if one.severity is Severity.WARNING), None)
        days = (reading.certificate_ends - now) / timedelta(days=1)
        why = told.message if told else f"its certificate ends in {days:.1f} days"
    else:
        why = told.message if told else "not every worker was met"
    return _text(f"{own.name} {reading.where}: {why}")


def _text(text: str) -> str:
    # A bar would begin the performance data; escape() has seen to line ends and all else.
    return escape(text, 240).replace("|", "\\x7c")


def _least(moments: Sequence[datetime | None], now: datetime) -> float | None:
    known = [(one - now).total_seconds() for one in moments if one is not None]
    return min(known, default=None)


def _seconds(label: str, value: float | None, warning: str, critical: str) -> str:
    return "" if value is None else f"{label}={value:.0f}s;{warning};{critical};;".rstrip(";")
