"""Staple files renewed at half their life, one reload for all of them; withdrawn before they end (I11)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509

from stapleguard import diagnosis, host, ocsp
from stapleguard.backoff import Attempts, Pace
from stapleguard.diagnosis import Result
from stapleguard.disk import BrokenGeneration
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
from stapleguard.model import Json, Verdict, escape
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
    ended: list[Result] = []
    changed: list[Run] = []
    for one in _primed(world):
        course = one.course(world)
        if course is Course.KEEP or not (course is Course.WITHDRAW or _due(world, one)):
            continue
        answer = _ask(world, one)
        if answer.der is not None:
            changed += _candidate(world, one, answer, budget)
            continue
        _failed(world, one)
        if course is Course.WITHDRAW:
            changed += _candidate(world, one, _withdrawn(one, answer), budget)
        else:
            ended.append(_without_answer(one, answer, course))
    return (*ended, *_publish_all(world, changed))


def withdraw(world: World, budget: Budget, courses: Sequence[Course]) -> tuple[Result, ...]:
    """Take away the staple files that are on one of `courses`, asking nobody: servers fetch themselves."""
    changed: list[Run] = []
    for one in _primed(world):
        if one.course(world) in courses:
            changed += _candidate(world, one, _withdrawn(one, _BARE), budget)
    return _publish_all(world, changed)


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


def _candidate(world: World, one: _Primed, answer: Answer, budget: Budget) -> list[Run]:
    """Return the run that would publish a generation with this answer; none where that cannot be."""
    certificates, findings = intake.take_in(world, (str(world.state.live_path(one.name)),))
    if criticals(findings) or not certificates:
        return []
    found = survey(world, one.name, (), certificates[0].material.facts.names)
    now = world.clock.now()
    identity = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{one.expected.sha256[:8]}"
    since = now.isoformat(timespec="seconds")
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
    return [run]


def _publish_all(world: World, runs: Sequence[Run]) -> tuple[Result, ...]:
    """Take every run up to its reload, reload each server once, then prove them one after the other."""
    for run in runs:
        while run.record.state not in (State.RELOAD, State.SEALED):
            world.state.journal(run.record)
            run.record = replace(run.record, state=advance(run.record.state, act(run, run.record.state)))
    waiting = [run for run in runs if run.record.state is State.RELOAD]
    for run in waiting:
        world.state.journal(run.record)
    done: Reloads = {}
    for run in waiting:
        run.record = replace(run.record, state=advance(State.RELOAD, reload(run, done)))
    return tuple(replace(run_from(run), command="refresh") for run in runs)
