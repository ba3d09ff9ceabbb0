"""`check --watch`: the same endpoints again and again, on a screen of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.live import Live

from stapleguard.host import Clock
from stapleguard.model import ExitStatus, Interrupted, UsageError
from stapleguard.report.readings import Reading
from stapleguard.report.screen import Round, earlier, screen

Look = Callable[[], Iterator[tuple[int, tuple[Reading, ...]]]]
"""One round: the number of each thing that is looked at, with what its endpoints showed."""
_FRAME: Final = 0.1


def watch(
    look: Look, total: int, seconds: float, clock: Clock, after: Callable[[Sequence[Reading]], None]
) -> int:
    """Go on until a signal; `after` is given what each round saw. The terminal is left as it was."""
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        raise UsageError("--watch needs a terminal", "use --jsonl to follow many endpoints without one")
    now: dict[int, tuple[Reading, ...]] = {}
    before: dict[int, tuple[Reading, ...]] = {}

    def shown(header: str) -> Round:
        rows = [
            (reading, earlier(reading, before.get(number, ())))
            for number, each in sorted(now.items())
            for reading in each
        ]
        return Round(rows, clock.now(), header, console.size.height)

    try:
        with Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live:
            while True:
                begun = frame = clock.monotonic()
                live.update(screen(shown(f"looking at {total}")), refresh=True)
                for done, (number, readings) in enumerate(look(), 1):
                    before[number] = now.get(number, ())
                    now[number] = readings
                    if clock.monotonic() - frame > _FRAME:
                        frame = clock.monotonic()
                        live.update(screen(shown(f"looking at {total}, {done} done")), refresh=True)
                took = clock.monotonic() - begun
                at = f"{clock.now():%H:%M:%S} UTC"
                header = f"{at}, took {took:.1f} s, again in {seconds:g} s, Ctrl-C ends"
                live.update(screen(shown(header)), refresh=True)
                after([reading for _, each in sorted(now.items()) for reading in each])
                clock.wait(seconds)
    except Interrupted:
        return int(ExitStatus.INTERRUPTED)
