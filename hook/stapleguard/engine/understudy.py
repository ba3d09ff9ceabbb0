"""The understudy: a private instance of the server proves a generation before the real one ever sees it.

It plays with the candidate's files on a port of loopback, as the server's own user, in its network namespace,
with the TLS, resolver and stapling settings in force. It can neither publish anything nor change the server:
all it writes is in a directory of its own, and all it is asked are handshakes. Decision 14 says what follows.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

from stapleguard import diagnosis, host
from stapleguard.config import Understudies
from stapleguard.diagnosis import Need, Served, Strand, cause_of, may_pass, strand_findings, unique
from stapleguard.diagnosis.inference import infer
from stapleguard.diagnosis.understudy import (
    Course,
    Showing,
    Standing,
    beside,
    choose,
    only_here,
)
from stapleguard.engine.evidence import Case, facts_of
from stapleguard.engine.proof import Proof, prove
from stapleguard.engine.run import Run, stapling_for
from stapleguard.engine.sight import Sighter
from stapleguard.engine.survey import Mode, Use
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, criticals
from stapleguard.host import Child, Network
from stapleguard.model import (
    Ask,
    Endpoint,
    HandshakeFault,
    Interrupted,
    Json,
    StapleguardError,
    Verdict,
    escape,
)
from stapleguard.servers import Account, Site, Stage, Stapling, Understudy
from stapleguard.servers.running import UNDERSTUDY as PREFIX
from stapleguard.wire.handshake import Limits, observe

_SITES: Final = 8
_INTERVAL: Final = 0.005
_SLOWEST: Final = 0.1
_DOUBT: Final = 1.0
"""Seconds without a staple after which a diagnosis is begun."""
_WITHOUT_ANSWER: Final = 1.0
"""Seconds where the responder has no answer for us either: all but the staple is looked at then."""
_STOP_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 3.0
"""Seconds for each question of a diagnosis: a renewal is waiting for it."""
_TAIL: Final = 65536
_DENIED: Final = re.compile(r"Operation not permitted|Permission denied")


Diagnosis: TypeAlias = "Future[tuple[Finding, ...]]"


@dataclass(frozen=True, slots=True)
class Performance:
    """What one understudy has shown."""

    kind: str
    showing: Showing
    findings: tuple[Finding, ...]
    seconds: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of the generation; `proof` is that of the previous one where it was asked for."""

    course: Course
    findings: tuple[Finding, ...] = ()
    proof: Proof | None = None


def audition(run: Run) -> Judgement:
    """Have an understudy of each server prove the candidate, say what it showed, and decide."""
    for use in run.found.uses if wanted(run) else ():
        if not _plays(run, use):
            continue
        performance = perform(run, use)
        if performance is None:
            continue
        _tell(run.world, performance)
        if performance.showing not in (Showing.BARE, Showing.BAD):
            continue
        judgement = _judge(run, performance)
        if judgement.course is not Course.PUBLISH:
            return judgement
    return Judgement(Course.PUBLISH)


def wanted(run: Run) -> bool:
    """Whether there is anything to prove: a new certificate, and a previous one that could stay."""
    if run.world.config.understudy is Understudies.OFF or run.revival is None or run.revival.previous is None:
        return False
    served = {one.sha256 for one in run.revival.target.expected}
    return any(
        one.expected.need is Need.STAPLE and one.expected.sha256 not in served for one in run.certificates
    )


def _plays(run: Run, use: Use) -> bool:
    return use.mode is Mode.GUARD and use.running and stapling_for(run, use) is not Stapling.OFF


def _tell(world: World, performance: Performance) -> None:
    who = f"understudy {performance.kind}"
    after = f"after {performance.seconds * 1000:.0f} ms"
    code = cause_of(criticals(performance.findings))
    cause = next((one for one in performance.findings if one.code is code), None)
    match performance.showing:
        case Showing.GOOD:
            world.say(f"{who}: a good staple {after}{performance.why}", Tone.GOOD)
        case Showing.NOTHING:
            world.say(f"{who} could not play ({escape(performance.why)}); going on without it", Tone.WARN)
        case Showing.BARE | Showing.BAD:
            told = f"{cause.code.value}: {cause.message}" if cause else "the cause is not known"
            world.say(f"{who}: {performance.showing.value} {after}{performance.why}; {told}", Tone.WARN)


# --- the decision ----------------------------------------------------------------------------------------


def _judge(run: Run, performance: Performance) -> Judgement:
    world, now = run.world, run.world.clock.now()
    showing, findings = performance.showing, performance.findings
    revival = run.revival
    previous = revival.previous if revival else None
    # Asked as if all were well with the previous one: it is looked at only where that matters.
    course = choose(showing, findings, Standing(previous, served=True, stapled=True), now)
    if course is Course.PUBLISH or revival is None or not run.found.retractable:
        world.say("it is published by policy all the same", Tone.WARN)
        return Judgement(Course.PUBLISH)
    proof = prove(world, revival.target, min(_LOOK_SECONDS, run.budget.prove))
    verdict = diagnosis.verdict_of(proof.findings, proof.strands)
    served = all(one.last is not None and one.last.served is Served.EXPECTED for one in proof.strands)
    standing = Standing(previous, served, verdict is Verdict.VERIFIED)
    course = choose(showing, findings, standing, now)
    if course is Course.PUBLISH:
        world.say("the previous certificate has no good staple either: it is published by policy", Tone.WARN)
        return Judgement(course)
    world.say("the previous generation stays in service; nothing is published", Tone.BAD)
    return Judgement(course, findings, proof)


# --- the performance -------------------------------------------------------------------------------------


def perform(run: Run, use: Use) -> Performance | None:
    """Start an understudy, watch it, find out why where it fails, and stop it; None where there is none."""
    clock = run.world.clock
    begun = clock.monotonic()
    kind = use.instance.kind
    try:
        with ExitStack() as stack:
            directory = stack.enter_context(TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True))
            network = stack.enter_context(host.network_of(use.instance.master or 0))
            stage = _stage(run, use, directory, network)
            composed = use.server.understudy(use.instance, stage)
            if composed is None:
                return None
            showing, findings, why = _Play(run, use, stage, composed, network).play()
    except Interrupted:
        raise
    except (OSError, StapleguardError) as error:
        return Performance(kind, Showing.NOTHING, (), clock.monotonic() - begun, str(error))
    if stage.account is Account.OURS and showing is not Showing.NOTHING:
        why = f"{why}, as our own user"
    return Performance(kind, showing, findings, clock.monotonic() - begun, why)


def _stage(run: Run, use: Use, directory: str, network: Network) -> Stage:
    # A block without an address is in no program's way; what counts is the configuration around it.
    sites = tuple({one.where: one for one in use.sites}.values())[:_SITES]
    master = host.process(use.instance.master) if use.instance.master else None
    alone = master is not None and master.uid == 0 and not host.may_change_user()
    return Stage(
        directory,
        str(run.world.state.directory_of(run.name, run.record.candidate)),
        str(run.world.state.live_path(run.name)),
        sites,
        network.do(lambda: host.free_ports(len(sites))),
        Account.OURS if alone else Account.SERVER,
    )


class _Play:
    """One performance: the child, and what was seen of it so far."""

    def __init__(self, run: Run, use: Use, stage: Stage, composed: Understudy, network: Network) -> None:
        self.run = run
        self.use = use
        self.stage = stage
        self.composed = composed
        self.network = network
        self.world = run.world
        self.sighter = Sighter(run.world, [one.expected for one in run.certificates])
        self.strands = tuple(self._strands())
        self.output = Path(stage.directory, "output")

    def _strands(self) -> Iterator[Strand]:
        for site, port in zip(self.stage.sites, self.stage.ports, strict=True):
            name = self._name(site)
            endpoint = Endpoint(name or "127.0.0.1", port, name, "127.0.0.1")
            for one in self.run.certificates:
                expected = one.expected
                yield Strand(endpoint, expected.key_type, expected.need, expected.must_staple, (), None, 0.0)

    def _name(self, site: Site) -> str:
        """The name that the prober asks for on this site, as the real endpoints have it."""
        places = {(one.address, one.port): one.server_name for one in self.run.found.endpoints}
        known = next((places[place] for place in site.listens if place in places), "")
        return known or next((one.server_name for one in self.run.found.endpoints), "")

    def play(self) -> tuple[Showing, tuple[Finding, ...], str]:
        """Start it, ask it, and look into it before it is stopped."""
        for name, text in self.composed.files.items():
            Path(self.stage.directory, name).write_text(text)
        with ThreadPoolExecutor(max_workers=1) as doctor, self._started() as child:
            told = self._watch(child, lambda: doctor.submit(self._examined, child))
            if child.poll() is not None or self._barred or not all(map(_reached, self.strands)):
                return self._nothing(child)
            if all(strand.last is not None and strand.good(strand.last) for strand in self.strands):
                return Showing.GOOD, (), ""
            findings = self._translated(told.result() if told is not None else self._examined(child))
        bad = diagnosis.BREAKING - {Code.STAPLE_MUST_STAPLE_UNMET}
        seen = {found.code for strand in self.strands for found in strand_findings(strand)}
        return Showing.BAD if seen & bad else Showing.BARE, findings, ""

    @contextmanager
    def _started(self) -> Iterator[Child]:
        """The child, and its end: also where a signal has interrupted us."""
        directory = Path(self.stage.directory)
        with ExitStack() as stack:
            child = self.network.do(
                lambda: Child.spawn(self.composed.argv, directory, self.output, self.composed.env)
            )
            stack.callback(child.stop, _STOP_SECONDS, (signal.SIGTERM,))
            yield child

    def _watch(self, child: Child, diagnose: Callable[[], Diagnosis]) -> Diagnosis | None:
        """Ask until every strand is good or never will be, the cause is known, or time is up.

        A diagnosis is begun beside it as soon as there is a doubt.
        """
        clock = self.world.clock
        begun, pause = clock.monotonic(), _INTERVAL
        end = begun + self._budget()
        told: Diagnosis | None = None
        while child.poll() is None:
            # Apache asks the responder within the handshake, and goes on with that when we hang up.
            self._look(min(_DOUBT, max(0.05, end - clock.monotonic())))
            now = clock.monotonic()
            if now >= end or all(strand.settled or self._bad(strand) for strand in self.strands):
                break
            if self._barred or self._seen_enough(now - begun):
                break
            if told is None and self._answered and (self._doubtful(now - begun) or criticals(self._log())):
                told = diagnose()
            elif told is not None and told.done() and _lasting(told.result()):
                break
            clock.wait(min(pause, max(0.0, end - now)))
            # It starts within milliseconds, and fetches within some more; after that nothing hurries.
            pause = min(pause * 1.5, _SLOWEST)
        return told

    @property
    def _barred(self) -> bool:
        """Whether it says nothing since it may not do what it has to: become another user, for one."""
        return not any(map(_shown, self.strands)) and _DENIED.search(self._said()) is not None

    def _doubtful(self, seconds: float) -> bool:
        return seconds > _DOUBT and all(map(_reached, self.strands))

    @staticmethod
    def _bad(strand: Strand) -> bool:
        """Whether what was seen is wrong in a way that more handshakes do not mend."""
        return strand.doomed or any(
            one.code is Code.SERVER_SERVES_BAD_STAPLE for one in strand_findings(strand)
        )

    def _budget(self) -> float:
        """Seconds to wait for a staple; where nobody gets an answer there is none to wait for."""
        whole = self.world.config.understudy_budget
        return whole if self._answered else min(whole, 2 * _WITHOUT_ANSWER)

    def _seen_enough(self, seconds: float) -> bool:
        """Where nobody gets an answer: whether what is served without one was seen for long enough."""
        return not self._answered and seconds >= _WITHOUT_ANSWER and all(map(_shown, self.strands))

    @property
    def _answered(self) -> bool:
        needy = (
            answer
            for one, answer in zip(self.run.certificates, self.run.answers, strict=True)
            if one.expected.need is Need.STAPLE
        )
        return all(answer.der is not None for answer in needy)

    def _look(self, left: float) -> None:
        """Make one handshake for each strand that is not good yet."""
        open_ = [index for index, strand in enumerate(self.strands) if not strand.settled]
        several = len(self.run.certificates) > 1
        asks = [
            Ask(self.strands[i].endpoint, None, self.strands[i].key_type if several else None) for i in open_
        ]
        limits = Limits(left, left)
        seen = self.network.do(lambda: observe(asks, limits, now=self.world.clock.now))
        strands = [*self.strands]
        for index, observation in zip(open_, seen, strict=True):
            strand = strands[index]
            sighting = self.sighter.sight(observation, strand.key_type)
            strands[index] = replace(strand, sightings=(*strand.sightings, sighting))
        self.strands = tuple(strands)

    # --- why it failed -----------------------------------------------------------------------------------

    def _said(self) -> str:
        paths = (*(Path(one) for one in self.composed.logs), self.output)
        return "".join(_tail(path) for path in paths)

    def _log(self) -> tuple[Finding, ...]:
        found = self.use.server.log_findings(self._said())
        return tuple(one for one in found if one.code not in _OWN_AFFAIRS)

    def _nothing(self, child: Child) -> tuple[Showing, tuple[Finding, ...], str]:
        """Nobody answered: by its own fault, or because the generation breaks TLS."""
        faults = [one.last.observation.fault for one in self.strands if one.last]
        if child.poll() is None and any(one in _BROKEN for one in faults):
            seen = (found for strand in self.strands for found in strand_findings(strand))
            return Showing.BAD, self._translated([*self._log(), *seen]), ""
        words = [line.strip() for line in self._said().splitlines() if line.strip()]
        status = child.poll()
        said = next((line for line in reversed(words) if "emerg" in line or "rror" in line), "")
        said = said or (words[-1] if words else "")
        what = "it gave no handshake in time" if status is None else f"it ended with {status}"
        return Showing.NOTHING, (), f"{what}: {said}" if said else what

    def _examined(self, child: Child) -> tuple[Finding, ...]:
        """Examine it where it stands: another namespace may have name servers of its own."""
        found = self.network.do(lambda: self._why(child))
        return only_here(found) if self._answered and self.network.elsewhere else found

    def _why(self, child: Child) -> tuple[Finding, ...]:
        """Find the cause: what is served, the responder's own word, the log, or what a diagnosis tells."""
        strands = self.strands
        seen = [found for strand in strands if _shown(strand) for found in strand_findings(strand)]
        if any(strand.doomed for strand in strands):
            return unique(seen)
        if not self._answered:
            return unique(beside([*(one for answer in self.run.answers for one in answer.findings), *seen]))
        hurried = replace(
            self.world.config,
            fetch_timeout=min(self.world.config.fetch_timeout, _LOOK_SECONDS),
            test_timeout=min(self.world.config.test_timeout, _LOOK_SECONDS),
        )
        world = replace(self.world, config=hurried)
        instance = replace(self.composed.instance, master=child.pid)
        found: list[Finding] = []
        for one in self.run.certificates:
            if one.expected.need is Need.STAPLE:
                mine = [strand for strand in strands if strand.key_type is one.expected.key_type]
                leaf, endpoint = one.material.leaf, mine[0].endpoint
                # A handshake that waits for the responder shows as little of a staple as one without.
                shown = tuple(strand for strand in mine if _shown(strand))
                case = Case(str(endpoint), leaf, one.issuer, shown, instance, endpoint)
                found += infer(facts_of(world, case))
        told = [one for one in found if one.code not in _OWN_AFFAIRS]
        return unique(beside([*told, *only_here(self._log())]))

    def _translated(self, findings: Sequence[Finding]) -> tuple[Finding, ...]:
        """Speak of the real configuration where something was found in the understudy's."""
        instance = self.composed.instance
        words = dict(self.composed.origins)
        words[instance.config] = self.use.instance.config
        for strand in self.strands:
            words[str(strand.endpoint)] = f"the understudy of {self.use.instance.kind}"
        return tuple(_translated(one, words) for one in findings)


_BROKEN: Final = frozenset(
    {
        HandshakeFault.ALERT,
        HandshakeFault.RESET,
        HandshakeFault.NOT_TLS,
    }
)
"""It accepts connections and no handshake succeeds."""


_OWN_AFFAIRS: Final = frozenset({Code.SERVER_CONFIG_INVALID, Code.STAPLE_NOT_APPLICABLE})
"""What is said of its own configuration, which is ours; the real one was tested with the candidate."""


def _lasting(findings: Sequence[Finding]) -> bool:
    """Whether there is a cause that more waiting does not mend."""
    cause = cause_of(criticals(findings))
    return cause is not None and not may_pass(cause)


def _reached(strand: Strand) -> bool:
    """Whether it took the connection and spoke TLS, or is about to."""
    return strand.last is not None and strand.last.observation.fault in (None, HandshakeFault.STALLED)


def _shown(strand: Strand) -> bool:
    return strand.last is not None and strand.last.observation.fault is None


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-_TAIL:].decode("utf-8", "replace")
    except OSError:
        return ""


def _translated(found: Finding, words: Mapping[str, str]) -> Finding:
    def text(value: str) -> str:
        for one in sorted(words, key=len, reverse=True):
            value = value.replace(one, words[one])
        return value

    def each(value: Json) -> Json:
        match value:
            case str():
                return text(value)
            case Mapping():
                return {key: each(inner) for key, inner in value.items()}
            case Sequence():
                return [each(inner) for inner in value]
            case _:
                return value

    told = {key: each(value) for key, value in found.evidence.items()}
    return replace(
        found,
        subject=text(found.subject),
        message=text(found.message),
        remedy=text(found.remedy),
        evidence=told,
    )
