"""The floor under a proof: a bare reload, and handshakes until each new worker has stapled."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from stapleguard import host, ocsp
from stapleguard.model import Ask, Endpoint, Observation
from stapleguard.servers import Instance, nginx
from stapleguard.wire.handshake import Limits, observe

from bench.deployed import NAME, BenchSite
from bench.figures import BenchError

_GIVE_UP = 10.0


@dataclass(frozen=True)
class Floor:
    """Seconds: for the command, and from its end until each new worker was seen to staple."""

    command: float
    seen: float


def floor(site: BenchSite, instance: Instance, leaf: x509.Certificate, workers: int) -> Floor:
    """Reload without us, and look as often as we can until each new worker has stapled."""
    before = set(nginx.workers(instance))
    asks = [Ask(Endpoint(NAME, site.port, NAME, "127.0.0.1"))] * (2 * workers)
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
        good |= {one.worker for one in looked if one.worker in fresh and _stapled(one, leaf)}
        if len(good) == workers:
            return Floor(asked - begun, monotonic() - asked)
    raise BenchError(f"only {len(good)} of {workers} workers stapled within {_GIVE_UP:g} s")


def _stapled(seen: Observation, leaf: x509.Certificate) -> bool:
    der = leaf.public_bytes(serialization.Encoding.DER)
    if seen.staple is None or len(seen.chain) < 2 or seen.chain[0] != der:
        return False
    issuer = x509.load_der_x509_certificate(seen.chain[1])
    judgement = ocsp.judge(seen.staple, leaf, issuer, datetime.now(UTC))
    return judgement.acceptance is ocsp.Acceptance.ACCEPTED
