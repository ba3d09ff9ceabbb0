"""One result, rendered: text for a person, JSON for a program, a record for the journal.

Many results are read in short (`readings`) and shown as text and NDJSON (`fleet`), on a screen (`screen`), as
the one line of a monitoring plugin (`nagios`) or as `metrics`; each is imported by whoever needs it.
"""

from __future__ import annotations

from stapleguard.report.journal import ALERT_ID, FINDING_ID, MESSAGE_IDS, OVER_ID, alert, over, to_journal
from stapleguard.report.objects import as_json, endpoint_json, finding_json, print_json, rfc3339
from stapleguard.report.text import as_text, colour, steps

__all__ = [
    "ALERT_ID",
    "FINDING_ID",
    "MESSAGE_IDS",
    "OVER_ID",
    "alert",
    "as_json",
    "as_text",
    "colour",
    "endpoint_json",
    "finding_json",
    "over",
    "print_json",
    "rfc3339",
    "steps",
    "to_journal",
]
