"""Wall time for validity, monotonic time for budgets; nothing else of the program reads either."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import Protocol


def draw() -> float:
    """Return a number from 0 to below 1 that nobody can guess: whoever fails alike spreads by it."""
    return random.SystemRandom().random()


class Clock(Protocol):
    """What the program asks of time; tests about time bring their own."""

    def now(self) -> datetime:
        """Wall time, timezone-aware UTC: for validity only."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment, unmoved by clock changes: for budgets."""
        ...

    def wait(self, seconds: float) -> None:
        """Let that many seconds pass; none when the number is not positive."""
        ...


class SystemClock:
    """The clock of this host."""

    def now(self) -> datetime:
        """Wall time, timezone-aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Sleep; a signal handler that raises ends it at once."""
        if seconds > 0:
            time.sleep(seconds)
