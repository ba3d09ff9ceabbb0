"""One renewal from the client's files to the proof on the wire, or back (design: the transaction)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from stapleguard import diagnosis, ocsp
from stapleguard.diagnosis import BREAKING, Need, Result, Undo
from stapleguard.disk import BrokenGeneration, DiskFault, Generation
from stapleguard.engine import intake
from stapleguard.engine.acts import (
    closed,
    conclude,
    entry,
    extra,
    files,
    prove_new,
    proved,
    reload,
    remember,
    run_from,
    seal,
)
from stapleguard.engine.contents import staple_file
from stapleguard.engine.intake import Answer, Certificate
from stapleguard.engine.previous import revive
from stapleguard.engine.proof import Target, look_once, prove
from stapleguard.engine.run import Budget, Run, stapling_for, wants_file
from stapleguard.engine.survey import Mode, Use, survey
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.freshness import Course, Life
from stapleguard.material import NameMatch, matches_name
from stapleguard.model import Severity, Verdict
from stapleguard.servers import ConfigOutcome, Stapling
from stapleguard.transaction import Event, Record, State


def deploy(world: World, name: str, sources: Sequence[str], budget: Budget) -> Result:
    """Run the whole transaction for a lineage; the caller holds the lock and has recovered after a crash."""
    certificates, findings = intake.take_in(world, sources, world.config.lineage(name).names)
    if criticals(findings) or not certificates:
        return _refused(world, name, findings)
    facts = certificates[0].material.facts
    world.say(
        f"read {name}: leaf {facts.sha256[:12]}, {facts.key_type.value}, until {facts.not_after:%Y-%m-%d}"
    )
    found = survey(world, name, sources, intake.names_of(certificates))
    run = Run(world, name, budget, certificates, found, _record(world, name, certificates))
    run.findings += findings
    _introduce(run)
    if fault := _uncovered(run):
        return _refused(world, name, (fault, *findings))
    if fault := _baseline(run):
        return _refused(world, name, (fault, *findings))
    run.before = look_once(world, Target(found.endpoints)) if found.running else ()
    if fault := _older(run):
        return _refused(world, name, (fault, *findings))
    run.answers = _ask(run)
    if any(intake.revoked(answer) for answer in run.answers):
        return _refused(world, name, [one for answer in run.answers for one in answer.findings])
    run.revival = revive(world, name, run.record.previous, found)
    if held := _hold(run):
        return held
    try:
        return _transact(run)
    except DiskFault as error:
        return _refused(world, name, (error.finding, *findings))


def _record(world: World, name: str, certificates: Sequence[Certificate]) -> Record:
    """Open a record; the same leaf keeps the time when it was first received."""
    now = world.clock.now()
    sha256 = certificates[0].material.facts.sha256
    pending = world.state.queue().get(name, {})
    since = pending.get("since") if pending.get("leaf_sha256") == sha256 else None
    identity = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{sha256[:8]}"
    text = since if isinstance(since, str) else now.isoformat(timespec="seconds")
    return Record(name, State.STAGE, identity, world.state.live(name), text)


def _introduce(run: Run) -> None:
    found, say = run.found, run.world.say
    if not found.uses:
        say("no web server of this host is known to use it", Tone.WARN)
    for use in found.uses:
        places = dict.fromkeys(f"{host}:{port}" for site in use.sites for host, port in site.listens)
        where = ", ".join(places)
        state = f"pid {use.instance.master}" if use.running else "not running"
        program = f"{use.instance.kind} {use.instance.version}".strip()
        say(f"{program} ({state}) serves it on {where or 'no address'}, mode {use.mode.value}")
        if use.mode is Mode.WATCH:
            run.findings.append(_unguarded(run, use))
    for instance in found.stopped:
        text = f"{instance.kind} uses {run.name}, too, but is not running"
        stopped = find(Code.SERVER_NOT_RUNNING, instance.config, text, severity=Severity.WARNING)
        run.findings.append(stopped)
    run.findings += _unprimed(run)


def _unguarded(run: Run, use: Use) -> Finding:
    where = use.sites[0].where
    if keeper := use.sites[0].keeper:
        text = f"{keeper} keeps the certificate of {where} itself, so nothing can be rolled back"
        remedy = f"Nothing need be done: {keeper} renews and activates it, and it is proved all the same."
        return find(Code.SERVER_NOT_GUARDED, where, text, remedy=remedy)
    line = use.server.line(str(run.world.state.live_path(run.name)))
    text = f"{where} points at the ACME client's own directory, so nothing can be rolled back"
    remedy = f"Replace its certificate, key and stapling lines by: {line}"
    return find(Code.SERVER_NOT_GUARDED, where, text, remedy=remedy)


def _unprimed(run: Run) -> list[Finding]:
    """Say where a server gets no staple although the certificate is to have one, and why."""
    if all(one.expected.need is Need.NOT_APPLICABLE for one in run.certificates):
        return []
    found: list[Finding] = []
    for use in run.found.uses:
        able = use.server.takes(use.instance, use.sites, len(run.certificates))
        if stapling_for(run, use) is Stapling.OFF:
            why = (
                'prime = "warm" forbids the staple file that it needs'
                if Stapling.FILE in able
                else "it can take a staple for one certificate only, and the lineage has several"
            )
            text = f"{use.instance.kind} does not fetch staples itself, and {why}"
            found.append(find(Code.SERVER_STAPLING_DISABLED, use.instance.config, text))
        elif len(run.certificates) > 1 and Stapling.FILE not in able:
            run.world.say(
                f"{use.instance.kind} would staple one file for both certificates, so it fetches for each"
            )
    return found


def _uncovered(run: Run) -> Finding | None:
    """Say when the leaf does not cover a name that a server block would present it for."""
    for name in dict.fromkeys(one.server_name for one in run.found.endpoints if one.server_name):
        for one in run.certificates:
            if matches_name(one.material.leaf, name) is NameMatch.DIFFERS:
                text = f"the certificate does not cover {name}, which the server serves it for"
                evidence: dict[str, str | tuple[str, ...]] = {"wanted": name, "has": one.material.facts.names}
                return find(Code.MATERIAL_NAME_MISMATCH, run.name, text, evidence=evidence)
    return None


def _baseline(run: Run) -> Finding | None:
    """Say when a server's configuration was broken before we came; only our include may be missing."""
    ours = f"{run.world.state.live_path(run.name)}/"
    for use in run.found.uses:
        tested = use.server.test(use.instance, run.world.config.test_timeout)
        missing = ours in tested.text and not (Path(ours) / use.server.INCLUDE).exists()
        if tested.outcome is not ConfigOutcome.REFUSED or missing:
            continue
        kind = use.instance.kind
        words = tested.refusals[0] if tested.refusals else tested.text
        text = f"{kind}'s configuration was broken before anything was touched: {words}"
        remedy = f"Mend what {kind}'s own test names; then run it again, the renewal is not lost."
        subject = use.instance.config
        return find(Code.SERVER_CONFIG_INVALID, subject, text, remedy=remedy, evidence={kind: words})
    return None


def _older(run: Run) -> Finding | None:
    served = [one.last.leaf for one in run.before if one.last is not None and one.last.leaf is not None]
    mine = {one.material.facts.sha256 for one in run.certificates}
    for leaf in served:
        same = [
            one.material.facts for one in run.certificates if one.material.facts.key_type is leaf.key_type
        ]
        if leaf.sha256 not in mine and same and leaf.not_before > same[0].not_before:
            if set(leaf.names) != set(same[0].names) or leaf.issuer != same[0].issuer:
                continue
            text = (
                f"the certificate that is served was issued later ({leaf.not_before:%Y-%m-%d %H:%M:%S} UTC)"
            )
            return find(Code.MATERIAL_OLDER_THAN_SERVED, run.name, text, evidence={"served": leaf.sha256})
    return None


def _ask(run: Run) -> tuple[Answer, ...]:
    """Ask the responder for each certificate; where a file is needed, ask again until the wait is over."""
    begun, pause = run.world.clock.monotonic(), 0.25
    answers: list[Answer] = []
    for one in run.certificates:
        if one.expected.need is Need.NOT_APPLICABLE:
            answers.append(Answer(None, None, ()))
            continue
        kept = _kept_answer(run, one)
        if kept is not None and kept.course is Course.KEEP:
            answers.append(kept.answer)
            continue
        answer = intake.ask_responder(run.world, one)
        failed = answer.der is None and not intake.revoked(answer)
        if failed and kept is not None and kept.course is not Course.WITHDRAW:
            # What is published is good for a while yet: a responder that is down now changes nothing.
            run.world.say("the responder gives no usable answer; the published one stays", Tone.WARN)
            answers.append(kept.answer)
            continue
        while answer.der is None and wants_file(run) and not intake.revoked(answer):
            cause = diagnosis.cause_of(answer.findings)
            if not diagnosis.may_pass(cause) or run.world.clock.monotonic() - begun + pause > run.budget.wait:
                break
            run.world.say(
                f"no usable answer yet ({cause.value if cause else 'none'}); asking again in {pause:.2g} s"
            )
            run.world.clock.wait(pause)
            pause = min(pause * 2, 30.0)
            answer = intake.ask_responder(run.world, one)
        _tell(run, answer)
        answers.append(answer)
    return tuple(answers)


def _tell(run: Run, answer: Answer) -> None:
    if answer.judgement is not None and answer.der is not None:
        until = (
            f"until {answer.judgement.next_update:%Y-%m-%d %H:%M} UTC" if answer.judgement.next_update else ""
        )
        run.world.say(f"the responder says good {until}".rstrip(), Tone.GOOD)
    else:
        first = next(iter(criticals(answer.findings)), None)
        run.world.say(
            f"the responder gives no usable answer: {first.message if first else 'nothing'}", Tone.BAD
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """The answer that is published, and whether it is time to renew it."""

    answer: Answer
    course: Course


def _kept_answer(run: Run, one: Certificate) -> _Kept | None:
    """The live generation's own answer, judged again, while it is acceptable."""
    if not run.record.previous or one.issuer is None:
        return None
    now = run.world.clock.now()
    try:
        der = (
            run.world.state.directory_of(run.name, run.record.previous) / staple_file(one.suffix)
        ).read_bytes()
    except OSError:
        return None
    judgement = ocsp.judge(der, one.material.leaf, one.issuer, now)
    if judgement.acceptance is not ocsp.Acceptance.ACCEPTED or judgement.this_update is None:
        return None
    life = Life.of(judgement.this_update, judgement.next_update)
    course = life.course(now, 0.0, run.world.config.refresh_margin)
    return _Kept(Answer(der, judgement, judgement.findings), course)


def _hold(run: Run) -> Result | None:
    """Keep the old generation while a must-staple certificate has no answer: bare, it would break clients."""
    bare = [
        answer
        for one, answer in zip(run.certificates, run.answers, strict=True)
        if one.material.facts.must_staple and one.expected.need is Need.STAPLE and answer.der is None
    ]
    revival = run.revival
    if not bare or revival is None or revival.previous is None or run.found.mode is Mode.WATCH:
        return None
    now = run.world.clock.now()
    found = [one for answer in bare for one in answer.findings]
    reason = diagnosis.undo(
        (find(Code.STAPLE_MUST_STAPLE_UNMET, run.name, ""),), revival.previous, wanted=BREAKING, now=now
    )
    if reason is not Undo.HELPS:
        return None
    cause = diagnosis.cause_of(found)
    world = run.world
    world.say(
        "must-staple without an answer: the previous generation stays, the new one is not published",
        Tone.WARN,
    )
    proof = prove(world, revival.target, run.budget.prove)
    old = diagnosis.verdict_of(proof.findings, proof.strands)
    if old in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE):
        world.say(f"the previous certificate is {proved(proof)}", Tone.GOOD)
    waited = (now - datetime.fromisoformat(run.record.since)).total_seconds()
    if diagnosis.may_pass(cause) and waited < run.budget.patience:
        verdict = Verdict.PENDING
    else:
        verdict = (
            Verdict.ROLLED_BACK if old in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE) else Verdict.STRANDED
        )
    text = (
        f"{run.name} is must-staple and has no usable OCSP answer; the previous certificate stays in service"
    )
    unmet = find(Code.STAPLE_MUST_STAPLE_UNMET, run.name, text)
    remember(run, verdict)
    sealed = replace(run.record, state=State.SEALED, candidate=run.record.previous)
    world.state.journal(closed(world, sealed, verdict, cause))
    findings = diagnosis.unique((*found, unmet, *run.findings, *proof.findings))
    return Result("deploy", verdict, cause or unmet.code, findings, proof.strands, extra(run))


def _refused(world: World, name: str, findings: Sequence[Finding]) -> Result:
    for one in criticals(findings):
        world.say(one.message, Tone.BAD)
    return Result(
        "deploy",
        Verdict.REFUSED,
        diagnosis.cause_of(findings),
        diagnosis.unique(findings),
        (),
        {"lineage": name},
    )


def _transact(run: Run) -> Result:
    state = run.world.state
    run.files = files(run, run.record.candidate)
    live = _same_as_live(run)
    if live is not None:
        return _again(run, live)
    if run.record.previous and not run.found.running and run.found.mode is Mode.GUARD:
        return _not_running(run)
    state.enqueue(run.name, entry(run))
    return run_from(run)


def _same_as_live(run: Run) -> Generation | None:
    """The live generation, when deploying would only write it again."""
    if not run.record.previous:
        return None
    try:
        live = run.world.state.load(run.name, run.record.previous)
    except BrokenGeneration as error:
        run.world.say(f"the live generation is damaged and will be replaced: {error}", Tone.WARN)
        return None
    return live if live.files == files(run, live.identity) else None


def _again(run: Run, live: Generation) -> Result:
    """Everything is published already: prove it, and reload only when the proof fails."""
    run.world.say(f"generation {live.identity} is live already; nothing is written")
    run.record = replace(run.record, candidate=live.identity)
    before = run.world.state.record(run.name)
    run.proof = prove(
        run.world, run.target, run.budget.prove if _done(before) else min(2.0, run.budget.prove)
    )
    run.findings += run.proof.findings
    run.verdict = diagnosis.verdict_of(run.proof.findings, run.proof.strands)
    if run.verdict in (Verdict.DEGRADED, Verdict.INCONCLUSIVE) and run.found.running:
        run.findings = [one for one in run.findings if one not in run.proof.findings]
        if reload(run) is Event.DONE:
            prove_new(run)
    run.record = replace(run.record, state=State.SEALED)
    result = conclude(run)
    if before is None or before.state is not State.SEALED or before.verdict != result.verdict.value:
        seal(run, result)  # otherwise a third run writes nothing (promise I4)
    return result


def _done(record: Record | None) -> bool:
    proved = (Verdict.VERIFIED.value, Verdict.NOT_APPLICABLE.value)
    return record is not None and record.state is State.SEALED and record.verdict in proved


def _not_running(run: Run) -> Result:
    config = run.found.instance.config if run.found.instance else ""
    text = (
        f"{run.found.kinds} is not running, so the new generation could not be proved; "
        "the old one stays for its next start"
    )
    run.findings.insert(0, find(Code.SERVER_NOT_RUNNING, config, text))
    run.world.say(text, Tone.BAD)
    run.world.state.enqueue(run.name, entry(run))
    return Result(
        "deploy", Verdict.INCONCLUSIVE, Code.SERVER_NOT_RUNNING, tuple(run.findings), run.before, extra(run)
    )
