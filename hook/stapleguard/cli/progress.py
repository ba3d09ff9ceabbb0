"""A progress bar for work that takes over a second, on a terminal; nothing otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE: Final = 1.0


class _Bar:
    """The timer starts it from its own thread: the work itself may be waiting for a peer by then."""

    def __init__(self, total: int, stream: IO[str]) -> None:
        self.total = total
        self.stream = stream
        self.done = 0
        self.closed = False
        self.shown: Progress | None = None
        self.lock = threading.Lock()

    def show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        with self.lock:
            if self.closed:
                return
            columns = (TextColumn("endpoints"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            # Results go on to stdout: rich must not take them to stderr, where the bar is.
            console = Console(file=self.stream)
            self.shown = Progress(*columns, console=console, transient=True, redirect_stdout=False)
            self.shown.add_task("", total=self.total, completed=self.done)
            self.shown.start()

    def advance(self) -> None:
        with self.lock:
            self.done += 1
            if self.shown is not None:
                self.shown.advance(self.shown.task_ids[0])

    def close(self) -> None:
        with self.lock:
            self.closed = True
            if self.shown is not None:
                self.shown.stop()


@contextmanager
def bar(total: int, stream: IO[str]) -> Iterator[Callable[[], None]]:
    """Yield what is to be called for each one that is done; the bar is gone at the end."""
    made = _Bar(total, stream)
    timer = threading.Timer(_PATIENCE, made.show)
    timer.daemon = True
    timer.start()
    try:
        yield made.advance
    finally:
        timer.cancel()
        made.close()
