"""The acts of the transaction, one for each state, and how a run ends; the table knows what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, assert_never

from stapleguard import diagnosis
from stapleguard.config import MissingStaple
from stapleguard.diagnosis import BREAKING, MISSING, Need, Result, Served, Undo
from stapleguard.diagnosis.understudy import Course, may_mend_itself
from stapleguard.engine import intake, understudy
from stapleguard.engine.bystanders import bystanders
from stapleguard.engine.contents import staple_file
from stapleguard.engine.evidence import gather
from stapleguard.engine.proof import Proof, prove
from stapleguard.engine.run import Run, choices
from stapleguard.engine.survey import Mode, Use
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, find
from stapleguard.model import StapleguardError, Verdict
from stapleguard.servers import SERVERS, ConfigOutcome, Include, Instance, Stapling, Update
from stapleguard.transaction import Event, Record, State, advance

FATAL_FAULTS: Final = frozenset({Code.SERVER_CACHE_MISSING})
"""What keeps a server from starting though its own configuration test says nothing."""


def run_from(run: Run) -> Result:
    """Do act after act from the record's state until it is sealed; each is journalled before it is done."""
    while run.record.state is not State.SEALED:
        run.world.state.journal(run.record)
        event = act(run, run.record.state)
        run.record = replace(run.record, state=advance(run.record.state, event))
    result = conclude(run)
    seal(run, result)
    return result


def act(run: Run, state: State) -> Event:
    """Do the one act that a state names and say how it ended."""
    world, name, record = run.world, run.name, run.record
    match state:
        case State.STAGE:
            world.state.stage(name, record.candidate, run.files, _about(run))
            world.say(f"staged generation {record.candidate}")
            return Event.DONE
        case State.TEST:
            return _test_candidate(run)
        case State.PUBLISH:
            world.state.publish(name, record.candidate)
            world.say("published by one rename")
            return Event.DONE
        case State.CHECK:
            return _check(run)
        case State.RELOAD | State.RELOAD_OLD:
            return reload(run)
        case State.PROVE:
            return prove_new(run)
        case State.UNPUBLISH | State.WITHDRAW:
            _put_back(run)
            return Event.DONE
        case State.DISCARD:
            world.state.discard(name, record.candidate)
            if not run.held:
                run.verdict = Verdict.REFUSED
            return Event.DONE
        case State.PROVE_OLD:
            return _prove_old(run)
        case State.SEALED:
            return Event.DONE
        case _ as never:
            assert_never(never)


def files(run: Run, identity: str) -> dict[str, bytes]:
    """Return the files of the candidate, as they would be under `identity`.

    Every kind of server has its lines in it: whoever is to use the lineage next finds them there.
    """
    files: dict[str, bytes] = {}
    for one in run.certificates:
        files |= one.files()
    if len(run.certificates) > 1:
        files["trusted.pem"] = b"".join(files[f"trusted{one.suffix}.pem"] for one in run.certificates)
    chosen = choices(run)
    needing = [one for one in run.certificates if one.expected.need is Need.STAPLE]
    if Stapling.FILE in chosen.values():
        files |= _staple_files(run)
    primed = [one for one in needing if staple_file(one.suffix) in files]
    own: dict[str, bytes] = {}
    for kind, server in SERVERS.items():
        able = server.takes(None, (), len(run.certificates))
        usual = next((one for one in (Stapling.FETCH, Stapling.FILE) if one in able), Stapling.OFF)
        stapling = chosen.get(kind, usual) if needing else Stapling.OFF
        if stapling is Stapling.FILE and len(primed) < len(needing):
            rest = Stapling.FILE if primed else Stapling.OFF
            stapling = Stapling.FETCH if Stapling.FETCH in able else rest
        try:
            own |= server.layout(_include(run, identity, stapling), files)
        except StapleguardError:
            # Nobody asks for the lines of a server that does not use it.
            if kind in chosen:
                raise
    return files | own


def _staple_files(run: Run) -> dict[str, bytes]:
    return {
        staple_file(one.suffix): answer.der
        for one, answer in zip(run.certificates, run.answers, strict=True)
        if one.expected.need is Need.STAPLE and answer.der is not None
    }


def _include(run: Run, identity: str, stapling: Stapling) -> Include:
    settings, state = run.world.config, run.world.state
    facts = run.certificates[0].material.facts
    return Include(
        directory=str(state.directory_of(run.name, identity)),
        live=str(state.live_path(run.name)),
        suffixes=tuple(one.suffix for one in run.certificates),
        stapling=stapling,
        trusted=None if any(site.verifies_clients for site in run.found.sites) else "trusted.pem",
        resolvers=settings.nginx_resolver,
        resolver_timeout=settings.nginx_resolver_timeout,
        comments=(
            f"{run.name}, leaf {facts.sha256[:16]}",
            "written by stapleguard; the next renewal replaces it",
        ),
    )


def _about(run: Run) -> dict[str, str | list[str]]:
    facts = [one.material.facts for one in run.certificates]
    return {
        "created": run.world.clock.now().isoformat(timespec="seconds"),
        "origin": [*run.origin],
        "serials": [f"{one.serial:x}" for one in facts],
        "leaf_sha256": [one.sha256 for one in facts],
        "not_after": min(one.not_after for one in facts).isoformat(),
    }


def _test_candidate(run: Run) -> Event:
    if not run.record.previous:
        return Event.DONE
    state = run.world.state
    for use in run.found.uses:
        if use.mode is not Mode.GUARD or not use.server.INCLUDE:
            continue
        candidate = state.directory_of(run.name, run.record.candidate) / use.server.INCLUDE
        live = state.directory_of(run.name, run.record.previous) / use.server.INCLUDE
        timeout = run.world.config.test_timeout
        tested = use.server.test_candidate(use.instance, str(candidate), str(live), timeout)
        if tested is None:
            continue
        if tested.outcome is ConfigOutcome.REFUSED:
            _config_refused(run, use.instance, tested.refusals)
            return Event.FAILED
        if _lacking(run, use):
            return Event.FAILED
        run.world.say(f"{use.instance.kind} accepts the candidate")
    return _audition(run)


def _audition(run: Run) -> Event:
    """Have it proved by a private instance of the server, where there is one; FAILED leaves all as it is."""
    judgement = understudy.audition(run)
    run.findings = [*judgement.findings, *run.findings]
    run.proof = judgement.proof
    match judgement.course:
        case Course.PUBLISH:
            return Event.DONE
        case Course.HOLD:
            run.held = True
            passing = may_mend_itself(judgement.findings) and _fresh(run)
            run.verdict = Verdict.PENDING if passing else Verdict.ROLLED_BACK
            return Event.FAILED
        case Course.REFUSE:
            return Event.FAILED
        case _ as never:
            assert_never(never)


def _config_refused(run: Run, instance: Instance, refusals: Sequence[str]) -> None:
    words = refusals[0] if refusals else "no reason given"
    kind = instance.kind
    text = f"{kind} refuses the new generation: {words}"
    run.world.say(text, Tone.BAD)
    run.findings.insert(0, find(Code.SERVER_CONFIG_INVALID, instance.config, text, evidence={kind: words}))


def _lacking(run: Run, use: Use) -> bool:
    """Say what would keep the server from starting though its own test is silent."""
    if not _needs_staple(run):
        return False
    faults = [one for one in use.server.faults(use.instance, use.sites) if one.code in FATAL_FAULTS]
    for one in faults:
        run.world.say(one.message, Tone.BAD)
        run.findings.insert(0, one)
    return bool(faults)


def _needs_staple(run: Run) -> bool:
    return any(one.expected.need is Need.STAPLE for one in run.certificates)


def _check(run: Run) -> Event:
    for use in run.found.uses:
        tested = use.server.test(use.instance, run.world.config.test_timeout)
        if tested.outcome is ConfigOutcome.REFUSED:
            _config_refused(run, use.instance, tested.refusals)
            return Event.FAILED
        if use.mode is Mode.GUARD and _lacking(run, use):
            return Event.FAILED
        if _needs_staple(run):
            run.findings += use.server.log_findings(tested.text)
            run.findings += [
                one for one in use.server.faults(use.instance, use.sites) if one.code not in FATAL_FAULTS
            ]
    return Event.DONE


Reloads = dict[tuple[str, str], tuple[Event, frozenset[int]]]
"""How the reload of each server ended, and which workers it replaced."""


def reload(run: Run, done: Reloads | None = None) -> Event:
    """Make every running server load what is live; those in `done` have done so since it was published."""
    if not run.found.running:
        return Event.ABSENT
    done = {} if done is None else done
    ended = [_reload_one(run, use, done) for use in run.found.uses if use.running]
    return Event.FAILED if Event.FAILED in ended else Event.DONE


def _reload_one(run: Run, use: Use, done: Reloads) -> Event:
    world, timeout = run.world, run.world.config.test_timeout
    if use.key not in done:
        live = str(world.state.live_path(run.name))
        if use.server.update(use.instance, use.sites, live, timeout) is Update.DONE:
            world.say(f"updated {use.instance.kind} without a reload")
            return Event.DONE
        replaced = frozenset(use.server.leaving(use.instance))
        completed = use.server.reload(use.instance, timeout)
        done[use.key] = (Event.DONE if completed.status == 0 else Event.FAILED, replaced)
        if completed.status == 0:
            world.say(f"reloaded {use.instance.kind}")
        else:
            text = f"the reload failed: {completed.stderr.strip() or completed.status}"
            world.say(text, Tone.BAD)
            run.findings.insert(0, find(Code.SERVER_RELOAD_NOT_TAKEN, use.instance.config, text))
    event, replaced = done[use.key]
    run.leaving |= replaced
    return event


def prove_new(run: Run) -> Event:
    """Prove the new generation; FAILED only where going back helps."""
    world = run.world
    run.proof = prove(world, run.target, run.budget.prove, stuck=lambda: _nudge(run))
    found = list(run.proof.findings)
    if any(one.code is Code.SERVED_OLD_CERTIFICATE for one in found):
        text = f"{run.found.kinds} was reloaded but goes on serving another certificate"
        found.append(find(Code.SERVER_RELOAD_NOT_TAKEN, str(run.target.endpoints[0]), text))
    if any(one.code in MISSING | BREAKING for one in found):
        found += [
            *gather(world, run.found, run.certificates, run.proof.strands),
            *bystanders(run.proof.strands),
        ]
    run.findings = list(diagnosis.unique((*run.findings, *found)))
    run.verdict = diagnosis.verdict_of(run.findings, run.proof.strands)
    wanted = BREAKING | MISSING if _missing_means_back(run) else BREAKING
    previous = run.revival.previous if run.revival else None
    choice = diagnosis.undo(run.findings, previous, wanted=wanted, now=world.clock.now())
    if choice is Undo.HELPS and run.found.retractable and run.record.previous != run.record.candidate:
        world.say("the proof failed and going back helps: withdrawing the new generation", Tone.BAD)
        return Event.FAILED
    if choice not in (Undo.NOT_WANTED, Undo.HELPS):
        world.say(f"not rolling back: {choice.value}", Tone.WARN)
    if run.verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE):
        world.say(proved(run.proof), Tone.GOOD)
    return Event.DONE


def _missing_means_back(run: Run) -> bool:
    policy = run.world.config.missing_staple_for(run.name)
    return policy is MissingStaple.ROLLBACK and not may_still_come(run)


def may_still_come(run: Run) -> bool:
    """Whether the responder is still inside the patience that a fresh certificate has."""
    return diagnosis.may_pass(diagnosis.cause_of(run.findings)) and _fresh(run)


def _fresh(run: Run) -> bool:
    waited = (run.world.clock.now() - datetime.fromisoformat(run.record.since)).total_seconds()
    return waited < run.budget.patience


def _nudge(run: Run) -> None:
    """A server that failed to fetch waits for minutes; once the responder answers us, a reload cures it."""
    answers = [
        intake.ask_responder(run.world, one) for one in run.certificates if one.expected.need is Need.STAPLE
    ]
    if answers and all(answer.der is not None for answer in answers):
        run.world.say("the responder answers us but the server has no staple; reloading once more", Tone.WARN)
        reload(run)


def proved(proof: Proof) -> str:
    """Say in one line what was seen."""
    seen = [strand.coverage for strand in proof.strands]
    workers = max((one.total or 0 for one in seen), default=0)
    handshakes = sum(len(strand.sightings) for strand in proof.strands)
    who = f"every one of {workers} workers" if workers else f"{seen[0].confidence:.1%} confidence"
    return f"proved: {who}, {handshakes} handshakes in {proof.seconds:.2f} s"


def _put_back(run: Run) -> None:
    if run.record.previous:
        run.world.state.publish(run.name, run.record.previous)
        run.world.say(f"generation {run.record.previous} is live again")
    else:
        run.world.state.unpublish(run.name)


def _prove_old(run: Run) -> Event:
    revival = run.revival
    if revival is None or revival.previous is None:
        run.verdict = Verdict.STRANDED
        return Event.FAILED
    run.proof = prove(run.world, replace(revival.target, leaving=run.leaving), run.budget.prove)
    old = diagnosis.verdict_of(run.proof.findings, run.proof.strands)
    served = all(one.last is not None and one.last.served is Served.EXPECTED for one in run.proof.strands)
    run.verdict = Verdict.ROLLED_BACK if served and old is not Verdict.INCONCLUSIVE else Verdict.STRANDED
    if run.verdict is Verdict.ROLLED_BACK:
        run.world.say(f"the previous certificate is served again, {proved(run.proof)}", Tone.GOOD)
    else:
        run.world.say("the previous generation could not be proved either", Tone.BAD)
    return Event.DONE


def conclude(run: Run) -> Result:
    """Remember or forget pending work, and make the result."""
    if run.verdict is Verdict.INCONCLUSIVE and not (run.proof and run.proof.strands):
        _unseen(run)
    if (
        run.verdict is Verdict.DEGRADED
        and any(one.code in MISSING for one in run.findings)
        and may_still_come(run)
    ):
        run.verdict = Verdict.PENDING
    settled = run.verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    if settled:
        run.findings = [one for one in run.findings if not one.critical]
    cause = None if settled else diagnosis.cause_of(run.findings)
    remember(run, run.verdict)
    strands = run.proof.strands if run.proof else run.before
    return Result("deploy", run.verdict, cause, diagnosis.unique(run.findings), strands, extra(run))


def seal(run: Run, result: Result) -> None:
    """Write the verdict into the record, and remove the generations that nobody will go back to."""
    world, state = run.world, run.world.state
    state.journal(closed(world, run.record, result.verdict, result.cause))
    state.sweep(run.name, world.config.generations, (state.live(run.name), run.record.previous))


def _unseen(run: Run) -> None:
    if not run.found.uses:
        live = str(run.world.state.live_path(run.name))
        lines = "; ".join(f"{kind}: {server.line(live)}" for kind, server in SERVERS.items())
        text = f"{run.name} is published, but no web server of this host uses it, so nothing could be proved"
        remedy = (
            "Put the line of your server into its configuration, reload it, and run "
            f"`stapleguard deploy` again: {lines}"
        )
        run.findings.append(find(Code.SERVED_UNREACHABLE, run.name, text, remedy=remedy))
    elif not run.found.running:
        text = f"{run.name} is published, but {run.found.kinds} is not running, so nothing could be proved"
        config = run.found.uses[0].instance.config
        run.findings.append(find(Code.SERVER_NOT_RUNNING, config, text))


def closed(world: World, record: Record, verdict: Verdict, cause: Code | None) -> Record:
    """Return a record as it is when a run has ended."""
    ended = world.clock.now().isoformat(timespec="seconds")
    return replace(
        record, state=State.SEALED, verdict=verdict.value, cause=cause.value if cause else "", ended=ended
    )


def entry(run: Run) -> dict[str, str | list[str]]:
    """What the next run needs; after a crash nothing more is known than the name."""
    entry: dict[str, str | list[str]] = {"schema": "stapleguard.queue/1", "since": run.record.since}
    if run.certificates:
        entry["leaf_sha256"] = run.certificates[0].material.facts.sha256
        entry["sources"] = [path.rsplit("/", 1)[0] for path in run.origin if path]
    return entry


def remember(run: Run, verdict: Verdict) -> None:
    """Keep what is pending in the queue; everything else has ended."""
    unsettled = (Verdict.PENDING, Verdict.INCONCLUSIVE, Verdict.DEGRADED, Verdict.STRANDED)
    if verdict in unsettled or run.held:
        if run.name not in run.world.state.queue():
            run.world.state.enqueue(run.name, entry(run))
    else:
        run.world.state.dequeue(run.name)


def extra(run: Run) -> dict[str, str | None]:
    """Return what only a deployment's result has."""
    served = [
        one.last.leaf.sha256 for one in run.before if one.last is not None and one.last.leaf is not None
    ]
    strands = run.proof.strands if run.proof else ()
    after = [one.last.leaf.sha256 for one in strands if one.last is not None and one.last.leaf is not None]
    return {
        "lineage": run.name,
        "mode": run.found.mode.value,
        "generation": run.world.state.live(run.name) or None,
        "before": served[0] if served else None,
        "after": after[0] if after else None,
    }
