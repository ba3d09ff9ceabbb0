"""Metrics in the text format of Prometheus: one gauge for each fact of each endpoint.

The names mirror those of ssl_exporter with our prefix and the units of OpenMetrics: `ssl_cert_not_after` is
`stapleguard_cert_not_after_timestamp_seconds`. `FAMILIES` is the single table, which the reference page is
made from. No sample has a time of its own: node_exporter refuses a file with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from stapleguard.model import CertStatus, LeafFacts, Verdict, escape
from stapleguard.ocsp import Acceptance
from stapleguard.report.readings import Reading

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

DURATION: Final = "stapleguard_probe_duration_seconds"
COMMON: Final = ("host", "port", "address", "server_name", "key_type")
"""The labels of every sample; those of the inventory come on top."""
MAX_LABELS: Final = 16
MAX_VALUE: Final = 256
_STATUS: Final = {CertStatus.GOOD: 0, CertStatus.REVOKED: 1, CertStatus.UNKNOWN: 2}
_CERTIFICATE: Final = ("serial_no", "issuer_cn", "cn", "dnsnames")
_COMMON_NAME: Final = re.compile(r"(?:^|[,+])CN=((?:\\.|[^,+\\])*)")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its further labels, its help text, and the name that ssl_exporter has for it."""

    about: str
    labels: tuple[str, ...] = ()
    mirrors: str = ""


FAMILIES: Final[Mapping[str, Family]] = {
    "stapleguard_probe_success": Family(
        "Whether the verdict is verified or not-applicable.", mirrors="ssl_probe_success"
    ),
    "stapleguard_verdict_info": Family(
        "1 for the verdict and its cause (none where there is no cause).", ("verdict", "cause")
    ),
    "stapleguard_finding_info": Family("1 for each finding.", ("code", "severity")),
    "stapleguard_cert_not_before_timestamp_seconds": Family(
        "When the served certificate begins.", _CERTIFICATE, "ssl_cert_not_before"
    ),
    "stapleguard_cert_not_after_timestamp_seconds": Family(
        "When the served certificate ends.", _CERTIFICATE, "ssl_cert_not_after"
    ),
    "stapleguard_cert_must_staple": Family("Whether the served certificate is must-staple (RFC 7633)."),
    "stapleguard_ocsp_response_stapled": Family(
        "Whether a staple came with the certificate.", mirrors="ssl_ocsp_response_stapled"
    ),
    "stapleguard_ocsp_response_acceptable": Family(
        "Whether the staple passes every rule of the judge; absent without a staple."
    ),
    "stapleguard_ocsp_response_status": Family(
        "What the staple claims: 0 good, 1 revoked, 2 unknown; absent where it claims nothing.",
        mirrors="ssl_ocsp_response_status",
    ),
    "stapleguard_ocsp_response_this_update_timestamp_seconds": Family(
        "thisUpdate of the staple.", mirrors="ssl_ocsp_response_this_update"
    ),
    "stapleguard_ocsp_response_next_update_timestamp_seconds": Family(
        "nextUpdate of the staple.", mirrors="ssl_ocsp_response_next_update"
    ),
    "stapleguard_ocsp_response_produced_at_timestamp_seconds": Family(
        "producedAt of the staple.", mirrors="ssl_ocsp_response_produced_at"
    ),
    "stapleguard_tls_version_info": Family(
        "1 for the TLS version of the last handshake.", ("version",), "ssl_tls_version_info"
    ),
    "stapleguard_handshakes": Family("How many handshakes of this look ended how.", ("outcome",)),
    "stapleguard_workers": Family("How many workers serve, where this host can tell."),
    "stapleguard_workers_seen": Family("How many of them were met, where this host can tell."),
    "stapleguard_workers_stapled": Family("How many of those sent a good staple."),
    "stapleguard_workers_confidence_ratio": Family("How sure it is that every worker was met."),
    DURATION: Family("How long the look took; of `/probe` only, without the common labels."),
}

_Samples = Iterator[tuple[str, Mapping[str, str], float]]


def exposition(readings: Sequence[Reading], seconds: float | None = None) -> bytes:
    """Render the metrics of these endpoints, and how long it took; a family without a sample is left out."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Readings(readings, seconds))
    return generate_latest(registry)


class _Readings:
    def __init__(self, readings: Sequence[Reading], seconds: float | None) -> None:
        self.readings = readings
        self.seconds = seconds

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.metrics_core import Metric

        families = {name: Metric(name, family.about, "gauge") for name, family in FAMILIES.items()}
        seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        for reading in self.readings:
            common = _common(reading)
            for name, more, value in _samples(reading):
                labels = {**common, **{key: escape(text, MAX_VALUE) for key, text in more.items()}}
                key = (name, frozenset(labels.items()))
                if key not in seen:  # a series that stands there twice makes node_exporter refuse the file
                    seen.add(key)
                    families[name].add_sample(name, labels, value)
        if self.seconds is not None:
            families[DURATION].add_sample(DURATION, {}, self.seconds)
        return [one for one in families.values() if one.samples]


def _common(reading: Reading) -> dict[str, str]:
    endpoint = reading.endpoint
    values = (endpoint.host, str(endpoint.port), endpoint.address, endpoint.server_name, reading.key_type)
    ours = {label for family in FAMILIES.values() for label in family.labels} | set(COMMON)
    own = [(name, text) for name, text in sorted(reading.labels.items()) if name not in ours]
    return {
        name: escape(text, MAX_VALUE) for name, text in (*zip(COMMON, values, strict=True), *own[:MAX_LABELS])
    }


def _samples(reading: Reading) -> _Samples:
    cause = reading.cause.value if reading.cause else "none"
    good = reading.verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    yield "stapleguard_probe_success", {}, float(good)
    yield "stapleguard_verdict_info", {"verdict": reading.verdict.value, "cause": cause}, 1.0
    for found in reading.findings:
        labels = {"code": found.code.value, "severity": found.severity.value}
        yield "stapleguard_finding_info", labels, 1.0
    for outcome, count in reading.handshakes.items():
        if outcome != "total":
            yield "stapleguard_handshakes", {"outcome": outcome}, float(count)
    if reading.leaf is not None:
        labels = _certificate(reading.leaf)
        yield "stapleguard_cert_not_before_timestamp_seconds", labels, reading.leaf.not_before.timestamp()
        yield "stapleguard_cert_not_after_timestamp_seconds", labels, reading.leaf.not_after.timestamp()
        yield "stapleguard_cert_must_staple", {}, float(reading.leaf.must_staple)
        yield "stapleguard_tls_version_info", {"version": reading.protocol}, 1.0
        yield "stapleguard_ocsp_response_stapled", {}, float(reading.stapled)
        yield from _workers(reading)
    yield from _staple(reading)


def _workers(reading: Reading) -> _Samples:
    workers = reading.workers
    if workers.total is not None:
        yield "stapleguard_workers", {}, float(workers.total)
        yield "stapleguard_workers_seen", {}, float(workers.seen)
        yield "stapleguard_workers_stapled", {}, float(workers.stapled)
    yield "stapleguard_workers_confidence_ratio", {}, workers.confidence


def _staple(reading: Reading) -> _Samples:
    judgement = reading.judgement
    if judgement is None:
        return
    prefix = "stapleguard_ocsp_response_"
    yield f"{prefix}acceptable", {}, float(judgement.acceptance is Acceptance.ACCEPTED)
    if judgement.status is not None:
        yield f"{prefix}status", {}, float(_STATUS[judgement.status])
    times: tuple[tuple[str, datetime | None], ...] = (
        ("this_update", judgement.this_update),
        ("next_update", judgement.next_update),
        ("produced_at", judgement.produced_at),
    )
    for name, moment in times:
        if moment is not None:
            yield f"{prefix}{name}_timestamp_seconds", {}, moment.timestamp()


def _certificate(leaf: LeafFacts) -> dict[str, str]:
    return {
        "serial_no": str(leaf.serial),
        "issuer_cn": _common_name(leaf.issuer),
        "cn": _common_name(leaf.subject),
        "dnsnames": f",{','.join(leaf.names)}," if leaf.names else "",
    }


def _common_name(name: str) -> str:
    """Return the common name of a name in the form of RFC 4514."""
    match = _COMMON_NAME.search(name)
    return re.sub(r"\\(.)", r"\1", match[1]) if match else ""
