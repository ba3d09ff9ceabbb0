"""Where servers say what they say: the end of a file, or the journal of their unit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stapleguard import host
from stapleguard.diagnosis.facts import Unseen

_TAIL: Final = 262_144
_LINES: Final = "500"
_JOURNAL_SECONDS: Final = 5.0

Text = tuple[str, tuple[Unseen, ...]]
"""What was read, and what could not be."""


def oldest(pids: Sequence[int]) -> float | None:
    """When the oldest of these processes was started, in seconds since the epoch."""
    return min((at for one in pids if (at := host.started_at(one)) is not None), default=None)


def from_output(kind: str, master: int | None) -> Text:
    """Read what a server writes to its standard error: the journal of its unit, or the file that it is."""
    output = host.output_of(master) if master is not None and host.unit_of(master) is None else None
    return from_file(output) if output is not None else from_syslog(kind, master)


def from_syslog(kind: str, master: int | None) -> Text:
    """Read what a server hands to syslog, where the journal has it."""
    if master is None:
        return "", ()
    unit = host.unit_of(master)
    if unit is not None:
        return from_journal(unit)
    return "", (Unseen(f"{kind}'s log", "it does not go to a file", "the place that its output goes to"),)


def from_file(path: str) -> Text:
    """Read the end of a file."""
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read(_TAIL).decode("utf-8", "replace"), ()
    except OSError as error:
        return "", (Unseen(f"the log {path}", error.strerror or "unreadable", "root, or the group adm"),)


def from_journal(unit: str, since: float | None = None) -> Text:
    """Read the last lines of a unit in the journal."""
    argv = ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", _LINES, "-u", unit]
    done = host.run([*argv, *([f"--since=@{int(since)}"] if since else [])], _JOURNAL_SECONDS)
    if done.status == 0:
        return done.stdout, ()
    return "", (Unseen(f"the journal of {unit}", done.stderr.strip(), "root, or the group systemd-journal"),)
