"""Going back on purpose, and healing what a crash left."""

from __future__ import annotations

from dataclasses import replace

from stapleguard import diagnosis, transaction
from stapleguard.diagnosis import Result
from stapleguard.disk import BrokenGeneration
from stapleguard.engine.acts import run_from
from stapleguard.engine.previous import revive
from stapleguard.engine.run import Budget, Run
from stapleguard.engine.survey import survey
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, find
from stapleguard.model import UsageError, Verdict
from stapleguard.transaction import Record, State


def rollback(world: World, name: str, budget: Budget) -> Result:
    """Put the newest good generation before the live one back, reload, prove it (promise I5)."""
    live = world.state.live(name)
    if not live:
        raise UsageError(f"{name} has no live generation", "run `stapleguard status` to see what is deployed")
    older = [one for one in world.state.identities(name) if one < live]
    found = survey(world, name, (), ())
    for identity in reversed(older):
        revival = revive(world, name, identity, found)
        wanted = frozenset({Code.SERVED_TLS_FAILURE})
        reason = diagnosis.undo(
            (find(Code.SERVED_TLS_FAILURE, name, "asked for"),),
            revival.previous,
            wanted=wanted,
            now=world.clock.now(),
        )
        if reason is not diagnosis.Undo.HELPS:
            world.say(f"not {identity}: {reason.value}", Tone.WARN)
            continue
        record = Record(name, State.WITHDRAW, live, identity, world.clock.now().isoformat(timespec="seconds"))
        run = Run(world, name, budget, (), found, record, revival=revival)
        return replace(run_from(run), command="rollback")
    text = f"{name} has no earlier generation that is fit to go back to"
    fault = find(Code.MATERIAL_EXPIRED, name, text)
    return Result("rollback", Verdict.REFUSED, fault.code, (fault,), (), {"lineage": name})


def recover(world: World, budget: Budget) -> Result:
    """Finish or undo every open transaction; nothing is written when there is none."""
    results: list[Result] = []
    for record in world.state.records():
        if record.state is State.SEALED:
            continue
        resumed = replace(record, state=transaction.recover(record.state))
        world.say(
            f"{record.lineage} was left in the middle of `{record.state.value}`: {resumed.state.value}",
            Tone.WARN,
        )
        results.append(_finish(world, resumed, budget))
    if not results:
        return Result("recover", Verdict.VERIFIED, None, (), (), {"recovered": []})
    worst = max(results, key=lambda one: one.status)
    names = [str(one.extra.get("lineage", "")) for one in results]
    findings = tuple(found for one in results for found in one.findings)
    return Result("recover", worst.verdict, worst.cause, findings, worst.strands, {"recovered": names})


def _finish(world: World, record: Record, budget: Budget) -> Result:
    name = record.lineage
    found = survey(world, name, (), ())
    candidate = revive(world, name, record.candidate, found)
    run = Run(world, name, budget, (), found, record, revival=revive(world, name, record.previous, found))
    run.target_override = candidate.target
    if candidate.previous is None and record.state in (State.PUBLISH, State.CHECK):
        # Only a complete generation is ever finished; this one never was, or was damaged since.
        run.record = replace(record, state=State.UNPUBLISH if not record.previous else State.WITHDRAW)
    try:
        return run_from(run)
    except BrokenGeneration as error:
        fault = find(Code.MATERIAL_UNREADABLE, name, error.message)
        return Result("recover", Verdict.STRANDED, fault.code, (fault,), (), {"lineage": name})
