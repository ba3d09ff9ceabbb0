"""The system manager, spoken to by its own commands (systemctl(1))."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from stapleguard.host.commands import Completed, run

_BOOTED: Final = Path("/run/systemd/system")
_SECONDS: Final = 10.0


def booted() -> bool:
    """Whether systemd is PID 1 here (sd_booted(3))."""
    return _BOOTED.is_dir()


def start(unit: str) -> Completed:
    """Enqueue the start of a unit and return at once; the status is not 0 where there is no such unit."""
    return systemctl("start", "--no-block", "--", unit)


def systemctl(*words: str, timeout: float = _SECONDS) -> Completed:
    """Run systemctl, which asks no password and uses no pager."""
    return run(["systemctl", "--no-ask-password", "--no-pager", *words], timeout)


def stays_failed(unit: str) -> bool:
    """Whether a unit that ended badly is left at that; true, too, where systemd cannot tell.

    False for one that is about to be started again (Restart=), or has been by now.
    """
    done = systemctl("show", "--property=LoadState", "--property=ActiveState", "--", unit)
    told = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    return told.get("LoadState") != "loaded" or told.get("ActiveState") == "failed"


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer as systemd has it; `next_at` and `last_at` are UTC, None where there is no such moment."""

    active: bool
    next_at: datetime | None
    last_at: datetime | None


def timer(unit: str) -> Timer | None:
    """Look at a timer; None where systemd does not answer or does not know it."""
    done = systemctl("list-timers", "--all", "--output=json", unit)
    try:
        listed = json.loads(done.stdout)
        told = listed[0] if listed else None
    except (ValueError, IndexError, KeyError):
        return None
    if not isinstance(told, dict):
        return None
    moments = [_moment(told.get(name)) for name in ("next", "last")]
    # While the service runs that it starts, it has no next moment yet and is active all the same.
    return Timer(systemctl("is-active", "--quiet", unit).status == 0, *moments)


def _moment(microseconds: object) -> datetime | None:
    if not isinstance(microseconds, int) or not 0 < microseconds < 1 << 56:
        return None
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
