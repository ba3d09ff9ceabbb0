"""Many endpoints: one line of NDJSON each, one JSON object of all, or text that a person can still read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Final

from stapleguard.diagnosis import Result
from stapleguard.finding import Code, Finding
from stapleguard.model import Json, Severity
from stapleguard.report.objects import finding_json
from stapleguard.report.readings import Reading, summary
from stapleguard.report.text import TONE, colour, steps

_EXAMPLES: Final = 5
_ORDER: Final = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)
_TONES: Final = {Severity.CRITICAL: "bad", Severity.WARNING: "warn", Severity.INFO: "dim"}


def json_line(reading: Reading) -> str:
    """One endpoint object on one line."""
    return json.dumps(reading.json, separators=(",", ":")) + "\n"


def as_json(readings: Sequence[Reading], worst: Result) -> dict[str, Json]:
    """A whole `check` as the published interface has it; verdict, cause and status are those of `worst`."""
    findings = {(one.code, one.subject, one.message): one for each in readings for one in each.findings}
    return {
        "schema": "stapleguard.check/1",
        "verdict": worst.verdict.value,
        "exit": worst.status,
        "cause": worst.cause.value if worst.cause else None,
        "findings": [finding_json(one) for one in findings.values()],
        "endpoints": [one.json for one in readings],
    }


def as_text(readings: Sequence[Reading], stream: IO[str]) -> str:
    """One line an endpoint, then each finding once with a few of those it is about and its remedy."""
    lines = [_line(one, stream) for one in readings]
    found: dict[Code, list[Finding]] = {}
    for reading in readings:
        for one in reading.findings:
            found.setdefault(one.code, []).append(one)
    for group in sorted(found.values(), key=lambda group: _ORDER.index(group[0].severity)):
        lines += _findings(group, stream)
    lines.append(str(summary(one.verdict for one in readings)))
    return "\n".join(lines)


def _line(reading: Reading, stream: IO[str]) -> str:
    verdict = colour(f"{reading.verdict.value:<14}", TONE[reading.verdict], stream)
    leaf = reading.leaf.sha256[:12] if reading.leaf else "-"
    cause = f"  {reading.cause.value}" if reading.cause else ""
    where = colour(reading.where, "bold", stream)
    return f"{verdict}  {where}  {reading.key_type or '-'}  leaf {leaf}  {staple_text(reading)}{cause}"


def staple_text(reading: Reading) -> str:
    """Say in a few words what was stapled."""
    judgement = reading.judgement
    if judgement is None:
        return "staple" if reading.stapled else "no staple"
    until = f" until {judgement.next_update:%Y-%m-%d %H:%M} UTC" if judgement.next_update else ""
    return f"staple {judgement.acceptance.value}{until}"


def _findings(group: Sequence[Finding], stream: IO[str]) -> list[str]:
    first = group[0]
    severity = colour(f"{first.severity.value:<8}", _TONES[first.severity], stream)
    messages = [*dict.fromkeys(one.message for one in group)]
    lines = [f"  {severity} {first.code.value}"]
    lines += [f"           {message}" for message in messages[:_EXAMPLES]]
    if len(messages) > _EXAMPLES:
        lines.append(f"           and {len(messages) - _EXAMPLES} more")
    if first.severity is not Severity.INFO:
        lines += [f"           {colour(step, 'dim', stream)}" for step in steps(first.remedy)]
    return lines
