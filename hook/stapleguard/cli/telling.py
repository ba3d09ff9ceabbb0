"""Who is told of a trouble, and when: the journal at once, every channel by its queue or its state.

A run notes its troubles (`tell`); `announce` says what is new, what lasts and what is over, and sends what
waits. A channel that does not take its messages is a trouble like any other, told through the others; it
never changes a verdict.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from stapleguard import alerts, host, notice, report, trouble
from stapleguard.alerts import STATE, Sent, alertmanager
from stapleguard.alerts.outbox import Outbox
from stapleguard.backoff import Attempts, Pace
from stapleguard.channels import Channel
from stapleguard.config import Config
from stapleguard.diagnosis import Result
from stapleguard.disk import DiskFault, StateDirectory
from stapleguard.engine.world import World
from stapleguard.host import Clock
from stapleguard.model import Json, StapleguardError
from stapleguard.notice import CHANNEL, Event
from stapleguard.trouble import Trouble

TROUBLE: Final = "trouble"
"""The observation that holds what a person was told of."""
_UNIT: Final = "STAPLEGUARD_UNIT"
"""Set by our units, to their name."""
CHANNELS: Final = "channels"
"""The observation that holds how each channel is, and what it believes to be the matter."""
_PACE: Final = Pace(60.0, 900.0)
_UNDELIVERED: Final = "undelivered messages"
_PATIENCE: Final = 3
"""Reports of the state in a row that may get lost before it is a trouble: the next one makes it good."""


@dataclass(frozen=True, slots=True)
class Teller:
    """Everything that telling needs."""

    state: StateDirectory
    config: Config
    clock: Clock

    @property
    def host(self) -> str:
        """What messages call this host."""
        return self.config.alert_host or os.uname().nodename

    @property
    def outbox(self) -> Outbox:
        """Where messages wait."""
        return Outbox(self.state)

    def queue(self, event: Event, one: Trouble) -> None:
        """Let a message wait for every channel that is told of changes, but for the one it is about."""
        message = notice.of_trouble(one, event, self.host, self.clock.now())
        for channel in self.config.channels.values():
            if channel.kind in STATE or one.about == CHANNEL + channel.name:
                continue
            try:
                self.outbox.put(channel.name, message, one.told)
            except (DiskFault, OSError):  # a full disk is no reason to be silent
                alerts.send(channel, message, os.environ)


@contextmanager
def book(state: StateDirectory) -> Iterator[list[trouble.Book]]:
    """Lend the one book of troubles to be replaced; what cannot be written is told again another time."""
    lent: list[trouble.Book] = [{}]
    if not (state.root / "observations").is_dir():
        yield lent
        return
    with ExitStack() as held:
        with suppress(DiskFault):
            held.enter_context(state.noting())
        lent[0] = trouble.from_json(state.observation(TROUBLE))
        yield lent
        with suppress(DiskFault):
            state.observe(TROUBLE, trouble.to_json(lent[0]))


def tell(world: World, result: Result) -> None:
    """Tell the journal of one result, and note its trouble or the end of one that a person knows of."""
    report.to_journal(result, uuid.uuid4().hex)
    lineage = result.extra.get("lineage")
    if not isinstance(lineage, str):
        return
    if _UNIT not in os.environ and result.verdict not in trouble.GOOD:
        return  # whoever runs this by hand has been told; only a unit's failure calls for an alert
    now = world.clock.now()
    facts = notice.facts_of(result, _live_until(world.state, lineage))
    with book(world.state) as lent:
        after, ended = trouble.after(lent[0], lineage, result.verdict, result.cause, now, facts)
        if ended is not None:
            report.over(ended)
            # Before the book forgets it: a crash in between says it twice under one name, not never.
            Teller(world.state, world.config, world.clock).queue(Event.RECOVERED, ended)
        lent[0] = after


def _live_until(state: StateDirectory, lineage: str) -> datetime | None:
    try:
        text = state.load(lineage, state.live(lineage)).manifest.get("not_after")
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except (StapleguardError, ValueError):
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def well(teller: Teller, about: str) -> bool:
    """End the trouble of a unit or a channel; whether a person had been told of one."""
    with book(teller.state) as lent:
        known = lent[0].get(about)
        ended = known if known is not None and known.told else None
        if ended is not None:
            report.over(ended)
            teller.queue(Event.RECOVERED, ended)
        lent[0] = trouble.without(lent[0], about)
    return ended is not None


def announce(teller: Teller, unit: str) -> tuple[Trouble, ...]:
    """Say what has not been told, remind of what lasts, and deliver; return the news."""
    news = _news(teller, unit)
    deliver(teller)
    fallen = _news(teller, unit)  # a channel that has just failed is told through the others
    if fallen:
        deliver(teller)
    return (*news, *fallen)


def _news(teller: Teller, unit: str) -> tuple[Trouble, ...]:
    now = teller.clock.now()
    with book(teller.state) as lent:
        told, news = trouble.tell(lent[0], now)
        told, again = trouble.remind(told, now, teller.config.alert_repeat)
        for one in news:
            report.alert(one, unit)
            teller.queue(Event.TROUBLE, one)
        for one in again:
            teller.queue(Event.REMINDER, one)
        lent[0] = told
    return news


def deliver(teller: Teller) -> None:
    """Send what waits; once more where a channel works again, which the others are told."""
    if _deliver(teller):
        _deliver(teller)


def _deliver(teller: Teller) -> bool:
    """Send through each channel whose time has come, at once: a stalled one delays no other.

    Whether a channel works again.
    """
    channels = teller.config.channels
    if not channels or not (teller.state.root / "observations").is_dir():
        return False
    with teller.outbox.alone() as mine:
        if not mine:
            return False  # whoever is sending finds it, or the next run of the timer
        teller.outbox.prune(channels, teller.clock.now())
        noted = teller.state.observation(CHANNELS)
        due = [
            one
            for one in channels.values()
            if _memory(noted, one).attempts.due(teller.clock.now(), _PACE.cap)
        ]
        with ThreadPoolExecutor(max_workers=max(1, len(due))) as pool:
            ended = [*pool.map(lambda one: _through(teller, one, _memory(noted, one)), due)]
        memories = {name: one for name, one in noted.items() if name in channels}
        memories |= {one.name: memory.to_json() for one, (_, memory) in zip(due, ended, strict=True)}
        with suppress(DiskFault):
            teller.state.observe(CHANNELS, memories)
    notes = [
        _note(teller, channel, sent, memory)
        for channel, (sent, memory) in zip(due, ended, strict=True)
        if sent is not None
    ]
    return any(notes)


@dataclass(frozen=True, slots=True)
class _Memory:
    """What is known of a channel; `active` are the labels that Alertmanager was last told of."""

    attempts: Attempts
    active: Sequence[Mapping[str, Json]] = ()

    def to_json(self) -> Json:
        return {"attempts": self.attempts.to_json(), "active": [{**one} for one in self.active]}


def _memory(noted: Mapping[str, Json], channel: Channel) -> _Memory:
    known = noted.get(channel.name)
    if not isinstance(known, dict):
        return _Memory(Attempts())
    active = known.get("active")
    labels = [one for one in active if isinstance(one, dict)] if isinstance(active, list) else []
    return _Memory(Attempts.from_json(known.get("attempts")), labels)


def _through(teller: Teller, channel: Channel, memory: _Memory) -> tuple[Sent | None, _Memory]:
    now = teller.clock.now()
    if channel.kind in STATE:
        current = _current(teller, channel, now)
        labels = [alertmanager.labels(one) for one in current]
        over = [one for one in memory.active if one not in labels]
        sent: Sent | None = alerts.report_state(channel, current, over, now, os.environ)
    else:
        labels = []
        sent = teller.outbox.drain(channel, lambda to, one: alerts.send(to, one, os.environ))
    if sent is None:
        return None, memory
    if sent.taken:
        return sent, _Memory(Attempts(), labels)
    return sent, replace(memory, attempts=memory.attempts.failed(now, _PACE, host.draw()))


def _current(teller: Teller, channel: Channel, now: datetime) -> list[notice.Notice]:
    """Every trouble that a person has been told of, but for the channel's own."""
    troubles = trouble.from_json(teller.state.observation(TROUBLE)).values()
    told = [one for one in troubles if one.told and one.about != CHANNEL + channel.name]
    return [notice.of_trouble(one, Event.TROUBLE, teller.host, now) for one in told]


def _note(teller: Teller, channel: Channel, sent: Sent, memory: _Memory) -> bool:
    """Let the book know how a channel is; whether it works again."""
    about = CHANNEL + channel.name
    if sent.taken:
        return well(teller, about)
    if memory.attempts.failures >= (_PATIENCE if channel.kind in STATE else 1):
        facts: dict[str, Json] = {
            "message": f"The channel {channel.name} ({channel.kind.value}) takes no messages: {sent.problem}",
            "remedy": ["Try it: stapleguard alert test", "What waits is sent when it works again."],
        }
        with book(teller.state) as lent:
            lent[0] = trouble.crashed(lent[0], about, _UNDELIVERED, teller.clock.now(), facts)
    return False
