"""What holds for any bytes: the judge answers with findings, never an exception, and believes no change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import asn1
import pki
import pytest
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pki import Answer, KeyKind, make_pki
from stapleguard.finding import Code
from stapleguard.model import CertStatus
from stapleguard.ocsp import Acceptance, Judgement, Rules, Sha1, judge

pytestmark = pytest.mark.unit

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
P256, RSA = make_pki(KeyKind.P256, NOW), make_pki(KeyKind.RSA2048, NOW)
DIRECT, DELEGATED = Answer.good(P256, NOW).der(), Answer.delegated(P256, NOW).der()
FULL = replace(
    Answer.delegated(P256, NOW),
    extensions=(pki.extension(pki.NONCE, value=asn1.octets(b"nonce")),),
    more=(replace(Answer.good(P256, NOW).entry, extensions=(pki.extension(pki.SCT_LIST),)),),
).der()
PSS = replace(Answer.good(RSA, NOW), algorithm=pki.PSS_SHA256).der()
SEEDS = (DIRECT, DELEGATED, FULL, PSS)
USUAL = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def judged(der: bytes) -> Judgement:
    of = RSA if der is PSS else P256
    return judge(der, of.leaf.certificate, of.issuer.certificate, NOW, Rules(sha1=Sha1.ALLOWED))


def consistent(judgement: Judgement) -> None:
    """Check that accepted is good with nothing critical, and that rejected says why."""
    critical = [found for found in judgement.findings if found.critical]
    if judgement.acceptance is Acceptance.ACCEPTED:
        assert (judgement.status, critical) == (CertStatus.GOOD, [])
    else:
        assert critical
    assert all(found.message.isprintable() for found in judgement.findings)
    assert judgement.half_life is None or judgement.this_update is not None


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw a good answer, and what is left of it after a few bytes were changed, dropped or put in."""
    seed = draw(st.sampled_from(SEEDS))
    der = bytearray(seed)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(der) - 1))
        match draw(st.sampled_from(["flip", "set", "drop", "insert", "cut"])):
            case "flip":
                der[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                der[at] = draw(st.sampled_from([0x00, 0x01, 0x30, 0x7F, 0x80, 0xA0, 0xA1, 0xFF]))
            case "drop":
                del der[at : at + draw(st.integers(1, 8))]
            case "insert":
                der[at:at] = draw(st.binary(min_size=1, max_size=8))
            case _:
                del der[at:]
        if not der:
            break
    return seed, bytes(der)


@USUAL
@given(st.binary(max_size=400))
@example(b"")
@example(b"\x30\x80\x00\x00")
@example(b"\x30\x84\xff\xff\xff\xff")
@example(b"\x30" * 5000)
def test_any_bytes_give_findings(der: bytes) -> None:
    consistent(judged(der))


@USUAL
@given(mutated())
def test_a_changed_answer_is_judged_and_never_believed(pair: tuple[bytes, bytes]) -> None:
    seed, der = pair
    of = RSA if seed is PSS else P256
    judgement = judge(der, of.leaf.certificate, of.issuer.certificate, NOW, Rules(sha1=Sha1.ALLOWED))
    consistent(judgement)
    if judgement.acceptance is Acceptance.ACCEPTED:
        read, original = ocsp.load_der_ocsp_response(der), ocsp.load_der_ocsp_response(seed)
        assert read.tbs_response_bytes == original.tbs_response_bytes


@pytest.mark.parametrize("seed", SEEDS)
def test_and_the_unchanged_answer_is_believed(seed: bytes) -> None:
    assert judged(seed).acceptance is Acceptance.ACCEPTED


STRANGE = st.one_of(
    st.sampled_from(
        [
            asn1.NULL,
            asn1.seq(),
            asn1.octets(b""),
            asn1.integer(-1),
            asn1.oid("1.2.3"),
            b"\x80\x00",
            b"\x17\x00",
        ]
    ),
    st.binary(max_size=12).map(asn1.octets),
    st.binary(max_size=12).map(lambda contents: asn1.tlv(24, contents)),
)


@USUAL
@given(
    version=st.one_of(st.just(b""), STRANGE),
    responder=st.one_of(st.none(), STRANGE, *(STRANGE.map(partial(asn1.explicit, tag)) for tag in (1, 2))),
    status=st.one_of(st.just(pki.GOOD), STRANGE),
    extensions=st.one_of(
        st.none(), st.lists(STRANGE.map(partial(asn1.seq, asn1.oid("1.2.3"))), max_size=2).map(tuple)
    ),
    certs=st.one_of(st.none(), st.lists(STRANGE, max_size=2).map(tuple)),
    parameters=st.one_of(st.just(b""), STRANGE),
    algorithm=st.sampled_from(["1.2.840.10045.4.3.2", "1.2.840.113549.1.1.10", "1.2.3"]),
)
def test_well_signed_nonsense_gives_findings(
    version: bytes,
    responder: bytes | None,
    status: bytes,
    extensions: tuple[bytes, ...] | None,
    certs: tuple[bytes, ...] | None,
    parameters: bytes,
    algorithm: str,
) -> None:
    good = Answer.good(P256, NOW)
    answer = replace(
        good,
        version=version,
        responder=good.responder if responder is None else responder,
        entry=replace(good.entry, status=status, extensions=extensions),
        extensions=extensions,
        certs=certs,
        algorithm=pki.Algorithm(asn1.seq(asn1.oid(algorithm), parameters), pki.ECDSA_SHA256.sign),
    )
    consistent(judged(answer.der()))


@given(
    st.sampled_from([DIRECT, DELEGATED, FULL]),
    st.floats(0, 8 * 86400).map(lambda seconds: timedelta(seconds=seconds)),
    st.floats(0, 1),
)
@USUAL
def test_a_judgement_holds_for_as_long_as_it_says(der: bytes, later: timedelta, share: float) -> None:
    of, start = P256, NOW - timedelta(hours=2) + later
    first = judge(der, of.leaf.certificate, of.issuer.certificate, start)
    end = min(first.holds_until, start + timedelta(days=30))
    assert end > start
    inside = start + (end - start) * share
    again = judge(
        der, of.leaf.certificate, of.issuer.certificate, min(inside, end - timedelta(microseconds=1))
    )
    assert [found.code for found in again.findings] == [found.code for found in first.findings]
    assert (again.acceptance, again.holds_until) == (first.acceptance, first.holds_until)


def test_a_judgement_turns_when_it_says() -> None:
    of, now, turns = P256, NOW, 0
    judgement = judge(DIRECT, of.leaf.certificate, of.issuer.certificate, now)
    seen = [{found.code for found in judgement.findings}]
    while judgement.holds_until < now + timedelta(days=100) and turns < 50:
        now, turns = judgement.holds_until, turns + 1
        judgement = judge(DIRECT, of.leaf.certificate, of.issuer.certificate, now)
        seen.append({found.code for found in judgement.findings})
    changes = [codes for before, codes in pairwise(seen) if before != codes]
    assert changes[0] == {Code.STAPLE_NEAR_EXPIRY}
    assert Code.OCSP_EXPIRED in changes[-1]
