"""Look at what serves a lineage, and compare it with what should be served; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stapleguard.diagnosis import BREAKING, MISSING, Result
from stapleguard.engine import intake
from stapleguard.engine.bystanders import bystanders
from stapleguard.engine.evidence import gather
from stapleguard.engine.look import hurried, result_of
from stapleguard.engine.previous import revive
from stapleguard.engine.prober import Target
from stapleguard.engine.proof import prove
from stapleguard.engine.survey import survey
from stapleguard.engine.world import World
from stapleguard.finding import Code, Finding, find
from stapleguard.model import Verdict


def check_lineage(world: World, name: str, sources: Sequence[str], timeout: float) -> Result:
    """Look at every place that serves a deployed or configured lineage; compare with what it should serve."""
    live = world.state.live(name)
    certificates, faults = intake.take_standing(world, name, sources)
    found = survey(world, name, sources, intake.names_of(certificates))
    revival = revive(world, name, live, found)
    target = revival.target if live else Target(found.endpoints, tuple(one.expected for one in certificates))
    if not found.endpoints:
        nowhere = find(Code.SERVED_UNREACHABLE, name, f"no web server of this host is known to serve {name}")
        return Result("check", Verdict.INCONCLUSIVE, nowhere.code, (nowhere, *faults))
    if found.instance is not None and not found.running:
        stopped = find(Code.SERVER_NOT_RUNNING, found.instance.config, f"{found.kinds} is not running")
        return Result("check", Verdict.INCONCLUSIVE, stopped.code, (stopped, *faults))
    proof = prove(hurried(world), target, timeout)
    more: list[Finding] = []
    if any(one.code in MISSING | BREAKING for one in proof.findings):
        more = [*gather(world, found, certificates, proof.strands), *bystanders(proof.strands)]
    return replace(result_of(world, proof, more), extra={"lineage": name, "mode": found.mode.value})
