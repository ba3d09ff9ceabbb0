"""A diagnosis for a person, and a bundle of it for a colleague."""

from __future__ import annotations

import json
import platform
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import IO, Final

from stapleguard import __version__
from stapleguard.diagnosis import Result
from stapleguard.finding import CATALOGUE, Finding
from stapleguard.model import Json, Severity, escape
from stapleguard.report.objects import as_json, rfc3339
from stapleguard.report.text import TONE, colour, endpoint_line, steps

_WIDTH: Final = 100
_LABEL: Final = 11
_COMMAND: Final = re.compile(r"`[^`]*`")
_GLUE: Final = "\N{NO-BREAK SPACE}"
_SECRET: Final = re.compile(r"(?i)(//)[^/@\s]+:[^/@\s]+@")


def as_text(result: Result, stream: IO[str]) -> str:
    """The cause first, with its evidence and its fix; then what else was seen; then what was not."""
    lines: list[str] = [endpoint_line(strand, stream) for strand in result.strands]
    first = next((one for one in result.findings if one.code is result.cause), None)
    verdict = colour(result.verdict.value, TONE[result.verdict], stream)
    lines += ["", f"{'verdict':<{_LABEL}}{verdict}"]
    if first is not None:
        title = CATALOGUE[first.code].title
        lines += [f"{'cause':<{_LABEL}}{colour(first.code.value, 'bold', stream)}  {title}"]
        lines += _told(first)
    else:
        lines.append(f"{'cause':<{_LABEL}}nothing is wrong that can be seen from here")
    verify = result.extra.get("verify")
    if result.cause is not None and isinstance(verify, str):
        lines += list(_labelled("then", [f"`{verify}` must name nothing."]))
    others = [one for one in result.findings if one is not first]
    if others:
        lines += ["", "also seen"]
        for one in others:
            tone = {"critical": "bad", "warning": "warn", "info": "dim"}[one.severity.value]
            lines.append(f"  {colour(f'{one.severity.value:<9}', tone, stream)}{one.code.value}")
            lines += _wrapped(escape(one.message, 500), " " * _LABEL)
            if one.severity is Severity.CRITICAL and "supports" in one.evidence:
                lines += list(_fix(one))
    unseen = _listed(result.extra.get("unseen"))
    if unseen:
        lines += ["", "not looked at"]
        for each in unseen:
            lines += _wrapped(escape(f"{each['what']}: {each['why']} (it takes: {each['takes']})", 500), "  ")
    return "\n".join(lines).lstrip("\n")


def _told(found: Finding) -> Iterator[str]:
    yield from _labelled("what", [escape(found.message, 500)])
    yield from _labelled("seen", _texts(found.evidence.get("supports")))
    yield from _labelled("refuted by", _texts(found.evidence.get("would_refute")))
    yield from _fix(found)


def _fix(found: Finding) -> Iterator[str]:
    yield from _labelled("fix", steps(found.remedy))


def _labelled(label: str, texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        head = label if number == 0 else ""
        yield from _wrapped(escape(text, 600), f"{head:<{_LABEL}}", " " * _LABEL)


def _wrapped(text: str, first: str, rest: str | None = None) -> list[str]:
    # A command must stay in one piece to be copied.
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", _GLUE), text)
    lines = textwrap.wrap(
        whole,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest if rest is not None else first,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in lines]


def _texts(value: Json) -> list[str]:
    return [str(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else []


def _listed(value: Json) -> list[Mapping[str, Json]]:
    if not isinstance(value, Sequence):
        return []
    return [one for one in value if isinstance(one, Mapping)]


def bundle(result: Result, now: datetime) -> str:
    """Everything that a colleague needs, and no secret: facts and words, no file's content.

    No key is ever read for it; what looks like credentials in a URL is struck out.
    """
    about = {
        "stapleguard": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "written": rfc3339(now),
    }
    text = json.dumps({**as_json(result), "about": about}, indent=2)
    return _SECRET.sub(r"\1***@", text) + "\n"
