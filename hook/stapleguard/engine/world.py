"""The world that an engine works in: clock, configuration, state directory, anchors, and a listener."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from stapleguard.config import Config
from stapleguard.disk import StateDirectory
from stapleguard.host import Clock
from stapleguard.model import Endpoint
from stapleguard.wire.policy import FetchPolicy
from stapleguard.wire.trust import Anchors


class Tone(Enum):
    """What a step means to the one who watches."""

    STEP = "step"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the timeline: `seconds` since the run began on the monotonic clock."""

    seconds: float
    tone: Tone
    text: str


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Where a person wants a lineage looked at instead of everywhere; empty means what was found."""

    server_name: str = ""
    addresses: tuple[str, ...] = ()

    def apply(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """Return the endpoints that are left, at the addresses wanted and asked for the name wanted."""
        kept = [*endpoints]
        if self.addresses:
            kept = [replace(one, address=address) for address in self.addresses for one in endpoints]
        if self.server_name:
            kept = [replace(one, server_name=self.server_name) for one in kept]
        return tuple(dict.fromkeys(kept))


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is not a decision."""

    clock: Clock
    config: Config
    state: StateDirectory
    anchors: Anchors
    listener: Callable[[Step], None]
    begun: float
    narrowed: Narrowed = Narrowed()

    def say(self, text: str, tone: Tone = Tone.STEP) -> None:
        """Tell the listener what happens now."""
        self.listener(Step(self.clock.monotonic() - self.begun, tone, text))

    @property
    def fetch_policy(self) -> FetchPolicy:
        """How responders and AIA hosts may be spoken to."""
        return FetchPolicy(self.config.fetch_timeout, self.config.allow_addresses, self.config.proxy)
