"""One renewal from the client's files to the proof on the wire, or back (design: the transaction)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, assert_never

from stapleguard import diagnosis, ocsp
from stapleguard.config import MissingStaple
from stapleguard.diagnosis import BREAKING, MISSING, Need, Result, Served, Strand, Undo
from stapleguard.disk import DiskFault, Generation
from stapleguard.engine import intake
from stapleguard.engine.evidence import gather
from stapleguard.engine.intake import Answer, Certificate
from stapleguard.engine.previous import Revival, revive
from stapleguard.engine.proof import Proof, Target, look_once, prove
from stapleguard.engine.survey import Mode, Survey, survey
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.material import NameMatch, matches_name
from stapleguard.model import Prime, Verdict
from stapleguard.servers import ConfigOutcome, Include, Instance, Stapling, nginx
from stapleguard.transaction import Event, Record, State, advance

INCLUDE: Final = "nginx.conf"


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds: for the proof, for a responder in the foreground, of patience with a fresh certificate."""

    prove: float
    wait: float
    patience: float


@dataclass
class Run:
    """What one deployment has learned so far; the acts of the transaction fill it."""

    world: World
    name: str
    budget: Budget
    certificates: tuple[Certificate, ...]
    found: Survey
    record: Record
    files: dict[str, bytes] = field(default_factory=dict)
    revival: Revival | None = None
    answers: tuple[Answer, ...] = ()
    proof: Proof | None = None
    findings: list[Finding] = field(default_factory=list)
    verdict: Verdict = Verdict.INCONCLUSIVE
    before: tuple[Strand, ...] = ()
    target_override: Target | None = None

    @property
    def target(self) -> Target:
        """Where the new generation is looked for."""
        return self.target_override or _target(self.found, self.certificates)

    @property
    def must_staple(self) -> bool:
        """Whether any leaf is must-staple (RFC 7633)."""
        return any(one.material.facts.must_staple for one in self.certificates)


def _target(found: Survey, certificates: Sequence[Certificate]) -> Target:
    instance = found.instance
    workers = (lambda: nginx.workers(instance)) if instance is not None else (lambda: ())
    return Target(found.endpoints, tuple(one.expected for one in certificates), workers)


def deploy(world: World, name: str, sources: Sequence[str], budget: Budget) -> Result:
    """Run the whole transaction for a lineage; the caller holds the lock and has recovered after a crash."""
    certificates, findings = intake.take_in(world, sources, world.config.lineage(name).names)
    if criticals(findings) or not certificates:
        return _refused(world, name, findings)
    facts = certificates[0].material.facts
    world.say(
        f"read {name}: leaf {facts.sha256[:12]}, {facts.key_type.value}, until {facts.not_after:%Y-%m-%d}"
    )
    names = tuple(dict.fromkeys(one for each in certificates for one in each.material.facts.names))
    found = survey(world, name, sources, names)
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
    if found.instance is None:
        say("no web server of this host is known to use it", Tone.WARN)
        return
    where = ", ".join(dict.fromkeys(f"{one.address}:{one.port}" for one in found.endpoints)) or "no address"
    state = f"pid {found.instance.master}" if found.running else "not running"
    say(f"nginx {found.instance.version} ({state}) serves it on {where}, mode {found.mode.value}")
    if found.mode is Mode.WATCH:
        line = f"include {run.world.state.live_path(run.name)}/{INCLUDE};"
        text = (
            f"{found.sites[0].where} points at the ACME client's own directory, so nothing can be rolled back"
        )
        remedy = f"Replace its ssl_certificate, ssl_certificate_key and ssl_stapling lines by: {line}"
        run.findings.append(find(Code.SERVER_NOT_GUARDED, found.sites[0].where, text, remedy=remedy))


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
    """Say when the server's configuration was broken before we came; only our include may be missing."""
    if run.found.instance is None:
        return None
    tested = nginx.test(run.found.instance, run.world.config.test_timeout)
    ours = f"{run.world.state.live_path(run.name)}/"
    if tested.outcome is not ConfigOutcome.REFUSED or (not run.record.previous and ours in tested.text):
        return None
    words = tested.refusals[0] if tested.refusals else tested.text
    text = f"nginx's configuration was broken before anything was touched: {words}"
    remedy = "Mend what `nginx -t` names; then run it again, the renewal is not lost."
    subject = run.found.instance.config
    return find(Code.SERVER_CONFIG_INVALID, subject, text, remedy=remedy, evidence={"nginx": words})


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
        if kept := _kept_answer(run, one):
            answers.append(kept)
            continue
        answer = intake.ask_responder(run.world, one)
        while answer.der is None and _wants_file(run) and not intake.revoked(answer):
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


def _kept_answer(run: Run, one: Certificate) -> Answer | None:
    """The live generation's own answer, judged again, while it is before half its life."""
    if not run.record.previous or one.issuer is None:
        return None
    now = run.world.clock.now()
    try:
        der = (run.world.state.directory_of(run.name, run.record.previous) / "ocsp.der").read_bytes()
    except OSError:
        return None
    judgement = ocsp.judge(der, one.material.leaf, one.issuer, now)
    fresh = judgement.half_life is not None and now < judgement.half_life
    if judgement.acceptance is not ocsp.Acceptance.ACCEPTED or not fresh:
        return None
    return Answer(der, judgement, judgement.findings)


def _wants_file(run: Run) -> bool:
    """Whether the first staple comes from a file: design, Priming. One file cannot serve two certificates."""
    if len(run.certificates) > 1 or run.found.mode is Mode.WATCH:
        return False
    match run.world.config.prime_for(run.name):
        case Prime.FILE:
            return True
        case Prime.WARM:
            return False
        case Prime.AUTO:
            return run.must_staple
        case _ as never:
            assert_never(never)


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
        world.say(f"the previous certificate is {_proved(proof)}", Tone.GOOD)
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
    _remember(run, verdict)
    sealed = replace(run.record, state=State.SEALED, candidate=run.record.previous)
    world.state.journal(_closed(world, sealed, verdict, cause))
    findings = diagnosis.unique((*found, unmet, *run.findings, *proof.findings))
    return Result("deploy", verdict, cause or unmet.code, findings, proof.strands, _extra(run))


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


# --- the transaction ---------------------------------------------------------------------------------


def _transact(run: Run) -> Result:
    state = run.world.state
    run.files = _files(run, run.record.candidate)
    live = _same_as_live(run)
    if live is not None:
        return _again(run, live)
    if run.record.previous and not run.found.running and run.found.mode is Mode.GUARD:
        return _not_running(run)
    state.enqueue(run.name, _entry(run))
    return run_from(run)


def run_from(run: Run) -> Result:
    """Do act after act from the record's state until it is sealed; each is journalled before it is done."""
    while run.record.state is not State.SEALED:
        run.world.state.journal(run.record)
        event = act(run, run.record.state)
        run.record = replace(run.record, state=advance(run.record.state, event))
    return _conclude(run)


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
            return _reload(run)
        case State.PROVE:
            return _prove(run)
        case State.UNPUBLISH | State.WITHDRAW:
            _put_back(run)
            return Event.DONE
        case State.DISCARD:
            world.state.discard(name, record.candidate)
            run.verdict = Verdict.REFUSED
            return Event.DONE
        case State.PROVE_OLD:
            return _prove_old(run)
        case State.SEALED:
            return Event.DONE
        case _ as never:
            assert_never(never)


def _files(run: Run, identity: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for one in run.certificates:
        files |= one.files()
    needed = any(one.expected.need is Need.STAPLE for one in run.certificates)
    stapling = Stapling.FETCH if needed else Stapling.OFF
    if needed and _wants_file(run) and run.answers[0].der is not None:
        files["ocsp.der"] = run.answers[0].der
        stapling = Stapling.FILE
    if len(run.certificates) > 1:
        files["trusted.pem"] = b"".join(files[f"trusted{one.suffix}.pem"] for one in run.certificates)
    settings = run.world.config
    directory = run.world.state.directory_of(run.name, identity)
    facts = run.certificates[0].material.facts
    include = Include(
        directory=str(directory),
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
    files[INCLUDE] = nginx.render(include).encode()
    return files


def _about(run: Run) -> dict[str, str | list[str]]:
    facts = [one.material.facts for one in run.certificates]
    return {
        "created": run.world.clock.now().isoformat(timespec="seconds"),
        "origin": [one.material.paths.get("cert", "") for one in run.certificates],
        "serials": [f"{one.serial:x}" for one in facts],
        "leaf_sha256": [one.sha256 for one in facts],
        "not_after": min(one.not_after for one in facts).isoformat(),
    }


def _same_as_live(run: Run) -> Generation | None:
    """The live generation, when deploying would only write it again."""
    if not run.record.previous:
        return None
    try:
        live = run.world.state.load(run.name, run.record.previous)
    except Exception as error:  # noqa: BLE001 - a broken generation is replaced, whatever broke it
        run.world.say(f"the live generation is damaged and will be replaced: {error}", Tone.WARN)
        return None
    return live if live.files == _files(run, live.identity) else None


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
        if _reload(run) is Event.DONE:
            _prove(run)
    run.record = replace(run.record, state=State.SEALED)
    return _conclude(run, write=not _done(before) or run.verdict.value != before.verdict if before else True)


def _done(record: Record | None) -> bool:
    proved = (Verdict.VERIFIED.value, Verdict.NOT_APPLICABLE.value)
    return record is not None and record.state is State.SEALED and record.verdict in proved


def _not_running(run: Run) -> Result:
    config = run.found.instance.config if run.found.instance else ""
    text = (
        "nginx is not running, so the new generation could not be proved; "
        "the old one stays for its next start"
    )
    run.findings.insert(0, find(Code.SERVER_NOT_RUNNING, config, text))
    run.world.say(text, Tone.BAD)
    run.world.state.enqueue(run.name, _entry(run))
    return Result(
        "deploy", Verdict.INCONCLUSIVE, Code.SERVER_NOT_RUNNING, tuple(run.findings), run.before, _extra(run)
    )


def _test_candidate(run: Run) -> Event:
    instance, previous = run.found.instance, run.record.previous
    if instance is None or not previous or run.found.mode is not Mode.GUARD:
        return Event.DONE
    state = run.world.state
    candidate = state.directory_of(run.name, run.record.candidate) / INCLUDE
    live = state.directory_of(run.name, previous) / INCLUDE
    tested = nginx.test_candidate(instance, str(candidate), str(live), run.world.config.test_timeout)
    if tested is None or tested.outcome is not ConfigOutcome.REFUSED:
        if tested is not None:
            run.world.say("nginx accepts the candidate")
        return Event.DONE
    _config_refused(run, instance, tested.refusals)
    return Event.FAILED


def _config_refused(run: Run, instance: Instance, refusals: Sequence[str]) -> None:
    words = refusals[0] if refusals else "no reason given"
    text = f"nginx refuses the new generation: {words}"
    run.world.say(text, Tone.BAD)
    run.findings.insert(0, find(Code.SERVER_CONFIG_INVALID, instance.config, text, evidence={"nginx": words}))


def _check(run: Run) -> Event:
    if run.found.instance is None:
        return Event.DONE
    tested = nginx.test(run.found.instance, run.world.config.test_timeout)
    if tested.outcome is ConfigOutcome.REFUSED:
        _config_refused(run, run.found.instance, tested.refusals)
        return Event.FAILED
    if any(one.expected.need is Need.STAPLE for one in run.certificates):
        run.findings += nginx.log_findings(tested.text)
    return Event.DONE


def _reload(run: Run) -> Event:
    instance = run.found.instance
    if instance is None or not run.found.running:
        return Event.ABSENT
    done = nginx.reload(instance, run.world.config.test_timeout)
    if done.status != 0:
        text = f"the reload failed: {done.stderr.strip() or done.status}"
        run.findings.insert(0, find(Code.SERVER_RELOAD_NOT_TAKEN, instance.config, text))
        run.world.say(text, Tone.BAD)
        return Event.FAILED
    run.world.say("reloaded nginx")
    return Event.DONE


def _prove(run: Run) -> Event:
    """Prove the new generation; FAILED only where going back helps."""
    world = run.world
    run.proof = prove(world, run.target, run.budget.prove, stuck=lambda: _nudge(run))
    found = list(run.proof.findings)
    if any(one.code is Code.SERVED_OLD_CERTIFICATE for one in found):
        text = "nginx was reloaded but goes on serving another certificate"
        found.append(find(Code.SERVER_RELOAD_NOT_TAKEN, str(run.target.endpoints[0]), text))
    if any(one.code in MISSING | BREAKING for one in found):
        found += gather(world, run.found, run.certificates)
    run.findings = list(diagnosis.unique((*run.findings, *found)))
    run.verdict = diagnosis.verdict_of(run.findings, run.proof.strands)
    wanted = BREAKING | MISSING if _missing_means_back(run) else BREAKING
    previous = run.revival.previous if run.revival else None
    choice = diagnosis.undo(run.findings, previous, wanted=wanted, now=world.clock.now())
    if choice is Undo.HELPS and run.found.mode is Mode.GUARD and run.record.previous != run.record.candidate:
        world.say("the proof failed and going back helps: withdrawing the new generation", Tone.BAD)
        return Event.FAILED
    if choice not in (Undo.NOT_WANTED, Undo.HELPS):
        world.say(f"not rolling back: {choice.value}", Tone.WARN)
    if run.verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE):
        world.say(_proved(run.proof), Tone.GOOD)
    return Event.DONE


def _missing_means_back(run: Run) -> bool:
    policy = run.world.config.missing_staple_for(run.name)
    return policy is MissingStaple.ROLLBACK and not _may_still_come(run)


def _may_still_come(run: Run) -> bool:
    """Whether the responder is still inside the patience that a fresh certificate has."""
    waited = (run.world.clock.now() - datetime.fromisoformat(run.record.since)).total_seconds()
    return diagnosis.may_pass(diagnosis.cause_of(run.findings)) and waited < run.budget.patience


def _nudge(run: Run) -> None:
    """A server that failed to fetch waits for minutes; once the responder answers us, a reload cures it."""
    answers = [
        intake.ask_responder(run.world, one) for one in run.certificates if one.expected.need is Need.STAPLE
    ]
    if answers and all(answer.der is not None for answer in answers):
        run.world.say("the responder answers us but the server has no staple; reloading once more", Tone.WARN)
        _reload(run)


def _proved(proof: Proof) -> str:
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
    run.proof = prove(run.world, revival.target, run.budget.prove)
    old = diagnosis.verdict_of(run.proof.findings, run.proof.strands)
    served = all(one.last is not None and one.last.served is Served.EXPECTED for one in run.proof.strands)
    run.verdict = Verdict.ROLLED_BACK if served and old is not Verdict.INCONCLUSIVE else Verdict.STRANDED
    if run.verdict is Verdict.ROLLED_BACK:
        run.world.say(f"the previous certificate is served again, {_proved(run.proof)}", Tone.GOOD)
    else:
        run.world.say("the previous generation could not be proved either", Tone.BAD)
    return Event.DONE


# --- the end -----------------------------------------------------------------------------------------


def _conclude(run: Run, write: bool = True) -> Result:  # noqa: FBT001, FBT002 - promise I4: a third run writes nothing
    world, state = run.world, run.world.state
    if run.verdict is Verdict.INCONCLUSIVE and run.proof is None:
        _unseen(run)
    if (
        run.verdict is Verdict.DEGRADED
        and any(one.code in MISSING for one in run.findings)
        and _may_still_come(run)
    ):
        run.verdict = Verdict.PENDING
    settled = run.verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    if settled:
        run.findings = [one for one in run.findings if not one.critical]
    cause = None if settled else diagnosis.cause_of(run.findings)
    if write:
        state.journal(_closed(world, run.record, run.verdict, cause))
        state.sweep(run.name, world.config.generations, (state.live(run.name), run.record.previous))
    _remember(run, run.verdict)
    strands = run.proof.strands if run.proof else run.before
    return Result("deploy", run.verdict, cause, diagnosis.unique(run.findings), strands, _extra(run))


def _unseen(run: Run) -> None:
    if run.found.instance is None:
        line = f"include {run.world.state.live_path(run.name)}/{INCLUDE};"
        text = f"{run.name} is published, but no web server of this host uses it, so nothing could be proved"
        remedy = (
            f"Put this line into its server block, reload, and run `stapleguard check {run.name}`: {line}"
        )
        run.findings.append(find(Code.SERVED_UNREACHABLE, run.name, text, remedy=remedy))
    elif not run.found.running:
        text = f"{run.name} is published, but nginx is not running, so nothing could be proved"
        run.findings.append(find(Code.SERVER_NOT_RUNNING, run.found.instance.config, text))


def _closed(world: World, record: Record, verdict: Verdict, cause: Code | None) -> Record:
    ended = world.clock.now().isoformat(timespec="seconds")
    return replace(
        record, state=State.SEALED, verdict=verdict.value, cause=cause.value if cause else "", ended=ended
    )


def _entry(run: Run) -> dict[str, str | list[str]]:
    """What the next run needs; after a crash nothing more is known than the name."""
    entry: dict[str, str | list[str]] = {"schema": "stapleguard.queue/1", "since": run.record.since}
    if run.certificates:
        paths = [one.material.paths.get("privkey", "") for one in run.certificates]
        entry["leaf_sha256"] = run.certificates[0].material.facts.sha256
        entry["sources"] = [path.rsplit("/", 1)[0] for path in paths if path]
    return entry


def _remember(run: Run, verdict: Verdict) -> None:
    """Keep what is pending in the queue; everything else has ended."""
    if verdict in (Verdict.PENDING, Verdict.INCONCLUSIVE, Verdict.DEGRADED, Verdict.STRANDED):
        if run.name not in run.world.state.queue():
            run.world.state.enqueue(run.name, _entry(run))
    else:
        run.world.state.dequeue(run.name)


def _extra(run: Run) -> dict[str, str | None]:
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
