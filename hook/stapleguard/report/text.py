"""Text for a person."""

from __future__ import annotations

import re
from typing import IO, Final

from stapleguard.diagnosis import Result, Strand
from stapleguard.model import Severity, Verdict
from stapleguard.report.objects import endpoint_json

_COLOURS: Final = {"good": "32", "warn": "33", "bad": "31", "dim": "2", "bold": "1", "step": "0"}


def colour(text: str, name: str, stream: IO[str]) -> str:
    """Wrap text in a colour where the stream is a terminal."""
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if stream.isatty() else text


TONE: Final = {
    Verdict.VERIFIED: "good",
    Verdict.NOT_APPLICABLE: "good",
    Verdict.PENDING: "warn",
    Verdict.DEGRADED: "warn",
    Verdict.INCONCLUSIVE: "warn",
    Verdict.REFUSED: "bad",
    Verdict.ROLLED_BACK: "bad",
    Verdict.STRANDED: "bad",
}


def as_text(result: Result, stream: IO[str]) -> str:
    """What a person reads: endpoints, findings with their remedies, the verdict and its cause."""
    lines = [endpoint_line(strand, stream) for strand in result.strands]
    for found in result.findings:
        tone = {"critical": "bad", "warning": "warn", "info": "dim"}[found.severity.value]
        lines.append(f"  {colour(f'{found.severity.value:<8}', tone, stream)} {found.code.value}")
        lines.append(f"           {found.message}")
        if found.severity is not Severity.INFO or found.code.value == "server.not-guarded":
            lines += [f"           {colour(step, 'dim', stream)}" for step in steps(found.remedy)]
    lines.append(f"verdict  {colour(result.verdict.value, TONE[result.verdict], stream)}")
    if result.cause:
        lines.append(f"cause    {result.cause.value}  (stapleguard explain {result.cause.value})")
    return "\n".join(lines)


def steps(remedy: str) -> list[str]:
    """A remedy as the lines that a person follows one after the other."""
    return [one for one in re.split(r"\s*(?=\(\d\) )", remedy) if one]


def endpoint_line(strand: Strand, stream: IO[str]) -> str:
    """One endpoint in one line."""
    shown, workers = endpoint_json(strand), strand.coverage
    leaf = str(shown["leaf_sha256"] or "nothing")[:12]
    if workers.total:
        who = f"{workers.seen}/{workers.total} workers"
    elif strand.confidence > 0:
        who = f"{workers.confidence:.0%} confidence"
    else:
        who = "one handshake"
    judgement = strand.last.judgement if strand.last else None
    staple = "no staple" if judgement is None else f"staple {judgement.acceptance.value}"
    if judgement is not None and judgement.next_update is not None:
        staple += f" until {judgement.next_update:%Y-%m-%d %H:%M} UTC"
    where = colour(str(strand.endpoint), "bold", stream)
    return f"  {where}  {shown['key_type'] or '-'}  leaf {leaf}  {staple}  {who}"
