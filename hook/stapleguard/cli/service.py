"""What the units run: `retry`, `refresh` and `recover`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from stapleguard import trouble
from stapleguard.cli import _budget, _end, _world
from stapleguard.cli.telling import Teller, announce, deliver, tell, well
from stapleguard.diagnosis import Result, unique
from stapleguard.engine.refresh import refresh, withdraw
from stapleguard.engine.run import Budget
from stapleguard.engine.undo import recover
from stapleguard.engine.upkeep import attend, keep_up
from stapleguard.engine.world import World
from stapleguard.freshness import Course
from stapleguard.model import Json, LockBusy, UsageError, Verdict

_LOCK_PATIENCE: Final = 45.0
_LOCK_POLL: Final = 0.1


# --- telling ---------------------------------------------------------------------------------------------


def _teller(world: World) -> Teller:
    return Teller(world.state, world.config, world.clock)


def _unit_is_well(world: World) -> None:
    """End the trouble of the unit that runs us: it came to its end."""
    well(_teller(world), os.environ.get("STAPLEGUARD_UNIT", ""))


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
    if arguments.due:
        # Also without systemd, whose OnFailure= is otherwise the one who tells.
        announce(_teller(world), os.environ.get("STAPLEGUARD_UNIT", "stapleguard retry"))
    else:
        deliver(_teller(world))
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
    deliver(_teller(world))
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
