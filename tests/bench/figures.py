"""What a measurement is, how variants take turns, and how the figures are shown."""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median


class BenchError(Exception):
    """Something else happened than what was to be measured; there are no figures then."""


@dataclass(frozen=True)
class Sample:
    """One run of a variant: what it took for `count` things done; `memory` is its peak in MiB."""

    seconds: float
    count: int = 1
    cpu: float = 0.0
    memory: float = 0.0
    at_once: float = 0.0
    """How many were under way on average, where the program tells."""

    @property
    def each(self) -> float:
        """Wall seconds for one."""
        return self.seconds / self.count

    @property
    def cpu_each(self) -> float:
        """CPU seconds (user and system) for one."""
        return self.cpu / self.count


@dataclass(frozen=True)
class Variant:
    """One way to do the work of a part; a slow one has fewer `rounds`, and then no round to warm up."""

    label: str
    run: Callable[[], Sample]
    rounds: int | None = None


Samples = Mapping[str, Sequence[Sample]]
"""By label, in the order of the rounds."""


def interleave(variants: Sequence[Variant], rounds: int) -> Samples:
    """Let the variants take turns, every second round in reverse; the first round is not counted."""
    taken: dict[str, list[Sample]] = {one.label: [] for one in variants}
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}" if number else "warming up")
        for one in variants if number % 2 else variants[::-1]:
            if number > (one.rounds or rounds) or (number == 0 and one.rounds is not None):
                continue
            sample = one.run()
            if number:
                taken[one.label].append(sample)
    return taken


@dataclass(frozen=True)
class Row:
    """One line of figures in `unit`."""

    label: str
    unit: str
    values: Sequence[float]
    digits: int = 1


@dataclass(frozen=True)
class Ratio:
    """What the issue asks for: `sign` and `goal` beside what was measured, round by round."""

    label: str
    sign: str
    goal: float
    values: Sequence[float]
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the median reaches the goal."""
        holds = operator.le if self.sign == "<=" else operator.ge
        return holds(median(self.values), self.goal)


@dataclass
class Report:
    """What one part found out."""

    part: str
    about: str
    rows: list[Row] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def quotients(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Divide what was measured in the same round; where one has fewer rounds, the others are left out."""
    return [above / below for above, below in zip(over, under, strict=False)]


def say(text: str) -> None:
    """Tell the one who waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def show(reports: Sequence[Report], machine: Mapping[str, str]) -> str:
    """Lay all of it out for a person."""
    lines = ["; ".join(f"{what} {value}" for what, value in machine.items())]
    for report in reports:
        lines += ["", f"{report.part}: {report.about}", ""]
        cells = [(f"{one.label} ({one.unit})", *_spread(one.values, one.digits)) for one in report.rows]
        lines += _columns([("", "median", "min", "max"), *cells])
        lines += [f"  note: {note}" for note in report.notes]
    ratios = [(_part, one) for report in reports for _part, one in ((report.part, r) for r in report.ratios)]
    if ratios:
        table = [("part", "ratio", "goal", "median", "min", "max", "")]
        for part, one in ratios:
            goal = f"{one.sign} {one.goal:g}{one.unit and ' ' + one.unit}"
            met = "met" if one.met else "NOT MET"
            table.append((part, one.label, goal, *_spread(one.values, 2), met))
        lines += ["", "the goals", "", *_columns(table)]
    return "\n".join(lines)


def as_json(reports: Sequence[Report], machine: Mapping[str, str]) -> str:
    """Lay all of it out for a program."""
    parts = []
    for report in reports:
        part = asdict(report)
        for ratio, one in zip(part["ratios"], report.ratios, strict=True):
            ratio.update(median=median(one.values), met=one.met)
        for row, measured in zip(part["rows"], report.rows, strict=True):
            row["median"] = median(measured.values)
        parts.append(part)
    return json.dumps({"schema": "stapleguard.bench/1", "machine": dict(machine), "parts": parts}, indent=2)


def _spread(values: Sequence[float], digits: int) -> tuple[str, str, str]:
    low, middle, high = (f"{one:.{digits}f}" for one in (min(values), median(values), max(values)))
    return middle, low, high


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    numbers = {"median", "min", "max"}
    aligned = [">" if head in numbers else "<" for head in table[0]]
    return [
        "  "
        + "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)
        ).rstrip()
        for row in table
    ]
