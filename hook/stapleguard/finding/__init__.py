"""The catalogue of findings: every stable code with its severity, what it means and what to do.

A finding is data, never raised. Codes may be added, never renamed or reused; the families are the
ones of the published interface. Remedies are written for a tired person at 3 a.m.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from stapleguard.finding.answers import ANSWERS
from stapleguard.finding.certificates import CERTIFICATES
from stapleguard.finding.code import Code, Entry
from stapleguard.finding.servers import SERVERS
from stapleguard.model import Json, Severity

__all__ = ["CATALOGUE", "Code", "Entry", "Finding", "criticals", "find"]

_BY_CODE: Final = {**CERTIFICATES, **ANSWERS, **SERVERS}

CATALOGUE: Final[Mapping[Code, Entry]] = MappingProxyType({code: _BY_CODE[code] for code in Code})
"""Every code with its entry, in the published order; a code without one fails at import."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One coded fact about one subject (an endpoint, a file, a URL), with the evidence that was observed."""

    code: Code
    subject: str
    message: str
    severity: Severity
    remedy: str
    evidence: Mapping[str, Json]

    @property
    def critical(self) -> bool:
        """Whether this finding alone keeps a run from being verified."""
        return self.severity is Severity.CRITICAL


def find(
    code: Code,
    subject: str,
    message: str,
    *,
    severity: Severity | None = None,
    remedy: str | None = None,
    evidence: Mapping[str, Json] | None = None,
) -> Finding:
    """Make a finding; severity and remedy come from the catalogue unless the place knows better."""
    entry = CATALOGUE[code]
    return Finding(
        code,
        subject,
        message,
        severity or entry.severity,
        remedy or entry.remedy,
        MappingProxyType(dict(evidence or {})),
    )


def criticals(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Only the critical ones, in order."""
    return tuple(found for found in findings if found.severity is Severity.CRITICAL)
