"""Staple files renewed at half their life, one reload for all of them; withdrawn before they end (I11)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from stapleguard import diagnosis, host, ocsp
from stapleguard.backoff import Attempts, Pace
from stapleguard.diagnosis import Result
from stapleguard.disk import BrokenGeneration, DiskFault, Generation
from stapleguard.engine import intake
from stapleguard.engine.acts import Reloads, act, files, reload, run_from
from stapleguard.engine.contents import Staple, staples
from stapleguard.engine.intake import Answer
from stapleguard.engine.previous import revive
from stapleguard.engine.run import Budget, Run
from stapleguard.engine.survey import survey
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, criticals, find
from stapleguard.freshness import Course, Life, draw_of
from stapleguard.model import Interrupted, Json, LockBusy, StapleguardError, Verdict, escape
from stapleguard.transaction import Record, State, advance
from stapleguard.wire.fetch import Validators, ocsp_exchange

_BARE: Final = Answer(None, None, ())
_URGENT: Final = (Course.KEEP, Course.RENEW, Course.ALARM, Course.WITHDRAW)


@dataclass(frozen=True, slots=True)
class _File:
    """One staple file of a live generation, and what is to be done about it now."""

    staple: Staple
    course: Course
    note: str
    """Where its validators and attempts are noted."""

    @property
    def life(self) -> Life | None:
        """None when the answer is not acceptable (any more)."""
        return self.staple.life


@dataclass(frozen=True, slots=True)
class _Primed:
    """A live generation that staples from files."""

    name: str
    generation: Generation
    files: tuple[_File, ...]

    @property
    def course(self) -> Course:
        """The most urgent of its files."""
        return max((one.course for one in self.files), key=_URGENT.index)

    @property
    def origin(self) -> tuple[str, ...]:
        """Where the ACME client has the certificates."""
        came = self.generation.manifest.get("origin")
        return tuple(str(path) for path in came) if isinstance(came, list) else ()

    @property
    def leaf_sha256(self) -> str:
        """Of the first certificate with a file."""
        return self.files[0].staple.member.expected.sha256


def refresh(world: World, budget: Budget) -> tuple[Result, ...]:
    """Renew every staple file whose time has come; the caller holds the lock and has recovered."""
    return _finish(
        world, [_guarded(one.name, partial(_renewed, world, one, budget)) for one in _primed(world)]
    )


def withdraw(world: World, budget: Budget, courses: Sequence[Course]) -> tuple[Result, ...]:
    """Take away the staple files that are on one of `courses`, asking nobody: servers fetch themselves."""
    steps: list[_Step] = []
    for one in _primed(world):
        answers = {
            file.staple.member.suffix: _withdrawn(one.name, file, _BARE)
            if file.course in courses
            else _kept(file)
            for file in one.files
        }
        if any(file.course in courses for file in one.files):
            steps.append(_guarded(one.name, partial(_candidate, world, one, answers, budget)))
    return _finish(world, steps)


def in_care(world: World) -> frozenset[str]:
    """Return the lineages whose staple file nears its end: proved or not, they are not well."""
    near = (Course.ALARM, Course.WITHDRAW)
    return frozenset(one.name for one in _primed(world) if one.course in near)


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
    """Return the run that publishes newer answers, or none; what is told meanwhile; or nothing to do."""
    answers: dict[str, Answer] = {}
    lacking: list[tuple[_File, Answer]] = []
    changed = False
    for file in one.files:
        suffix = file.staple.member.suffix
        answers[suffix] = _kept(file)
        if file.course is Course.KEEP or not (file.course is Course.WITHDRAW or _due(world, file)):
            continue
        answer = _ask(world, one.name, file)
        if answer.der is not None:
            answers[suffix], changed = answer, True
            continue
        _failed(world, file)
        lacking.append((file, answer))
        if file.course is Course.WITHDRAW:
            answers[suffix], changed = _withdrawn(one.name, file, answer), True
    if changed:
        return _candidate(world, one, answers, budget)
    if not lacking:
        return None
    return _without_answer(one, *max(lacking, key=lambda each: _URGENT.index(each[0].course)))


def _kept(file: _File) -> Answer:
    return Answer(file.staple.der, file.staple.judgement, ())


def _primed(world: World) -> list[_Primed]:
    found: list[_Primed] = []
    now = world.clock.now()
    for name in world.state.lineages():
        try:
            generation = world.state.load(name, world.state.live(name))
            files = tuple(_file(world, name, one) for one in staples(generation, now))
        except (BrokenGeneration, ValueError):
            continue  # a deployment replaces it
        if files:
            found.append(_Primed(name, generation, files))
    return found


def _file(world: World, name: str, staple: Staple) -> _File:
    life = staple.life
    note = f"staple-{name}{staple.member.suffix}"
    if life is None:
        return _File(staple, Course.WITHDRAW, note)
    draw = draw_of(staple.member.expected.sha256, life.begin.isoformat())
    return _File(staple, life.course(world.clock.now(), draw, world.config.refresh_margin), note)


def _pace(world: World, one: _File) -> Pace:
    """Short lives are asked for more often: several attempts must fit between half of it and its end."""
    length = one.life.length.total_seconds() if one.life is not None else 0.0
    floor, cap = world.config.retry_floor, world.config.retry_cap
    return Pace(min(floor, length / 20), min(cap, length / 16)) if length else Pace(floor, cap)


def _due(world: World, one: _File) -> bool:
    attempts = Attempts.from_json(world.state.observation(one.note).get("attempts"))
    return attempts.due(world.clock.now(), _pace(world, one).cap)


def _failed(world: World, one: _File) -> None:
    noted = world.state.observation(one.note)
    attempts = Attempts.from_json(noted.get("attempts"))
    after = attempts.failed(world.clock.now(), _pace(world, one), host.draw())
    world.state.observe(one.note, {**noted, "attempts": after.to_json()})


def _ask(world: World, name: str, one: _File) -> Answer:
    """Ask the certificate's responders for something newer; only that is an answer."""
    member = one.staple.member
    if member.expected.issuer is None:
        return _BARE
    findings: list[Finding] = []
    request = ocsp.request(member.leaf, member.expected.issuer)
    noted = world.state.observation(one.note)
    for url in intake.responders(member.leaf):
        fetched = ocsp_exchange(url, request, world.fetch_policy, _validators(noted, url, one.staple.der))
        findings += fetched.findings
        if fetched.unchanged:
            world.say(f"{name}: the responder has nothing newer yet")
        if fetched.body is None:
            continue
        judgement = ocsp.judge(fetched.body, member.leaf, member.expected.issuer, world.clock.now())
        findings += [
            replace(found, subject=f"{found.subject} from {escape(url)}") for found in judgement.findings
        ]
        if judgement.acceptance is not ocsp.Acceptance.ACCEPTED or judgement.this_update is None:
            continue
        if one.life is not None and Life.of(judgement.this_update, judgement.next_update).end <= one.life.end:
            world.say(f"{name}: the responder has nothing newer yet")
            continue
        seen = fetched.validators
        known = {"url": url, "etag": seen.etag, "last_modified": seen.last_modified}
        world.state.observe(one.note, {**known, "sha256": judgement.sha256})
        until = f"{judgement.next_update:%Y-%m-%d %H:%M:%S} UTC" if judgement.next_update else "no given end"
        world.say(f"{name}: a newer answer, until {until}", Tone.GOOD)
        return Answer(fetched.body, judgement, tuple(found for found in findings if not found.critical))
    return Answer(None, None, tuple(findings))


def _validators(noted: Mapping[str, Json], url: str, der: bytes) -> Validators:
    """Return what goes with the published answer; nothing when what was noted came with another one."""
    if noted.get("url") != url or noted.get("sha256") != hashlib.sha256(der).hexdigest():
        return Validators()
    return Validators(str(noted.get("etag", "")), str(noted.get("last_modified", "")))


def _withdrawn(name: str, one: _File, answer: Answer) -> Answer:
    until = (
        f"it ends {one.life.end:%Y-%m-%d %H:%M:%S} UTC" if one.life is not None else "it is not acceptable"
    )
    text = f"the staple file of {name} is withdrawn ({until}); the server fetches for itself"
    found = find(Code.STAPLE_NEAR_EXPIRY, name, text)
    return Answer(None, None, (*answer.findings, found))


def _without_answer(one: _Primed, file: _File, answer: Answer) -> Result:
    """What is told while the file is still good: nothing to worry about at first, an alarm near its end."""
    sha256 = file.staple.member.expected.sha256
    facts = {"lineage": one.name, "generation": one.generation.identity, "leaf_sha256": sha256}
    cause = diagnosis.cause_of(answer.findings)
    if file.course is not Course.ALARM and not intake.revoked(answer):
        return Result("refresh", Verdict.PENDING, cause, answer.findings, (), facts)
    end = f"{file.life.end:%Y-%m-%d %H:%M:%S}" if file.life is not None else "now"
    text = f"the staple file of {one.name} ends {end} UTC and no newer good answer can be had"
    near = find(Code.STAPLE_NEAR_EXPIRY, one.name, text)
    findings = (*answer.findings, near)
    return Result("refresh", Verdict.DEGRADED, cause or near.code, findings, (), facts)


def _candidate(world: World, one: _Primed, answers: Mapping[str, Answer], budget: Budget) -> Run | Result:
    """Return the run that would publish a generation with these answers, or why there can be none.

    `answers` go by the suffix of the certificate that each is about.
    """
    certificates, findings = intake.take_live(world, one.name)
    if criticals(findings) or not certificates:
        cause = diagnosis.cause_of(findings)
        return Result("refresh", Verdict.REFUSED, cause, findings, (), {"lineage": one.name})
    found = survey(world, one.name, (), certificates[0].material.facts.names)
    now = world.clock.now()
    identity = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{one.leaf_sha256[:8]}"
    # Patience counts from when the certificate was received, not from each of its staples.
    before = world.state.record(one.name)
    since = before.since if before is not None else now.isoformat(timespec="seconds")
    run = Run(
        world,
        one.name,
        budget,
        certificates,
        found,
        Record(one.name, State.STAGE, identity, one.generation.identity, since),
    )
    run.answers = tuple(answers.get(each.suffix, _BARE) for each in certificates)
    run.came_from = one.origin
    run.findings += [found for each in run.answers for found in each.findings]
    run.files = files(run, identity)
    if all(each.der is not None for each in answers.values()):
        # Back to a file that is still good, should the new one not be served; never back to one that ends.
        run.revival = revive(world, one.name, one.generation.identity, found)
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
