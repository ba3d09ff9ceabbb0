"""A record for the journal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from stapleguard.diagnosis import Result
from stapleguard.host import Delivery, journal_send
from stapleguard.model import Severity, Verdict, escape
from stapleguard.report.objects import rfc3339
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
    what = f"{trouble.verdict}, {trouble.cause}".removesuffix(", ") or _kind(trouble)
    text = f"{trouble.about}: {what}, since {rfc3339(trouble.since)}"
    _say({**_about(trouble), "MESSAGE_ID": ALERT_ID, "MESSAGE": text, "PRIORITY": "2", "FAILED_UNIT": unit})


def over(trouble: Trouble) -> None:
    """Tell the journal that what a person was alerted to is over."""
    text = f"{trouble.about}: over, {trouble.cause or trouble.verdict or trouble.kind}"
    _say({**_about(trouble), "MESSAGE_ID": OVER_ID, "MESSAGE": text, "PRIORITY": "5"})


def _kind(trouble: Trouble) -> str:
    message = trouble.facts.get("message")
    return escape(message) if isinstance(message, str) and message else f"ended with {trouble.kind}"


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
