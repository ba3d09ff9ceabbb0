"""When the next attempt may be made: saturating, with jitter, never faster than a floor, capped. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from stapleguard.model import Json

_MOST_DOUBLINGS: Final = 40
"""Enough to go from any floor to any cap; 2.0 ** failures would overflow after a thousand."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two attempts at least and at most; a cap below the floor is the floor."""

    floor: float
    cap: float


def gap(failures: int, pace: Pace, draw: float) -> float:
    """Return the seconds to wait after `failures` in a row; `draw` from 0 to 1 spreads those who fail alike.

    The wait doubles from the floor to the cap, and its upper half is left to the draw.
    """
    cap = max(pace.floor, pace.cap)
    whole = min(pace.floor * 2.0 ** min(max(failures, 1) - 1, _MOST_DOUBLINGS), cap)
    spread = whole / 2 + min(max(draw, 0.0), 1.0) * whole / 2
    return min(max(spread, pace.floor), cap)


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often something failed in a row, and when it may be tried again; `on` are the hosts it needs."""

    failures: int = 0
    next_at: datetime | None = None
    on: tuple[str, ...] = ()

    def due(self, now: datetime, cap: float) -> bool:
        """Whether it may be tried. What lies beyond the cap was written under a wrong clock."""
        return self.next_at is None or now >= self.next_at or self.next_at - now > timedelta(seconds=cap * 2)

    def failed(self, now: datetime, pace: Pace, draw: float, on: tuple[str, ...] = ()) -> Attempts:
        """Return what follows one more failure."""
        failures = self.failures + 1
        return Attempts(failures, now + timedelta(seconds=gap(failures, pace, draw)), on)

    @classmethod
    def passed(cls, now: datetime, interval: float, draw: float) -> Attempts:
        """Return what follows a success: the next look after about `interval`, spread by a tenth."""
        return cls(0, now + timedelta(seconds=interval * (0.95 + 0.1 * draw)))

    def to_json(self) -> dict[str, Json]:
        """Return plain data for the state directory."""
        next_at = self.next_at.isoformat(timespec="seconds") if self.next_at else None
        return {"failures": self.failures, "next_at": next_at, "on": self.on}

    @classmethod
    def from_json(cls, data: object) -> Attempts:
        """Read what `to_json` wrote; anything else is due at once, which only costs an attempt."""
        if not isinstance(data, Mapping):
            return cls()
        failures, next_at, on = data.get("failures"), data.get("next_at"), data.get("on")
        try:
            moment = datetime.fromisoformat(next_at) if isinstance(next_at, str) else None
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is None:
            moment = None
        count = failures if isinstance(failures, int) and failures > 0 else 0
        hosts = tuple(one for one in on if isinstance(one, str)) if isinstance(on, list) else ()
        return cls(count, moment, hosts)
