"""Lines of a server's log as findings: one for each code, with what the line says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stapleguard.finding import Code, Finding, find


@dataclass(frozen=True, slots=True)
class Fault:
    """What a line that `pattern` matches means; `because` is the code of the answer that it is about."""

    pattern: str
    code: Code
    because: Code | None = None


def read_log(kind: str, faults: Sequence[Fault], text: str) -> tuple[Finding, ...]:
    """Read lines; what a line matches first is what it means, and lines of other matters give nothing.

    One finding for each fault; `evidence` has the last such line and how often there was one.
    """
    last: dict[Fault, str] = {}
    count: dict[Fault, int] = {}
    for line in text.splitlines():
        fault = next((one for one in faults if re.search(one.pattern, line)), None)
        if fault is not None:
            last[fault] = line.strip()
            count[fault] = count.get(fault, 0) + 1
    return tuple(_finding(kind, fault, line, count[fault]) for fault, line in last.items())


def _finding(kind: str, fault: Fault, line: str, count: int) -> Finding:
    evidence: dict[str, str | int] = {"line": line, "count": count}
    if fault.because is not None:
        evidence["because"] = fault.because.value
    return find(fault.code, kind, f"{kind} says: {line}", evidence=evidence)
