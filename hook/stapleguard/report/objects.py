"""JSON as the published interface has it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import datetime

from stapleguard.diagnosis import Result, Strand, strand_findings
from stapleguard.finding import Finding
from stapleguard.model import Json


def rfc3339(moment: datetime | None) -> str | None:
    """Write a UTC time as the published interface has it (RFC 3339)."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else None


def finding_json(found: Finding) -> dict[str, Json]:
    """One finding as the published interface has it."""
    return {
        "code": found.code.value,
        "severity": found.severity.value,
        "subject": found.subject,
        "message": found.message,
        "remedy": found.remedy,
        "evidence": dict(found.evidence),
    }


def handshakes(strand: Strand) -> dict[str, int]:
    """Count the handshakes of one endpoint by their outcome."""
    failed = sum(1 for one in strand.sightings if one.observation.fault is not None)
    return {
        "total": len(strand.sightings),
        "stapled": sum(1 for one in strand.sightings if one.good_staple),
        "unstapled": sum(1 for one in strand.sightings if one.observation.staple is None) - failed,
        "failed": failed,
    }


def endpoint_json(strand: Strand) -> dict[str, Json]:
    """One endpoint with one key type as the published interface has it."""
    last, coverage = strand.last, strand.coverage
    observation = last.observation if last else None
    judgement = last.judgement if last else None
    key_type = strand.key_type or (last.leaf.key_type if last and last.leaf else None)
    return {
        "host": strand.endpoint.host,
        "port": strand.endpoint.port,
        "address": strand.endpoint.address,
        "server_name": strand.endpoint.server_name,
        "protocol": observation.protocol if observation else None,
        "key_type": key_type.value if key_type else None,
        "leaf_sha256": last.leaf.sha256 if last and last.leaf else None,
        "chain_sha256": [_sha256(one) for one in observation.chain] if observation else [],
        "workers": {
            "seen": coverage.seen,
            "stapled": coverage.stapled,
            "total": coverage.total,
            "method": coverage.method.value,
            "confidence": round(coverage.confidence, 4),
        },
        "handshakes": handshakes(strand),
        "staple": None
        if judgement is None
        else {
            "status": judgement.status.value if judgement.status else None,
            "verdict": judgement.acceptance.value,
            "this_update": rfc3339(judgement.this_update),
            "next_update": rfc3339(judgement.next_update),
            "produced_at": rfc3339(judgement.produced_at),
            "responder": judgement.responder,
            "sha256": judgement.sha256,
        },
        "findings": [finding_json(one) for one in strand_findings(strand)],
    }


def _sha256(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def as_json(result: Result) -> dict[str, Json]:
    """The whole result as the published interface has it."""
    return {
        "schema": f"stapleguard.{result.command}/1",
        "verdict": result.verdict.value,
        "exit": result.status,
        "cause": result.cause.value if result.cause else None,
        "findings": [finding_json(one) for one in result.findings],
        "endpoints": [endpoint_json(one) for one in result.strands],
        **result.extra,
    }


def print_json(value: Mapping[str, Json]) -> None:
    """One object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
