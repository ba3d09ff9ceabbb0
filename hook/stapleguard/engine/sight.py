"""From an observation to a sighting: the chain check and the judge's word, asked once for the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from cryptography import x509

from stapleguard import ocsp
from stapleguard.diagnosis import Need, Served, Sighting
from stapleguard.engine.world import World
from stapleguard.finding import Code, Finding, find
from stapleguard.material import NameMatch, TrustPath, leaf_facts, matches_name
from stapleguard.model import Endpoint, KeyType, LeafFacts, Observation
from stapleguard.wire.trust import verify_path

_REMEMBERED: Final = 512
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Expected:
    """One certificate that must be served, and what must come with it."""

    sha256: str
    key_type: KeyType
    issuer: x509.Certificate | None
    need: Need
    must_staple: bool


@dataclass(frozen=True, slots=True)
class _Chain:
    """What one chain of exact bytes is; the path holds from `since` to `until` (UTC)."""

    leaf: x509.Certificate
    facts: LeafFacts
    path: TrustPath
    proved_issuer: x509.Certificate | None
    sent_issuer: x509.Certificate | None
    since: datetime
    until: datetime


class Sighter:
    """Judges observations; remembers by exact bytes, and looks at the times again whenever they moved."""

    def __init__(self, world: World, expected: Sequence[Expected]) -> None:
        self.world = world
        self.expected = {one.key_type: one for one in expected}
        self.chains: dict[tuple[bytes, ...], _Chain] = {}
        self.judged: dict[tuple[bytes, tuple[bytes, ...]], tuple[datetime, ocsp.Judgement]] = {}
        self.found: dict[tuple[tuple[bytes, ...], Endpoint], tuple[Finding, ...]] = {}

    def sight(self, observation: Observation, key_type: KeyType | None) -> Sighting:
        """Say what was seen; `key_type` is that of the certificate which is expected here, if any is."""
        if observation.fault is not None or not observation.chain:
            return Sighting(observation, Served.NOTHING)
        now = self.world.clock.now()
        chain = self._chain(observation.chain, now)
        expected = self.expected.get(key_type) if key_type is not None else None
        if expected is not None and expected.sha256 != chain.facts.sha256:
            return Sighting(observation, Served.OTHER, chain.facts)
        # The issuer is that of the verified path; without one, the one expected; the peer's own word is last.
        issuer = chain.proved_issuer or (expected.issuer if expected else None) or chain.sent_issuer
        judgement = None
        if observation.staple is not None and issuer is not None:
            judgement = self._judge(observation.staple, observation.chain, chain.leaf, issuer, now)
        findings = self._findings(observation, chain)
        return Sighting(observation, Served.EXPECTED, chain.facts, judgement, findings)

    def _chain(self, sent: tuple[bytes, ...], now: datetime) -> _Chain:
        known = self.chains.get(sent)
        if known is not None and known.since <= now < known.until:
            return known
        certificates = [x509.load_der_x509_certificate(one) for one in sent]
        leaf = certificates[0]
        path = verify_path(leaf, certificates[1:], self.world.anchors, now)
        proved = path.certificates[1] if len(path.certificates) > 1 else None
        claimed = certificates[1] if len(certificates) > 1 else None
        dated = path.certificates or tuple(certificates)
        moments = [moment for one in dated for moment in (one.not_valid_before_utc, one.not_valid_after_utc)]
        since = max((moment for moment in moments if moment <= now), default=now)
        until = min((moment for moment in moments if moment > now), default=now)
        made = _Chain(leaf, leaf_facts(leaf), path, proved, claimed, since, until)
        _keep(self.chains, sent, made)
        for key in [key for key in self.found if key[0] == sent]:
            del self.found[key]
        return made

    def _judge(
        self,
        staple: bytes,
        sent: tuple[bytes, ...],
        leaf: x509.Certificate,
        issuer: x509.Certificate,
        now: datetime,
    ) -> ocsp.Judgement:
        known = self.judged.get((staple, sent))
        if known is not None and known[0] <= now < known[1].holds_until:
            return known[1]
        judgement = ocsp.judge(staple, leaf, issuer, now)
        _keep(self.judged, (staple, sent), (now, judgement))
        return judgement

    def _findings(self, observation: Observation, chain: _Chain) -> tuple[Finding, ...]:
        endpoint = observation.ask.endpoint
        key = (observation.chain, endpoint)
        if key not in self.found:
            _keep(self.found, key, _chain_findings(endpoint, chain.leaf, chain.path))
        return self.found[key]


def _keep(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Remember the newest: a poll asks a few servers again and again, a fleet asks each of many once."""
    known[key] = value
    while len(known) > _REMEMBERED:
        del known[next(iter(known))]


def _chain_findings(endpoint: Endpoint, leaf: x509.Certificate, path: TrustPath) -> tuple[Finding, ...]:
    found = []
    where = str(endpoint)
    if not path.certificates:
        incomplete = "unable to get" in path.error and "issuer" in path.error
        code = Code.SERVED_CHAIN_INCOMPLETE if incomplete else Code.SERVED_NOT_TRUSTED
        found.append(find(code, where, f"the chain that {where} serves leads to no anchor: {path.error}"))
    if endpoint.server_name and matches_name(leaf, endpoint.server_name) is NameMatch.DIFFERS:
        found.append(find(Code.SERVED_NAME_MISMATCH, where, f"{where} serves a certificate for other names"))
    return tuple(found)
