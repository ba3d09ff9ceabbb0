"""A deployment's proof beside the floor that nginx itself sets."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from stapleguard import host, ocsp
from stapleguard.model import Ask, Endpoint, Observation
from stapleguard.rehearsal.authority import Issued
from stapleguard.servers import Instance, nginx
from stapleguard.wire.handshake import Limits, observe

from bench.deployed import NAME, BenchSite, opened
from bench.figures import BenchError, Report, Row, quotients, say
from bench.options import Options

_WORKERS = 4
_BURST = 2 * _WORKERS
_GIVE_UP = 10.0


@dataclass(frozen=True)
class _Floor:
    """Seconds: for the command, and from its end until each new worker was seen to staple."""

    command: float
    seen: float


def run(options: Options) -> Report:
    """Measure."""
    floors: list[_Floor] = []
    proofs: list[float] = []
    with opened(_WORKERS) as site:
        (instance,) = nginx.instances(site.binary, str(site.nginx.config))
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            issued = site.renew()
            took = site.proof()
            floor = _floor(site, instance, issued)
            if took is not None:
                proofs.append(took)
                floors.append(floor)
    if not proofs:
        raise BenchError("no deployment was proved")
    seen = [one.seen for one in floors]
    report = Report("proof", f"a reload and its proof, nginx with {_WORKERS} workers that ask the responder")
    report.rows = [
        Row("`nginx -s reload`, the command", "ms", [one.command * 1000 for one in floors], 0),
        Row("floor: from its end to a good staple from every worker", "ms", [one * 1000 for one in seen], 0),
        Row('deploy: from "reloaded nginx" to "proved"', "ms", [one * 1000 for one in proofs], 0),
        Row("deploy / floor", "times", quotients(proofs, seen), 2),
    ]
    report.notes.append(
        f"proved: {len(proofs)} of {options.rounds} deployments; only they are in the figures"
    )
    return report


def _floor(site: BenchSite, instance: Instance, issued: Issued) -> _Floor:
    """Reload without us, and look as often as we can until each new worker has stapled."""
    before = set(nginx.workers(instance))
    asks = [Ask(Endpoint(NAME, site.port, NAME, "127.0.0.1"))] * _BURST
    begun = monotonic()
    reload = [instance.binary, *instance.arguments, "-s", "reload"]
    subprocess.run(reload, check=True, capture_output=True)
    asked = monotonic()
    good: set[int | None] = set()
    while monotonic() < asked + _GIVE_UP:
        fresh = set(nginx.workers(instance)) - before
        looked = observe(
            asks,
            Limits(),
            now=lambda: datetime.now(UTC),
            owners=lambda pairs, fresh=fresh: host.owners(pairs, tuple(fresh)),
        )
        good |= {one.worker for one in looked if one.worker in fresh and _stapled(one, issued)}
        if len(good) == _WORKERS:
            return _Floor(asked - begun, monotonic() - asked)
    raise BenchError(f"only {len(good)} of {_WORKERS} workers stapled within {_GIVE_UP:g} s")


def _stapled(seen: Observation, issued: Issued) -> bool:
    der = issued.certificate.public_bytes(serialization.Encoding.DER)
    if seen.staple is None or len(seen.chain) < 2 or seen.chain[0] != der:
        return False
    issuer = x509.load_der_x509_certificate(seen.chain[1])
    judgement = ocsp.judge(seen.staple, issued.certificate, issuer, datetime.now(UTC))
    return judgement.acceptance is ocsp.Acceptance.ACCEPTED
