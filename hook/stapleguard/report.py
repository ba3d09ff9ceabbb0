"""One result, rendered: text for a person, JSON for a program, a record for the journal."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import IO, Final

from stapleguard.diagnosis import Result, Strand, strand_findings
from stapleguard.finding import Finding
from stapleguard.host import Delivery, journal_send
from stapleguard.model import Json, Severity, Verdict, escape
from stapleguard.trouble import Trouble

MESSAGE_IDS: Final[Mapping[Verdict, str]] = {
    Verdict.VERIFIED: "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e01",
    Verdict.NOT_APPLICABLE: "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e02",
    Verdict.DEGRADED: "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e03",
    Verdict.REFUSED: "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e04",
    Verdict.ROLLED_BACK: "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e05",
    Verdict.STRANDED: "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e06",
    Verdict.INCONCLUSIVE: "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e07",
    Verdict.PENDING: "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e08",
}
FINDING_ID: Final = "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e10"
ALERT_ID: Final = "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e11"
OVER_ID: Final = "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e12"
_PRIORITY: Final = {Severity.CRITICAL: 3, Severity.WARNING: 4, Severity.INFO: 6}
_COLOURS: Final = {"good": "32", "warn": "33", "bad": "31", "dim": "2", "bold": "1", "step": "0"}


def colour(text: str, name: str, stream: IO[str]) -> str:
    """Wrap text in a colour where the stream is a terminal."""
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if stream.isatty() else text


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


def endpoint_json(strand: Strand) -> dict[str, Json]:
    """One endpoint with one key type as the published interface has it."""
    last, coverage = strand.last, strand.coverage
    observation = last.observation if last else None
    judgement = last.judgement if last else None
    failed = sum(1 for one in strand.sightings if one.observation.fault is not None)
    stapled = sum(1 for one in strand.sightings if one.good_staple)
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
        "handshakes": {
            "total": len(strand.sightings),
            "stapled": stapled,
            "unstapled": sum(1 for one in strand.sightings if one.observation.staple is None) - failed,
            "failed": failed,
        },
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


_TONE: Final = {
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
    lines = [_endpoint_line(strand, stream) for strand in result.strands]
    for found in result.findings:
        tone = {"critical": "bad", "warning": "warn", "info": "dim"}[found.severity.value]
        lines.append(f"  {colour(f'{found.severity.value:<8}', tone, stream)} {found.code.value}")
        lines.append(f"           {found.message}")
        if found.severity is not Severity.INFO or found.code.value == "server.not-guarded":
            lines += [f"           {colour(step, 'dim', stream)}" for step in steps(found.remedy)]
    lines.append(f"verdict  {colour(result.verdict.value, _TONE[result.verdict], stream)}")
    if result.cause:
        lines.append(f"cause    {result.cause.value}  (stapleguard explain {result.cause.value})")
    return "\n".join(lines)


def steps(remedy: str) -> list[str]:
    """A remedy as the lines that a person follows one after the other."""
    return [one for one in re.split(r"\s*(?=\(\d\) )", remedy) if one]


def _endpoint_line(strand: Strand, stream: IO[str]) -> str:
    shown, workers = endpoint_json(strand), strand.coverage
    leaf = str(shown["leaf_sha256"] or "nothing")[:12]
    who = (
        f"{workers.seen}/{workers.total} workers" if workers.total else f"{workers.confidence:.0%} confidence"
    )
    judgement = strand.last.judgement if strand.last else None
    staple = "no staple" if judgement is None else f"staple {judgement.acceptance.value}"
    if judgement is not None and judgement.next_update is not None:
        staple += f" until {judgement.next_update:%Y-%m-%d %H:%M} UTC"
    where = colour(str(strand.endpoint), "bold", stream)
    return f"  {where}  {shown['key_type'] or '-'}  leaf {leaf}  {staple}  {who}"


def to_journal(result: Result, run_id: str) -> None:
    """Tell the journal: one canonical record and one for each finding that matters; stderr has had it all.

    structlog renders the record; journald gets its native fields when its socket is there, else lines with
    `<N>` priorities when systemd reads our stderr (sd-daemon(3)), else nothing more is said.
    """
    lineage = str(result.extra.get("lineage") or "")
    common = {"SYSLOG_IDENTIFIER": "stapleguard", "RUN_ID": run_id, "VERDICT": result.verdict.value}
    if lineage:
        common["LINEAGE"] = lineage
    if result.cause:
        common["CAUSE"] = result.cause.value
    quiet = result.verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE, Verdict.PENDING)
    leaves = dict.fromkeys(one.last.leaf.sha256 for one in result.strands if one.last and one.last.leaf)
    endpoints = dict.fromkeys(escape(str(one.endpoint)) for one in result.strands)
    text = f"{lineage or result.command}: {result.verdict.value}" + (
        f", {result.cause.value}" if result.cause else ""
    )
    _say(
        {
            **common,
            "MESSAGE_ID": MESSAGE_IDS[result.verdict],
            "MESSAGE": text,
            "PRIORITY": "5" if quiet else "3",
            "LEAF_SHA256": [*leaves],
            "ENDPOINT": [*endpoints],
        }
    )
    for found in result.findings:
        fields = {
            "MESSAGE_ID": FINDING_ID,
            "MESSAGE": f"{found.code.value}: {escape(found.message)}",
            "PRIORITY": str(_PRIORITY[found.severity]),
            "FINDING": found.code.value,
            "ENDPOINT": escape(found.subject),
        }
        _say({**common, **fields})


def alert(trouble: Trouble, unit: str) -> None:
    """Tell the journal that a person is needed; channels that reach a person take it from there."""
    what = f"{trouble.verdict}, {trouble.cause}".removesuffix(", ") or f"ended with {trouble.kind}"
    text = f"{trouble.about}: {what}, since {rfc3339(trouble.since)}"
    _say({**_about(trouble), "MESSAGE_ID": ALERT_ID, "MESSAGE": text, "PRIORITY": "2", "FAILED_UNIT": unit})


def over(trouble: Trouble) -> None:
    """Tell the journal that what a person was alerted to is over."""
    text = f"{trouble.about}: over, {trouble.cause or trouble.verdict or trouble.kind}"
    _say({**_about(trouble), "MESSAGE_ID": OVER_ID, "MESSAGE": text, "PRIORITY": "5"})


def _about(trouble: Trouble) -> dict[str, str]:
    fields = {"LINEAGE": trouble.about, "VERDICT": trouble.verdict, "CAUSE": trouble.cause}
    known = {name: value for name, value in fields.items() if value and trouble.verdict}
    return {"SYSLOG_IDENTIFIER": "stapleguard", **known}


def _say(fields: Mapping[str, str | Sequence[str]]) -> None:
    if journal_send(fields) is not Delivery.SENT and "JOURNAL_STREAM" in os.environ:
        _prefixed(fields)


def _prefixed(fields: Mapping[str, str | Sequence[str]]) -> None:
    import structlog

    rendered = structlog.processors.JSONRenderer()(None, "info", dict(fields))
    text = rendered if isinstance(rendered, str) else rendered.decode()
    sys.stderr.write(f"<{fields['PRIORITY']}>{text}\n")
