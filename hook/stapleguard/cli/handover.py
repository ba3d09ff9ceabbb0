"""The hook's way out: one durable queue entry, one start job, and back to the ACME client at once.

certbot holds its lock while a hook runs, hides its output, kills its children and drops its status; so
the work is done by a unit. Nothing heavy is imported here: no TLS, no certificates, no HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Final

from stapleguard import host, units
from stapleguard.cli.arguments import DEFAULT_CONFIG, DEFAULT_STATE
from stapleguard.disk import DiskFault, StateDirectory
from stapleguard.model import escape

HANDED_OVER_ID: Final = "b0a6a3a3f9d44c0e9a1c1f4c7b2f5e13"
"""The MESSAGE_ID of a hand-over; here and not in `report`, which needs the judge to be loaded."""


class Handed(Enum):
    """How far a hand-over came."""

    STARTED = "started"
    """A unit has begun."""
    QUEUED = "queued"
    """It is noted as pending, and no unit could be or was to be started."""
    NOT = "not"
    """The state directory takes nothing; the run itself says what is wrong with the disk."""


def hand_over(arguments: argparse.Namespace, name: str, sources: Sequence[str], client: str) -> Handed:
    """Queue the lineage and have its unit started, where there are units that would do as this call would.

    The entry comes first: killed at any point after it, the timer still finds the work.
    """
    state = StateDirectory(Path(os.path.abspath(arguments.state_dir)))  # noqa: PTH100 - links in it are the user's choice
    try:
        state.prepare()
        state.request(name, {"schema": "stapleguard.queue/1", "sources": [*sources], "client": client})
    except DiskFault:
        return Handed.NOT
    if arguments.wait or not _as_the_unit_would(arguments) or not host.booted():
        return Handed.QUEUED
    unit = units.worker(name)
    started = host.start(unit)
    if started.status != 0:
        why = escape(started.stderr.strip()) or f"systemctl ended with {started.status}"
        sys.stderr.write(f"stapleguard: {unit} cannot be started: {why}\n")
        sys.stderr.write("stapleguard: hint: `stapleguard install` writes the units\n")
        return Handed.QUEUED
    _say(arguments, name, unit, client)
    return Handed.STARTED


def _as_the_unit_would(arguments: argparse.Namespace) -> bool:
    """The unit knows the default places and the configuration only: any other wish is served here."""
    wishes = (
        arguments.timeout,
        arguments.ca_file,
        arguments.sni,
        *arguments.allow_address,
        *arguments.address,
    )
    default = arguments.config in (None, DEFAULT_CONFIG) and arguments.state_dir == DEFAULT_STATE
    return default and not any(wishes)


def _say(arguments: argparse.Namespace, name: str, unit: str, client: str) -> None:
    text = f"{name}: handed over to {unit} (from {client})"
    host.journal_send(
        {
            "SYSLOG_IDENTIFIER": "stapleguard",
            "MESSAGE_ID": HANDED_OVER_ID,
            "MESSAGE": text,
            "PRIORITY": "6",
            "LINEAGE": name,
        }
    )
    if arguments.json:
        document: dict[str, str | int] = {"schema": "stapleguard.hook/1", "verdict": "pending", "exit": 0}
        document |= {"lineage": name, "unit": unit, "client": client}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(f"{text}; the verdict: journalctl -t stapleguard LINEAGE={name}\n")
