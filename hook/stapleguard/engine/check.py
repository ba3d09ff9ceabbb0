"""Look at live handshakes and judge them; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stapleguard import diagnosis
from stapleguard.config import endpoint
from stapleguard.diagnosis import BREAKING, MISSING, Decision, Result
from stapleguard.engine import intake
from stapleguard.engine.evidence import gather
from stapleguard.engine.previous import revive
from stapleguard.engine.proof import Proof, Target, prove
from stapleguard.engine.survey import survey
from stapleguard.engine.world import Tone, World
from stapleguard.finding import Code, Finding, find
from stapleguard.model import Endpoint, Severity, Verdict
from stapleguard.wire.handshake import addresses


def check_address(world: World, text: str, server_name: str, only: Sequence[str], timeout: float) -> Result:
    """Look at HOST:PORT on every address it has (or on `only` these), asking for `server_name`."""
    host, port = endpoint(text)
    found = tuple(only) or addresses(host, world.config.handshake_timeout)
    if not found:
        missing = find(Code.DNS_NAME_NOT_FOUND, text, f"{host} has no address")
        return Result("check", Verdict.INCONCLUSIVE, missing.code, (missing,))
    endpoints = tuple(Endpoint(host, port, server_name or host, address) for address in found)
    return _result(world, _prove(world, Target(endpoints), timeout), ())


def check_lineage(world: World, name: str, sources: Sequence[str], timeout: float) -> Result:
    """Look at every place that serves a deployed or configured lineage; compare with what it should serve."""
    live = world.state.live(name)
    # What is deployed is compared; what the ACME client has is only looked at where nothing is deployed yet.
    origin = (str(world.state.live_path(name)),) if live else tuple(sources)
    certificates, faults = (
        intake.take_in(world, origin, world.config.lineage(name).names) if origin else ((), ())
    )
    names = tuple(dict.fromkeys(one for each in certificates for one in each.material.facts.names))
    found = survey(world, name, sources, names)
    revival = revive(world, name, live, found)
    target = revival.target if live else Target(found.endpoints, tuple(one.expected for one in certificates))
    if not found.endpoints:
        nowhere = find(Code.SERVED_UNREACHABLE, name, f"no web server of this host is known to serve {name}")
        return Result("check", Verdict.INCONCLUSIVE, nowhere.code, (nowhere, *faults))
    if not found.running:
        config = found.instance.config if found.instance else name
        stopped = find(Code.SERVER_NOT_RUNNING, config, "nginx is not running")
        return Result("check", Verdict.INCONCLUSIVE, stopped.code, (stopped, *faults))
    proof = _prove(world, target, timeout)
    more: list[Finding] = []
    if any(one.code in MISSING | BREAKING for one in proof.findings):
        more = gather(world, found, certificates)
    return replace(_result(world, proof, more), extra={"lineage": name, "mode": found.mode.value})


def _prove(world: World, target: Target, timeout: float) -> Proof:
    config = replace(world.config, prove_quiet=min(world.config.prove_quiet, 1.5))
    return prove(replace(world, config=config), target, timeout)


def _result(world: World, proof: Proof, more: Sequence[Finding]) -> Result:
    findings = diagnosis.unique((*proof.findings, *more))
    verdict = diagnosis.verdict_of(findings, proof.strands)
    if verdict is Verdict.VERIFIED and proof.decision is not Decision.SETTLED:
        world.say("good so far, but not every worker was met", Tone.WARN)
        verdict = Verdict.INCONCLUSIVE
    settled = verdict in (Verdict.VERIFIED, Verdict.NOT_APPLICABLE)
    if verdict is Verdict.NOT_APPLICABLE:
        text = "the certificate names no OCSP responder, so no staple is expected"
        findings = (*findings, find(Code.STAPLE_NOT_APPLICABLE, "certificate", text, severity=Severity.INFO))
    return Result(
        "check", verdict, None if settled else diagnosis.cause_of(findings), findings, proof.strands
    )
