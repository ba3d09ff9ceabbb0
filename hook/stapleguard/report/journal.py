"""A record for the journal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

from stapleguard.diagnosis import Result
from stapleguard.host import Delivery, journal_send
from stapleguard.model import Severity, Verdict, escape

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
    good = result.verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    text = f"{lineage or result.command}: {result.verdict.value}" + (
        f", {result.cause.value}" if result.cause else ""
    )
    _say(
        {
            **common,
            "MESSAGE_ID": MESSAGE_IDS[result.verdict],
            "MESSAGE": text,
            "PRIORITY": "5" if good else "3",
        }
    )
    for found in result.findings:
        fields = {
            "MESSAGE_ID": FINDING_ID,
            "MESSAGE": f"{found.code.value}: {escape(found.message)}",
            "PRIORITY": str(_PRIORITY[found.severity]),
            "FINDING": found.code.value,
            "ENDPOINT": found.subject,
        }
        _say({**common, **fields})


def _say(fields: Mapping[str, str]) -> None:
    if journal_send(fields) is not Delivery.SENT and "JOURNAL_STREAM" in os.environ:
        _prefixed(fields)


def _prefixed(fields: Mapping[str, str]) -> None:
    import structlog

    rendered = structlog.processors.JSONRenderer()(None, "info", dict(fields))
    text = rendered if isinstance(rendered, str) else rendered.decode()
    sys.stderr.write(f"<{fields['PRIORITY']}>{text}\n")
