"""The screen of `check --watch`: one line an endpoint, the bad ones first, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stapleguard.model import Verdict, escape
from stapleguard.report.readings import Reading, summary

_GOOD: Final = frozenset({Verdict.VERIFIED, Verdict.NOT_APPLICABLE})
_SHORT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Round:
    """What was seen last of every endpoint and what before that, when, and what the header says."""

    rows: Sequence[tuple[Reading, Reading | None]]
    now: datetime
    header: str
    height: int


def earlier(reading: Reading, before: Sequence[Reading]) -> Reading | None:
    """Find the same endpoint among what was seen before, though its key type or its address may be new."""
    for known in ((reading.endpoint, reading.key_type), (reading.endpoint, "")):
        for one in before:
            if (one.endpoint, one.key_type) == known:
                return one
    return before[0] if len(before) == 1 else None


def changes(before: Reading | None, after: Reading) -> str:
    """Say what is different from last time, in few words; empty where nothing is."""
    if before is None:
        return ""
    told = []
    if before.verdict is not after.verdict:
        told.append(f"was {before.verdict.value}")
    elif before.cause is not after.cause:
        told.append(f"was {before.cause.value}" if before.cause else "new cause")
    if before.leaf and after.leaf and before.leaf.sha256 != after.leaf.sha256:
        told.append("new certificate")
    if before.stapled and not after.stapled:
        told.append("staple lost")
    elif after.stapled and not before.stapled:
        told.append("staple came")
    elif before.judgement and after.judgement and before.judgement.sha256 != after.judgement.sha256:
        told.append("new staple")
    return ", ".join(told)


def life(ends: datetime, now: datetime) -> str:
    """How long something lives on, in the two largest units that say something."""
    seconds = int((ends - now).total_seconds())
    if seconds <= 0:
        return "ended"
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    if days >= 3:
        return f"{days}d"
    if days or hours:
        return f"{days * 24 + hours}h{minutes:02d}m"
    return f"{minutes}m" if minutes else "<1m"


def screen(shown: Round) -> Group:
    """Render one round; what has no room on the terminal is counted in the last line."""
    room = max(1, shown.height - 6)
    table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    table.add_column("verdict", no_wrap=True)
    table.add_column("endpoint", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("leaf", no_wrap=True)
    table.add_column("cert", justify="right", no_wrap=True)
    table.add_column("staple", justify="right", no_wrap=True)
    table.add_column("workers", justify="right", no_wrap=True)
    table.add_column("cause; change", no_wrap=True, overflow="ellipsis", ratio=1)
    ordered = sorted(shown.rows, key=lambda row: (row[0].verdict in _GOOD, not changes(row[1], row[0])))
    for reading, before in ordered[:room]:
        table.add_row(*_row(reading, before, shown.now))
    below = len(ordered) - room
    title = Text.assemble(("stapleguard", "bold"), "  ", (shown.header, "dim"))
    counted = Text(str(summary(reading.verdict for reading, _ in shown.rows)))
    last = Text(f"and {below} more below" if below > 0 else "", style="dim")
    return Group(title, counted, Text(""), table, last)


def _row(reading: Reading, before: Reading | None, now: datetime) -> list[Text]:
    changed = changes(before, reading)
    told = [reading.cause.value if reading.cause else "", changed]
    style = "green" if reading.verdict in _GOOD else _bad(reading)
    nothing = Text("-", "dim")
    seen = [nothing, nothing, nothing, nothing]
    if reading.leaf is not None:
        seen = [
            Text(reading.leaf.sha256[:8], "dim"),
            _life(reading.leaf.not_after, now),
            _staple(reading, now),
            Text(_met(reading), "dim"),
        ]
    last = Text("; ".join(one for one in told if one), "cyan" if changed else "dim")
    return [Text(reading.verdict.value, style), Text(escape(reading.where)), *seen, last]


def _met(reading: Reading) -> str:
    workers = reading.workers
    return f"{workers.seen}/{workers.total}" if workers.total else f"{workers.confidence:.0%}"


def _staple(reading: Reading, now: datetime) -> Text:
    if not reading.stapled:
        return Text("none", "dim")
    return Text("-", "dim") if reading.staple_ends is None else _life(reading.staple_ends, now)


def _bad(reading: Reading) -> str:
    return "yellow" if reading.verdict is Verdict.INCONCLUSIVE else "red"


def _life(ends: datetime, now: datetime) -> Text:
    return Text(life(ends, now), "" if ends - now > _SHORT else "yellow" if ends > now else "red")
