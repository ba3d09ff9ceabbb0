"""Messages that wait for their channel: one durable file each, in order, until it is taken or too old.

What is put in twice is there once: the file's name is made from what the message is about, so a run that
crashed between its queue and its notes tells nothing twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from stapleguard.alerts import Sent
from stapleguard.channels import Channel
from stapleguard.disk import StateDirectory, replace_file
from stapleguard.notice import Event, Notice, as_json, from_json

_OLDEST: Final = timedelta(days=7)
_AT_ONCE: Final = 20
_MOST: Final = 200
"""Messages that wait for one channel; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One message and the file that it waits in."""

    path: Path
    channel: str
    notice: Notice


class Outbox:
    """`outbox/` of the state directory."""

    def __init__(self, state: StateDirectory) -> None:
        self.folder = state.root / "outbox"

    def put(self, channel: str, notice: Notice, before: datetime | None = None) -> None:
        """Let a message wait; `before` is when the same was last told, which tells reminders apart."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        words = (notice.event.value, notice.key, notice.verdict, notice.kind, f"{notice.since}", f"{before}")
        digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:24]
        target = self.folder / f"{channel}.{digest}.json"
        if not target.exists():
            replace_file(target, json.dumps(as_json(notice)).encode())

    def waiting(self, channel: str = "") -> list[Waiting]:
        """Return what waits for a channel or for all, oldest first; what cannot be read is removed."""
        found: list[tuple[int, bool, Waiting]] = []
        for path in self.folder.glob(f"{channel or '*'}.*.json"):
            if path.name.startswith("."):
                continue
            with suppress(OSError, ValueError):
                data = json.loads(path.read_bytes())
                notice = from_json(data) if isinstance(data, dict) else None
                if notice is not None:
                    one = Waiting(path, path.name.partition(".")[0], notice)
                    found.append((path.stat().st_mtime_ns, notice.event is Event.RECOVERED, one))
                    continue
            path.unlink(missing_ok=True)
        return [one for _, _, one in sorted(found, key=lambda each: (each[0], each[1], each[2].path.name))]

    def prune(self, channels: Mapping[str, Channel], now: datetime) -> list[Waiting]:
        """Remove what is too old, too much, or of a channel that is gone; return it."""
        kept: dict[str, int] = {}
        gone: list[Waiting] = []
        for one in reversed(self.waiting()):
            kept[one.channel] = kept.get(one.channel, 0) + 1
            old = now - one.notice.at > _OLDEST or kept[one.channel] > _MOST
            if old or one.channel not in channels:
                one.path.unlink(missing_ok=True)
                gone.append(one)
        return gone

    def drain(self, channel: Channel, send: Callable[[Channel, Notice], Sent]) -> Sent | None:
        """Send what waits for a channel, in order, until one is not taken; None when nothing waited."""
        last: Sent | None = None
        for one in self.waiting(channel.name)[:_AT_ONCE]:
            last = send(channel, one.notice)
            if not last.taken:
                break
            one.path.unlink(missing_ok=True)
        return last

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else is sending meanwhile."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(
            self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)
