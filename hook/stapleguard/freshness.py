"""The life of a staple file: when it is renewed, when failing is an alarm, when it must go. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

_WITHOUT_END: Final = timedelta(hours=12)
"""What is taken for the life of an answer without nextUpdate: from then on the judge warns of it."""


class Course(Enum):
    """What is done about a staple file now."""

    KEEP = "keep"
    """It is young enough."""
    RENEW = "renew"
    """Ask the responder; the file stays whatever comes."""
    ALARM = "alarm"
    """Ask, and tell a person when nothing comes: there is still time to act."""
    WITHDRAW = "withdraw"
    """Ask, and take the file away when nothing comes: the server fetches for itself (promise I11)."""


@dataclass(frozen=True, slots=True)
class Life:
    """From thisUpdate to nextUpdate."""

    begin: datetime
    end: datetime

    @classmethod
    def of(cls, this_update: datetime, next_update: datetime | None) -> Life:
        """Return the life of an answer with these times."""
        return cls(this_update, next_update or this_update + _WITHOUT_END)

    @property
    def length(self) -> timedelta:
        """How long it is valid in all."""
        return max(self.end - self.begin, timedelta(seconds=1))

    def renewal(self, draw: float) -> datetime:
        """Half of its life, and up to a tenth more so that not all ask at the same moment."""
        return self.begin + self.length / 2 + self.length / 10 * min(max(draw, 0.0), 1.0)

    def course(self, now: datetime, draw: float, margin: float) -> Course:
        """Decide; `margin` is in seconds before the end, at most an eighth of the life."""
        if now >= self.end - min(timedelta(seconds=margin), self.length / 8):
            return Course.WITHDRAW
        if now >= self.end - self.length / 4:
            return Course.ALARM
        return Course.RENEW if now >= self.renewal(draw) else Course.KEEP


def draw_of(*texts: str) -> float:
    """Return a number from 0 to below 1 that is always the same for these texts: spread without memory."""
    digest = hashlib.sha256("\0".join(texts).encode()).digest()
    return int.from_bytes(digest[:6]) / (1 << 48)
