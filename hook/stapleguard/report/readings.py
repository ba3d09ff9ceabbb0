"""Each endpoint of a result in short: what is left of it once the handshakes themselves may be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from stapleguard import diagnosis
from stapleguard.diagnosis import Need, Result, Strand, Workers, strand_findings
from stapleguard.finding import Code, Finding
from stapleguard.inventory import Place
from stapleguard.model import Endpoint, Json, LeafFacts, Verdict
from stapleguard.ocsp import Judgement
from stapleguard.report.objects import endpoint_json, finding_json, handshakes


@dataclass(frozen=True, slots=True)
class Reading:
    """What one endpoint (with one key type) showed; `shown` is its JSON object without verdict and cause."""

    endpoint: Endpoint
    key_type: str
    verdict: Verdict
    cause: Code | None
    findings: tuple[Finding, ...]
    protocol: str
    leaf: LeafFacts | None
    stapled: bool
    judgement: Judgement | None
    workers: Workers
    handshakes: Mapping[str, int]
    shown: Mapping[str, Json]
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> dict[str, Json]:
        """The endpoint object of the published interface, with its own verdict and cause."""
        cause = self.cause.value if self.cause else None
        return {**self.shown, "verdict": self.verdict.value, "cause": cause}

    @property
    def where(self) -> str:
        """The endpoint in words; without its address where it has none, without a port for a lineage."""
        endpoint = self.endpoint
        if endpoint.address:
            return str(endpoint)
        return f"{endpoint.host}:{endpoint.port}" if endpoint.port else endpoint.host

    @property
    def certificate_ends(self) -> datetime | None:
        """When the served certificate ends."""
        return self.leaf.not_after if self.leaf else None

    @property
    def staple_ends(self) -> datetime | None:
        """When the staple ends, where there is one that says so."""
        return self.judgement.next_update if self.judgement else None


def readings(result: Result, place: Place) -> tuple[Reading, ...]:
    """Read every endpoint of the result; where nothing was even tried, `place` itself stands for it.

    What was found of all endpoints together is told of each of them.
    """
    if not result.strands:
        name = place.server_name or place.host
        nowhere = Strand(Endpoint(place.host, place.port, name, ""), None, Need.STAPLE, False, ())
        return (_reading(nowhere, (result.verdict, result.cause), result.findings, place.labels),)
    each = [strand_findings(strand) for strand in result.strands]
    single = {_key(found) for own in each for found in own}
    shared = [found for found in result.findings if _key(found) not in single]
    endpoints = {str(strand.endpoint) for strand in result.strands}
    read = []
    for strand, own in zip(result.strands, each, strict=True):
        here = str(strand.endpoint)
        findings = diagnosis.unique(
            (*own, *(one for one in shared if one.subject == here or one.subject not in endpoints))
        )
        ended = (result.verdict, result.cause)
        if len(result.strands) > 1:
            ended = _conclusion(strand, findings)
        read.append(_reading(strand, ended, findings, place.labels))
    return tuple(read)


def _key(found: Finding) -> tuple[Code, str, str]:
    return found.code, found.subject, found.message


def _conclusion(strand: Strand, findings: tuple[Finding, ...]) -> tuple[Verdict, Code | None]:
    verdict = diagnosis.verdict_of(findings, (strand,))
    if verdict is Verdict.VERIFIED and not strand.settled:
        verdict = Verdict.INCONCLUSIVE
    good = verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    return verdict, None if good else diagnosis.cause_of(findings)


def _reading(
    strand: Strand,
    ended: tuple[Verdict, Code | None],
    findings: tuple[Finding, ...],
    labels: Mapping[str, str],
) -> Reading:
    last = strand.last
    listed: list[Json] = [finding_json(one) for one in findings]
    shown: dict[str, Json] = {**endpoint_json(strand), "findings": listed}
    return Reading(
        strand.endpoint,
        str(shown["key_type"] or ""),
        *ended,
        findings,
        (last.observation.protocol if last else None) or "",
        last.leaf if last else None,
        last is not None and last.observation.staple is not None,
        last.judgement if last else None,
        strand.coverage,
        handshakes(strand),
        shown,
        labels,
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """How many endpoints ended how."""

    counts: Mapping[Verdict, int]

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        told = ", ".join(f"{count} {verdict.value}" for verdict, count in self.counts.items() if count)
        return f"{self.total} endpoint{'' if self.total == 1 else 's'}: {told or 'nothing looked at'}"


def summary(verdicts: Iterable[Verdict]) -> Summary:
    """Count, in the order of the published verdicts."""
    counts = dict.fromkeys(Verdict, 0)
    for verdict in verdicts:
        counts[verdict] += 1
    return Summary(counts)
