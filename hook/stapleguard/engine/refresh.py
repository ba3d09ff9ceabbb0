"""Staple files renewed at half their life, one reload for all of them; withdrawn before they end (I11)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from cryptography import x509

from stapleguard import diagnosis, host, ocsp
from stapleguard.backoff import Attempts, Pace
from stapleguard.diagnosis import Result
from stapleguard.disk import BrokenGeneration, DiskFault
from stapleguard.engine import intake
from stapleguard.engine.acts import Reloads, act, files, reload, run_from
from stapleguard.engine.intake import Answer
from stapleguard.engine.previous import expectations, revive
from stapleguard.engine.proof import Expected
from stapleguard.engine.run import Budget, Run
from stapleguard.engine.survey import survey
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.freshness import Course, Life, draw_of
from stapleguard.model import Interrupted, Json, LockBusy, StapleguardError, Verdict, escape
from stapleguard.transaction import Record, State, advance
from stapleguard.wire.fetch import Validators, ocsp_exchange

STAPLE: Final = "ocsp.der"
_BARE: Final = Answer(None, None, ())


@dataclass(frozen=True, slots=True)
class _Primed:
    """A live generation that staples from a file."""

    name: str
    identity: str
    expected: Expected
    leaf: x509.Certificate
    der: bytes
    origin: tuple[str, ...]
    life: Life | None
    """None when the answer is not acceptable (any more)."""

    def course(self, world: World) -> Course:
        """What is to be done about it now."""
        if self.life is None:
            return Course.WITHDRAW
        draw = draw_of(self.expected.sha256, self.life.begin.isoformat())
        return self.life.course(world.clock.now(), draw, world.config.refresh_margin)

    @property
    def note(self) -> str:
        """Where its validators and attempts are noted."""
        return f"staple-{self.name}"


def refresh(world: World, budget: Budget) -> tuple[Result, ...]:
    """Renew every staple file whose time has come; the caller holds the lock and has recovered."""
    return _finish(
        world, [_guarded(one.name, partial(_renewed, world, one, budget)) for one in _primed(world)]
    )


def withdraw(world: World, budget: Budget, courses: Sequence[Course]) -> tuple[Result, ...]:
    """Take away the staple files that are on one of `courses`, asking nobody: servers fetch themselves."""
    chosen = [one for one in _primed(world) if one.course(world) in courses]
    steps = [
        _guarded(one.name, partial(_candidate, world, one, _withdrawn(one, _BARE), budget)) for one in chosen
    ]
    return _finish(world, steps)


def in_care(world: World) -> frozenset[str]:
    """Return the lineages whose staple file nears its end: proved or not, they are not well."""
    near = (Course.ALARM, Course.WITHDRAW)
    return frozenset(one.name for one in _primed(world) if one.course(world) in near)


def broken(command: str, name: str, error: StapleguardError) -> Result:
    """Make a result of what kept a lineage from being worked on: the others go on."""
    if isinstance(error, DiskFault):
        return Result(command, Verdict.REFUSED, error.code, (error.finding,), (), {"lineage": name})
    fault = find(Code.HOST_INTERNAL, name, error.message, remedy=error.hint or None)
    return Result(command, Verdict.INCONCLUSIVE, fault.code, (fault,), (), {"lineage": name})


_Step: TypeAlias = Run | Result | None


def _guarded(name: str, work: Callable[[], _Step]) -> _Step:
    try:
        return work()
    except (Interrupted, LockBusy):
        raise
    except StapleguardError as error:
        return broken("refresh", name, error)


def _renewed(world: World, one: _Primed, budget: Budget) -> _Step:
    """Return the run that publishes a newer answer, or none; what is told meanwhile; or nothing to do."""
    course = one.course(world)
    if course is Course.KEEP or not (course is Course.WITHDRAW or _due(world, one)):
        return None
    answer = _ask(world, one)
    if answer.der is not None:
        return _candidate(world, one, answer, budget)
    _failed(world, one)
    if course is Course.WITHDRAW:
        return _candidate(world, one, _withdrawn(one, answer), budget)
    return _without_answer(one, answer, course)


def _primed(world: World) -> list[_Primed]:
    found: list[_Primed] = []
    now = world.clock.now()
    for name in world.state.lineages():
        identity = world.state.live(name)
        try:
            generation = world.state.load(name, identity)
            (expected, leaf), *_ = expectations(generation)
        except (BrokenGeneration, ValueError):
            continue  # a deployment replaces it
        der = generation.files.get(STAPLE)
        if der is None or expected.issuer is None:
            continue
        judgement = ocsp.judge(der, leaf, expected.issuer, now)
        accepted = judgement.acceptance is ocsp.Acceptance.ACCEPTED and judgement.this_update is not None
        life = (
            Life.of(judgement.this_update, judgement.next_update)
            if accepted and judgement.this_update
            else None
        )
        came = generation.manifest.get("origin")
        origin = tuple(str(path) for path in came) if isinstance(came, list) else ()
        found.append(_Primed(name, identity, expected, leaf, der, origin, life))
    return found


def _pace(world: World, one: _Primed) -> Pace:
    """Short lives are asked for more often: several attempts must fit between half of it and its end."""
    length = one.life.length.total_seconds() if one.life is not None else 0.0
    floor, cap = world.config.retry_floor, world.config.retry_cap
    return Pace(min(floor, length / 20), min(cap, length / 16)) if length else Pace(floor, cap)


def _due(world: World, one: _Primed) -> bool:
    attempts = Attempts.from_json(world.state.observation(one.note).get("attempts"))
    return attempts.due(world.clock.now(), _pace(world, one).cap)


def _failed(world: World, one: _Primed) -> None:
    noted = world.state.observation(one.note)
    attempts = Attempts.from_json(noted.get("attempts"))
    after = attempts.failed(world.clock.now(), _pace(world, one), host.draw())
    world.state.observe(one.note, {**noted, "attempts": after.to_json()})


def _ask(world: World, one: _Primed) -> Answer:
    """Ask the certificate's responders for something newer; only that is an answer."""
    if one.expected.issuer is None:
        return _BARE
    findings: list[Finding] = []
    request = ocsp.request(one.leaf, one.expected.issuer)
    noted = world.state.observation(one.note)
    for url in intake.responders(one.leaf):
        fetched = ocsp_exchange(url, request, world.fetch_policy, _validators(noted, url, one.der))
        findings += fetched.findings
        if fetched.unchanged:
            world.say(f"{one.name}: the responder has nothing newer yet")
        if fetched.body is None:
            continue
        judgement = ocsp.judge(fetched.body, one.leaf, one.expected.issuer, world.clock.now())
        findings += [
            replace(found, subject=f"{found.subject} from {escape(url)}") for found in judgement.findings
        ]
        if judgement.acceptance is not ocsp.Acceptance.ACCEPTED or judgement.this_update is None:
            continue
        if one.life is not None and Life.of(judgement.this_update, judgement.next_update).end <= one.life.end:
            world.say(f"{one.name}: the responder has nothing newer yet")
            continue
        seen = fetched.validators
        known = {"url": url, "etag": seen.etag, "last_modified": seen.last_modified}
        world.state.observe(one.note, {**known, "sha256": judgement.sha256})
        until = f"{judgement.next_update:%Y-%m-%d %H:%M:%S} UTC" if judgement.next_update else "no given end"
        world.say(f"{one.name}: a newer answer, until {until}", Tone.GOOD)
        return Answer(fetched.body, judgement, tuple(found for found in findings if not found.critical))
    return Answer(None, None, tuple(findings))


def _validators(noted: Mapping[str, Json], url: str, der: bytes) -> Validators:
    """Return what goes with the published answer; nothing when what was noted came with another one."""
    if noted.get("url") != url or noted.get("sha256") != hashlib.sha256(der).hexdigest():
        return Validators()
    return Validators(str(noted.get("etag", "")), str(noted.get("last_modified", "")))


def _withdrawn(one: _Primed, answer: Answer) -> Answer:
    until = (
        f"it ends {one.life.end:%Y-%m-%d %H:%M:%S} UTC" if one.life is not None else "it is not acceptable"
    )
    text = f"the staple file of {one.name} is withdrawn ({until}); the server fetches for itself"
    found = find(Code.STAPLE_NEAR_EXPIRY, one.name, text)
    return Answer(None, None, (*answer.findings, found))


def _without_answer(one: _Primed, answer: Answer, course: Course) -> Result:
    """What is told while the file is still good: nothing to worry about at first, an alarm near its end."""
    facts = {"lineage": one.name, "generation": one.identity, "leaf_sha256": one.expected.sha256}
    cause = diagnosis.cause_of(answer.findings)
    if course is not Course.ALARM and not intake.revoked(answer):
        return Result("refresh", Verdict.PENDING, cause, answer.findings, (), facts)
    end = f"{one.life.end:%Y-%m-%d %H:%M:%S}" if one.life is not None else "now"
    text = f"the staple file of {one.name} ends {end} UTC and no newer good answer can be had"
    near = find(Code.STAPLE_NEAR_EXPIRY, one.name, text)
    findings = (*answer.findings, near)
    return Result("refresh", Verdict.DEGRADED, cause or near.code, findings, (), facts)


def _candidate(world: World, one: _Primed, answer: Answer, budget: Budget) -> Run | Result:
    """Return the run that would publish a generation with this answer, or why there can be none."""
    certificates, findings = intake.take_in(world, (str(world.state.live_path(one.name)),))
    if criticals(findings) or not certificates:
        cause = diagnosis.cause_of(findings)
        return Result("refresh", Verdict.REFUSED, cause, findings, (), {"lineage": one.name})
    found = survey(world, one.name, (), certificates[0].material.facts.names)
    now = world.clock.now()
    identity = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{one.expected.sha256[:8]}"
    # Patience counts from when the certificate was received, not from each of its staples.
    before = world.state.record(one.name)
    since = before.since if before is not None else now.isoformat(timespec="seconds")
    run = Run(
        world,
        one.name,
        budget,
        certificates,
        found,
        Record(one.name, State.STAGE, identity, one.identity, since),
    )
    run.answers = (answer,)
    run.came_from = one.origin
    run.findings += answer.findings
    run.files = files(run, identity)
    if answer.der is not None:
        # Back to a file that is still good, should the new one not be served; never back to one that ends.
        run.revival = revive(world, one.name, one.identity, found)
    return run


def _finish(world: World, steps: Sequence[_Step]) -> tuple[Result, ...]:
    """Take every run up to its reload, reload each server once, then prove them one after the other."""
    ended = [one for one in steps if isinstance(one, Result)]
    waiting: list[Run] = []
    for run in (one for one in steps if isinstance(one, Run)):
        staged = _guarded(run.name, partial(_until_reload, world, run))
        if isinstance(staged, Result):
            ended.append(staged)
        else:
            waiting.append(run)
    done: Reloads = {}
    for run in [one for one in waiting if one.record.state is State.RELOAD]:
        run.record = replace(run.record, state=advance(State.RELOAD, reload(run, done)))
    for run in waiting:
        proved = _guarded(run.name, partial(run_from, run))
        if isinstance(proved, Result):
            ended.append(replace(proved, command="refresh"))
            _thin_out(world, run)
    return tuple(ended)


def _until_reload(world: World, run: Run) -> Run:
    while run.record.state not in (State.RELOAD, State.SEALED):
        world.state.journal(run.record)
        run.record = replace(run.record, state=advance(run.record.state, act(run, run.record.state)))
    world.state.journal(run.record)
    return run


def _thin_out(world: World, run: Run) -> None:
    """Of one certificate's staples keep the live one and the one before: room for earlier certificates."""
    state, mine = world.state, [one.expected.sha256 for one in run.certificates]
    for identity in state.identities(run.name):
        if identity in (state.live(run.name), run.record.previous):
            continue
        try:
            leaves = state.load(run.name, identity).manifest.get("leaf_sha256")
        except BrokenGeneration:
            continue
        if leaves == mine:
            state.discard(run.name, identity)
