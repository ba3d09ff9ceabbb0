"""What is deployed, served, pending and failing: the state directory, one handshake each, and the timer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from stapleguard import host
from stapleguard.backoff import Attempts
from stapleguard.diagnosis import Need, Strand
from stapleguard.disk import Generation
from stapleguard.engine.contents import Staple, members, staples
from stapleguard.engine.proof import Target, look_once
from stapleguard.engine.survey import survey
from stapleguard.engine.upkeep import NOTE, host_key, sources_of
from stapleguard.engine.world import World
from stapleguard.freshness import Life
from stapleguard.material import leaf_facts
from stapleguard.model import StapleguardError
from stapleguard.transaction import Record
from stapleguard.units import RETRY_TIMER

_HANDSHAKE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, and how much of it is left."""

    begin: datetime
    end: datetime
    now: datetime

    @property
    def left(self) -> float:
        """From 1 at its beginning to 0 at its end."""
        whole = (self.end - self.begin).total_seconds()
        return min(1.0, max(0.0, (self.end - self.now).total_seconds() / whole)) if whole > 0 else 0.0

    @property
    def seconds(self) -> float:
        """Seconds to its end; negative after it."""
        return (self.end - self.now).total_seconds()


@dataclass(frozen=True, slots=True)
class Row:
    """One lineage. `staple` says where its staple comes from; `staple_life` is known of a file only."""

    name: str
    generation: str
    record: Record | None
    damaged: str = ""
    leaf_sha256: str = ""
    certificate_life: Span | None = None
    staple: str = ""
    staple_life: Span | None = None
    served: tuple[Strand, ...] = ()
    pending: bool = False
    next_at: datetime | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """All of it; `timer` is None without systemd or where the unit is not installed."""

    rows: tuple[Row, ...]
    timer: host.Timer | None


def status(world: World) -> Status:
    """Read every live generation, its record and the queue; look once at each endpoint."""
    pending = world.state.queue()
    noted = world.state.observation(NOTE)
    rows: list[Row] = []
    for name in sorted({*world.state.lineages(), *pending}):
        identity = world.state.live(name)
        attempts = Attempts.from_json(noted.get(name))
        row = Row(
            name,
            identity,
            world.state.record(name),
            pending=name in pending,
            next_at=_next(attempts, noted),
            failures=attempts.failures,
        )
        rows.append(_looked_into(world, row) if identity else row)
    return Status(tuple(rows), host.timer(RETRY_TIMER) if host.booted() else None)


def _next(attempts: Attempts, noted: Mapping[str, object]) -> datetime | None:
    """The lineage's own next moment, or that of a responder that it waits for."""
    all_of_them = (attempts, *(Attempts.from_json(noted.get(host_key(one))) for one in attempts.on))
    return max((one.next_at for one in all_of_them if one.next_at is not None), default=None)


def _looked_into(world: World, row: Row) -> Row:
    now = world.clock.now()
    try:
        generation = world.state.load(row.name, row.generation)
        first, *_ = members(generation)
        staple, staple_life = _staple(first.expected.need, staples(generation, now), now)
    except (StapleguardError, ValueError) as error:
        return replace(row, damaged=str(error))
    return replace(
        row,
        leaf_sha256=first.expected.sha256,
        certificate_life=Span(first.leaf.not_valid_before_utc, first.leaf.not_valid_after_utc, now),
        staple=staple,
        staple_life=staple_life,
        served=_served(world, row.name, generation),
    )


def _staple(need: Need, primed: Sequence[Staple], now: datetime) -> tuple[str, Span | None]:
    """Say where the staple comes from; of several files, the one that ends first."""
    if need is Need.NOT_APPLICABLE:
        return "not applicable", None
    if not primed:
        return "fetched by the server", None
    lives = [
        Life.of(one.judgement.this_update, one.judgement.next_update)
        for one in primed
        if one.judgement.this_update is not None
    ]
    if len(lives) < len(primed):
        return "a file that is no answer", None
    first = min(lives, key=lambda one: one.end)
    return "a file", Span(first.begin, first.end, now)


def _served(world: World, name: str, generation: Generation) -> tuple[Strand, ...]:
    """One handshake with each endpoint; nothing where no server is known or may be looked into."""
    brief = replace(world, config=replace(world.config, handshake_timeout=_HANDSHAKE_SECONDS))
    try:
        held = members(generation)
        names = [name for one in held for name in leaf_facts(one.leaf).names]
        found = survey(brief, name, sources_of(world, name), names)
    except StapleguardError:
        return ()
    if not found.endpoints or not found.running:
        return ()
    return look_once(brief, Target(found.endpoints, tuple(one.expected for one in held)))
