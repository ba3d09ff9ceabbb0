"""`status`: all that is looked after, at a glance; bars of life left on a terminal, plain words elsewhere."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from typing import IO, Final

from stapleguard import report
from stapleguard.diagnosis import Strand
from stapleguard.engine.status import Row, Span, Status, status
from stapleguard.engine.world import World
from stapleguard.model import ExitStatus, Json

_CELLS: Final = 12
_LOW: Final = 0.25
_TONE: Final = {"verified": "good", "not-applicable": "good", "refused": "bad", "stranded": "bad"}


def status_command(arguments: argparse.Namespace, world: World) -> int:
    """Print what is deployed, served and pending."""
    told = status(world)
    if arguments.json:
        report.print_json(_json(told))
    else:
        sys.stdout.write(_text(told, sys.stdout, world.clock.now()) + "\n")
    return int(ExitStatus.OK)


def _json(told: Status) -> dict[str, Json]:
    timer = told.timer
    return {
        "schema": "stapleguard.status/1",
        "exit": 0,
        "lineages": [_row_json(row) for row in told.rows if row.generation],
        "pending": [row.name for row in told.rows if row.pending],
        "timer": None
        if timer is None
        else {
            "active": timer.active,
            "next": report.rfc3339(timer.next_at),
            "last": report.rfc3339(timer.last_at),
        },
    }


def _row_json(row: Row) -> dict[str, Json]:
    certificate, staple = row.certificate_life, row.staple_life
    told: dict[str, Json] = {
        "lineage": row.name,
        "generation": row.generation,
        "verdict": row.record.verdict or None if row.record else None,
        "cause": row.record.cause or None if row.record else None,
        "ended": row.record.ended or None if row.record else None,
        "pending": row.pending,
        "failures": row.failures,
        "next_try": report.rfc3339(row.next_at),
        "leaf_sha256": row.leaf_sha256 or None,
        "not_after": report.rfc3339(certificate.end) if certificate else None,
        "certificate_left": round(certificate.left, 3) if certificate else None,
        "staple": row.staple or None,
        "staple_next_update": report.rfc3339(staple.end) if staple else None,
        "staple_left": round(staple.left, 3) if staple else None,
        "served": [_served_json(one) for one in row.served],
    }
    return {**told, "damaged": row.damaged} if row.damaged else told


def _served_json(strand: Strand) -> dict[str, Json]:
    last = strand.last
    leaf = last.leaf.sha256 if last and last.leaf else None
    stapled = last is not None and last.good_staple
    return {"endpoint": str(strand.endpoint), "leaf_sha256": leaf, "good_staple": stapled}


def _text(told: Status, stream: IO[str], now: datetime) -> str:
    lines: list[str] = []
    for row in told.rows:
        lines += _lines(row, stream, now)
    if not lines:
        lines.append("nothing is deployed yet; see `stapleguard deploy --help`")
    timer = told.timer
    if timer is None:
        lines.append("timer    none: `stapleguard install` writes the units")
    elif not timer.active:
        stopped = report.colour("stopped", "bad", stream)
        lines.append(f"timer    {stopped}: systemctl enable --now stapleguard-retry.timer")
    else:
        again = _when(timer.next_at, now) if timer.next_at is not None else "when this run has ended"
        lines.append(f"timer    looks again {again}")
    return "\n".join(lines)


def _lines(row: Row, stream: IO[str], now: datetime) -> list[str]:
    record = row.record
    verdict = (record.verdict or record.state.value) if record else "-"
    tone = _TONE.get(verdict, "warn")
    cause = f", {record.cause}" if record and record.cause else ""
    lines = [f"{report.colour(row.name, 'bold', stream)}  {report.colour(verdict, tone, stream)}{cause}"]
    if row.damaged:
        lines.append(f"  damaged      {row.damaged}")
    if row.certificate_life is not None:
        lines.append(f"  certificate  {_life(row.certificate_life, stream)}")
    if row.staple_life is not None:
        lines.append(f"  staple       {_life(row.staple_life, stream)}, {row.staple}")
    elif row.staple:
        lines.append(f"  staple       {row.staple}")
    lines += [f"  served       {_served(row, strand, stream)}" for strand in row.served]
    if row.generation:
        lines.append(f"  generation   {row.generation}")
    if row.pending:
        again = _when(row.next_at, now) if row.next_at is not None else "at the timer's next look"
        tries = f" after {row.failures} attempts" if row.failures else ""
        lines.append(f"  {report.colour('pending', 'warn', stream)}      next try {again}{tries}")
    return lines


def _served(row: Row, strand: Strand, stream: IO[str]) -> str:
    last = strand.last
    if last is None or last.leaf is None:
        return f"{strand.endpoint}  {report.colour('no handshake', 'bad', stream)}"
    same = last.leaf.sha256 == row.leaf_sha256
    other = report.colour(f"another one, {last.leaf.sha256[:12]}", "bad", stream)
    staple = "good staple" if last.good_staple else "no good staple"
    return f"{strand.endpoint}  {'this certificate' if same else other}, {staple}"


def _life(span: Span, stream: IO[str]) -> str:
    words = f"{_amount(span.seconds)} left of {_amount((span.end - span.begin).total_seconds())}"
    if span.seconds <= 0:
        words = f"ended {_amount(-span.seconds)} ago"
    if not stream.isatty():
        return words
    full = round(span.left * _CELLS)
    unicode = str(getattr(stream, "encoding", "")).lower().startswith("utf")
    block, empty = ("█", "░") if unicode else ("#", ".")
    tone = "bad" if span.left <= 0 else "warn" if span.left < _LOW else "good"
    return f"{report.colour(block * full + empty * (_CELLS - full), tone, stream)}  {words}"


def _amount(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def _when(moment: datetime, now: datetime) -> str:
    seconds = (moment - now).total_seconds()
    return f"in {_amount(seconds)}" if seconds > 0 else "now"
