"""What the units run: `retry`, `refresh`, `recover`, `alert unit`; and how a run is told to the journal."""

from __future__ import annotations

import argparse
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from stapleguard import report, trouble
from stapleguard.cli import _budget, _end, _world
from stapleguard.diagnosis import Result, unique
from stapleguard.disk import DiskFault, StateDirectory
from stapleguard.engine.refresh import refresh, withdraw
from stapleguard.engine.run import Budget
from stapleguard.engine.undo import recover
from stapleguard.engine.upkeep import attend, keep_up
from stapleguard.engine.world import World
from stapleguard.freshness import Course
from stapleguard.host import SystemClock
from stapleguard.model import ExitStatus, Json, LockBusy, UsageError, Verdict

TROUBLE: Final = "trouble"
"""The observation that holds what a person was told of."""
_UNIT: Final = "STAPLEGUARD_UNIT"
"""Set by our units, to their name."""
_LOCK_PATIENCE: Final = 45.0
_LOCK_POLL: Final = 0.1
_NO_TROUBLE: Final = frozenset(
    str(int(one)) for one in (ExitStatus.PENDING, ExitStatus.BUSY, ExitStatus.INTERRUPTED)
)
_VERDICTS: Final = frozenset(str(int(one.exit_status)) for one in Verdict) - _NO_TROUBLE
"""Exit statuses after which a run has noted its trouble, unless the disk did not take the note."""


# --- telling ---------------------------------------------------------------------------------------------


def tell(world: World, result: Result) -> None:
    """Tell the journal of one result, and of the end of a trouble that a person knows of."""
    report.to_journal(result, uuid.uuid4().hex)
    lineage = result.extra.get("lineage")
    if not isinstance(lineage, str):
        return
    if _UNIT not in os.environ and result.verdict not in trouble.GOOD:
        return  # whoever runs this by hand has been told; only a unit's failure calls for an alert
    now = world.clock.now()
    with _book(world.state) as book:
        book[0], ended = trouble.after(book[0], lineage, result.verdict, result.cause, now)
    if ended is not None:
        report.over(ended)


@contextmanager
def _book(state: StateDirectory) -> Iterator[list[trouble.Book]]:
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


def _unit_is_well(world: World) -> None:
    """End the trouble of the unit that runs us: it came to its end."""
    unit = os.environ.get(_UNIT, "")
    with _book(world.state) as book:
        known = book[0].get(unit)
        book[0] = trouble.without(book[0], unit)
    if known is not None and known.told:
        report.over(known)


def alert(arguments: argparse.Namespace) -> int:
    """Tell what has not been told yet; a run that ended in a verdict has noted its trouble itself."""
    state = StateDirectory(Path(os.path.abspath(arguments.state_dir)))  # noqa: PTH100 - links in it are the user's choice
    state.prepare()
    unit = os.environ.get("MONITOR_UNIT") or arguments.unit
    ended = os.environ.get("MONITOR_SERVICE_RESULT", "")
    status = os.environ.get("MONITOR_EXIT_STATUS", "")
    with _book(state) as book:
        told_itself = status in _NO_TROUBLE or (status in _VERDICTS and bool(book[0]))
        if ended not in ("", "success") and not (ended == "exit-code" and told_itself):
            kind = f"{ended} {status}".strip()
            book[0] = trouble.crashed(book[0], unit, kind, SystemClock().now())
        book[0], news = trouble.tell(book[0])
    for one in news:
        report.alert(one, unit)
    if arguments.json:
        told: list[Json] = [one.about for one in news]
        report.print_json({"schema": "stapleguard.alert/1", "exit": 0, "told": told})
    return int(ExitStatus.OK)


# --- working ---------------------------------------------------------------------------------------------


@contextmanager
def _held(world: World, patience: float) -> Iterator[None]:
    """Hold the lock; another run is waited for as long as that (16 hooks at once end one after the other)."""
    world.state.prepare()
    deadline = world.clock.monotonic() + patience
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(world.state.lock())
                break
            except LockBusy:
                if world.clock.monotonic() >= deadline:
                    raise
            world.clock.wait(_LOCK_POLL)
        yield


def retry(arguments: argparse.Namespace) -> int:
    """Finish what is pending: all of it, the lineages named, or (the timer) what is due."""
    if arguments.due and arguments.lineage:
        raise UsageError("--due looks after every lineage", "leave out either --due or the names")
    world = _world(arguments)
    budget = _budget(arguments, world)
    with _held(world, _LOCK_PATIENCE if arguments.lineage else 0.0):
        recover(world, budget)
        if arguments.due:
            results = []
            for one in keep_up(world, budget):
                tell(world, one)
                results.append(one)
        else:
            names = arguments.lineage or [*world.state.queue()]
            results = [_until_nothing_new(world, name, budget) for name in dict.fromkeys(names)]
    _unit_is_well(world)
    return _end(arguments, _summary("retry", results, "retried"))


def _until_nothing_new(world: World, name: str, budget: Budget) -> Result:
    """Attend to a lineage until no hook has come meanwhile: its start job merged into this run."""
    while True:
        result = attend(world, name, budget)
        tell(world, result)
        if not world.state.requested(name):
            return result


def refresh_command(arguments: argparse.Namespace) -> int:
    """Renew staple files that are past half their life."""
    world = _world(arguments)
    budget = _budget(arguments, world)
    with _held(world, 0.0):
        recover(world, budget)
        results = refresh(world, budget)
        for one in results:
            tell(world, one)
    return _end(arguments, _summary("refresh", results, "refreshed"))


def recover_command(arguments: argparse.Namespace) -> int:
    """Finish or undo what a crash left, and take away staple files that ended while nobody looked."""
    world = _world(arguments)
    budget = _budget(arguments, world)
    with _held(world, 0.0):
        result = recover(world, budget)
        results = withdraw(world, budget, (Course.WITHDRAW,))
        for one in results:
            tell(world, one)
    _unit_is_well(world)
    if results:
        worst = max((result, *results), key=lambda one: one.status)
        names: list[Json] = [str(one.extra.get("lineage")) for one in results]
        extra = {**result.extra, "withdrawn": names}
        result = replace(worst, command="recover", extra=extra)
    return _end(arguments, result, world)


def withdraw_all(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Take away every staple file: soon nobody is there to renew it. Lineage and verdict of each."""
    world = _world(arguments)
    budget = _budget(arguments, world)
    with _held(world, _LOCK_PATIENCE):
        recover(world, budget)
        results = withdraw(world, budget, tuple(Course))
        for one in results:
            tell(world, one)
    return [(str(one.extra.get("lineage")), one.verdict.value) for one in results]


def _summary(command: str, results: Sequence[Result], key: str) -> Result:
    """Make one result of several: the worst one's, with a line for each."""
    each: list[Json] = [
        {
            "lineage": str(one.extra.get("lineage") or ""),
            "verdict": one.verdict.value,
            "cause": one.cause.value if one.cause else None,
            "exit": int(one.status),
        }
        for one in results
    ]
    if not results:
        return Result(command, Verdict.VERIFIED, extra={key: each})
    worst = max(results, key=lambda one: (one.verdict is not Verdict.PENDING, one.status))
    if worst.verdict in trouble.GOOD:
        worst = max(results, key=lambda one: one.status)  # nothing bad: what is pending is the news
    findings = unique(found for one in results for found in one.findings)
    strands = tuple(strand for one in results for strand in one.strands)
    extra = {**worst.extra, key: each}
    return replace(worst, command=command, findings=findings, strands=strands, extra=extra)
