"""Many things looked at side by side, each alone: one that stalls or breaks costs the others nothing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from stapleguard.diagnosis import Result
from stapleguard.finding import Code, find
from stapleguard.model import Verdict, escape

AT_ONCE: Final = 32
"""How many are looked at side by side; each waits for its peer nearly all of the time."""

T = TypeVar("T")


def each(
    things: Sequence[T], look_at: Callable[[T], Result], at_once: int = AT_ONCE
) -> Iterator[tuple[T, Result]]:
    """Yield everything with its result, whichever comes first; whoever stops listening is not held up."""
    asked: queue.SimpleQueue[T] = queue.SimpleQueue()
    told: queue.Queue[tuple[T, Result]] = queue.Queue(2 * at_once)
    for thing in things:
        asked.put(thing)

    def work() -> None:
        while True:
            try:
                thing = asked.get_nowait()
            except queue.Empty:
                return
            told.put((thing, guarded(thing, look_at)))

    for _ in range(min(at_once, len(things))):
        # Daemons: an interrupted run ends at once, whatever its peers still keep waiting for.
        threading.Thread(target=work, daemon=True).start()
    for _ in things:
        yield told.get()


def guarded(thing: T, look_at: Callable[[T], Result]) -> Result:
    """Look, and turn a bug into a finding of the thing that met it."""
    try:
        return look_at(thing)
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are still to be told of
        return bug(thing, error)


def bug(thing: object, error: Exception) -> Result:
    """Tell of a bug of ours as a finding of the thing that met it."""
    text = f"looking at {escape(str(thing))} failed: {type(error).__name__}: {escape(str(error))}"
    found = find(Code.HOST_INTERNAL, escape(str(thing)), text)
    return Result("check", Verdict.INCONCLUSIVE, found.code, (found,))
