"""The judge: what it says beyond the verdict; each broken rule beside its twin is in `tests/judge`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import asn1
import pki
import pytest
from asn1 import explicit
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as pyca_ocsp
from ocsp_answers import (
    ALIEN,
    DAY,
    DELEGATED,
    GOOD,
    HOUR,
    IMPOSTOR,
    MALFORMED,
    MINUTE,
    NOW,
    OLD_TEST_DATA,
    OTHER,
    P256,
    RSA,
    SECOND,
    THEN,
    WRONG,
    cert_id,
    critical,
    entry,
    flipped,
    judged,
    others,
    saying,
)
from pki import Answer, CertId, KeyKind, Pki, extension, make_pki
from stapleguard.finding import Code
from stapleguard.model import CertStatus, Severity
from stapleguard.ocsp import MAX_RESPONSE, Acceptance, Rules, request

pytestmark = pytest.mark.unit

# What is accepted without a word, kind of key by kind of key, direct and delegated.


@pytest.mark.parametrize("kind", [KeyKind.RSA2048, KeyKind.P256, KeyKind.P384, KeyKind.ED25519])
@pytest.mark.parametrize("make", [Answer.good, Answer.delegated])
def test_a_good_answer_is_accepted_without_findings(
    kind: KeyKind, make: Callable[[Pki, datetime], Answer]
) -> None:
    of = make_pki(kind, NOW)
    judgement = judged(make(of, NOW), of=of)
    assert judgement.findings == ()
    assert judgement.acceptance is Acceptance.ACCEPTED
    assert judgement.status is CertStatus.GOOD
    assert (judgement.this_update, judgement.next_update) == (THEN, NOW + 6 * DAY)


@pytest.mark.parametrize("kind", [KeyKind.RSA2048, KeyKind.P256, KeyKind.P384, KeyKind.ED25519])
@pytest.mark.parametrize("make", [Answer.good, Answer.delegated])
def test_its_twin_with_one_flipped_bit_is_not(kind: KeyKind, make: Callable[[Pki, datetime], Answer]) -> None:
    of = make_pki(kind, NOW)
    judgement = judged(replace(make(of, NOW), damage=flipped), of=of)
    assert critical(judgement) == {Code.OCSP_BAD_SIGNATURE}
    assert judgement.acceptance is Acceptance.REJECTED
    assert judgement.status is CertStatus.GOOD  # what it claims is shown all the same


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (1, Code.OCSP_MALFORMED_REQUEST),
        (2, Code.OCSP_INTERNAL_ERROR),
        (3, Code.OCSP_TRY_LATER),
        (5, Code.OCSP_SIG_REQUIRED),
        (6, Code.OCSP_UNAUTHORIZED),
    ],
)
def test_a_refusal_of_the_responder_has_its_code_with_an_answer_inside_or_not(
    number: int, code: Code
) -> None:
    bare = judged(asn1.seq(asn1.enumerated(number)))
    assert [found.code for found in bare.findings] == [code]
    assert bare.status is None
    assert critical(judged(replace(GOOD, status=asn1.enumerated(number)))) == {code}


def test_successful_without_an_answer_is_malformed() -> None:
    assert critical(judged(asn1.seq(asn1.enumerated(0)))) == {MALFORMED}


# Signature algorithms.

SHA1_DELEGATE = pki.Signer(pki.resigned(RSA.delegate.certificate, RSA.issuer, pki.RSA_SHA1), RSA.delegate.key)
WEAK_ANSWERS = {
    "RSA with SHA-1": (replace(Answer.good(RSA, NOW), algorithm=pki.RSA_SHA1), RSA),
    "PSS with SHA-1": (replace(Answer.good(RSA, NOW), algorithm=pki.PSS_SHA1), RSA),
    "ECDSA with SHA-1": (replace(GOOD, algorithm=pki.ECDSA_SHA1), P256),
    "a delegate signed with SHA-1": (Answer.delegated(RSA, NOW, SHA1_DELEGATE), RSA),
}


@pytest.mark.parametrize("name", WEAK_ANSWERS)
def test_sha1_is_weak_unless_allowed(name: str) -> None:
    answer, of = WEAK_ANSWERS[name]
    assert critical(judged(answer, of=of)) == {Code.OCSP_WEAK_SIGNATURE}
    assert judged(answer, OLD_TEST_DATA, of=of).acceptance is Acceptance.ACCEPTED


@pytest.mark.parametrize(("kind", "rules"), [(KeyKind.P224, Rules()), (KeyKind.DSA2048, OLD_TEST_DATA)])
def test_a_weak_key_or_algorithm_is_weak_with_any_hash(kind: KeyKind, rules: Rules) -> None:
    of = make_pki(kind, NOW)
    assert critical(judged(Answer.good(of, NOW), rules, of=of)) == {Code.OCSP_WEAK_SIGNATURE}


def test_rsa_of_1024_bits_is_weak_direct_and_delegated() -> None:
    of = make_pki(KeyKind.RSA1024, NOW)
    assert critical(judged(Answer.good(of, NOW), of=of)) == {Code.OCSP_WEAK_SIGNATURE}
    strong = replace(of.blank_delegate).sign(RSA.delegate.key)
    assert critical(judged(Answer.delegated(of, NOW, strong), of=of)) == {Code.OCSP_WEAK_SIGNATURE}


@pytest.mark.parametrize("algorithm", [pki.RSA_SHA384, pki.RSA_SHA512, pki.PSS_SHA256])
def test_rsa_with_sha2_is_strong(algorithm: pki.Algorithm) -> None:
    good = replace(Answer.good(RSA, NOW), algorithm=algorithm)
    assert judged(good, of=RSA).findings == ()
    assert critical(judged(replace(good, damage=flipped), of=RSA)) == {Code.OCSP_BAD_SIGNATURE}


def test_an_algorithm_of_another_family_than_the_key_is_a_bad_signature() -> None:
    posing = pki.Algorithm(pki.RSA_SHA256.encoded, pki.ECDSA_SHA256.sign)
    assert critical(judged(replace(GOOD, algorithm=posing))) == {Code.OCSP_BAD_SIGNATURE}


def test_an_unknown_algorithm_is_weak_and_proves_nothing() -> None:
    unheard = pki.Algorithm(asn1.seq(asn1.oid(ALIEN)), pki.ECDSA_SHA256.sign)
    judgement = judged(replace(entry(status=pki.revoked(THEN)), algorithm=unheard))
    assert critical(judgement) == {Code.OCSP_WEAK_SIGNATURE}
    assert judgement.status is CertStatus.REVOKED


def test_pss_with_an_unbelievable_salt_is_refused() -> None:
    absurd = pki.Algorithm(pki.pss(pki.SHA256, hashes.SHA256(), salt=1000).encoded, pki.PSS_SHA256.sign)
    assert critical(judged(replace(Answer.good(RSA, NOW), algorithm=absurd), of=RSA)) == {
        Code.OCSP_WEAK_SIGNATURE
    }


# Who signed.


def test_a_leaf_signed_with_sha1_is_not_the_judges_matter() -> None:
    old = pki.Signer(pki.resigned(RSA.leaf.certificate, RSA.issuer, pki.RSA_SHA1), RSA.leaf.key)
    of = replace(RSA, leaf=old)
    assert judged(Answer.good(of, NOW), of=of).findings == ()
    forged = pki.Signer(pki.resigned(RSA.leaf.certificate, RSA.delegate, pki.RSA_SHA1), RSA.leaf.key)
    of = replace(RSA, leaf=forged)
    assert critical(judged(Answer.good(of, NOW), of=of)) == {WRONG}


def test_a_certificate_with_sha1_is_held_to_the_rest_of_the_rules() -> None:
    renamed = replace(RSA.blank_delegate, issuer="Test CB").sign(RSA.delegate.key).certificate
    outer = asn1.seq(asn1.oid("1.2.840.113549.1.1.5"))  # the same algorithm, without its NULL
    for odd in (
        pki.resigned(renamed, RSA.issuer, pki.RSA_SHA1),
        pki.resigned(RSA.delegate.certificate, RSA.issuer, pki.RSA_SHA1, outer),
    ):
        answer = Answer.delegated(RSA, NOW, pki.Signer(odd, RSA.delegate.key))
        assert critical(judged(answer, OLD_TEST_DATA, of=RSA)) == {IMPOSTOR}


def test_of_two_certificates_of_one_delegate_the_fit_one_counts() -> None:
    unfit = replace(P256.blank_delegate, extensions=(pki.NOT_CA,)).sign(P256.delegate.key)
    certs = tuple(one.certificate.public_bytes(Encoding.DER) for one in (unfit, P256.delegate))
    (found,) = judged(replace(DELEGATED, certs=certs)).findings
    assert (found.code, found.evidence["breaks_clients"]) == (Code.OCSP_AMBIGUOUS, ("OpenSSL",))
    assert judged(replace(DELEGATED, certs=certs[::-1])).findings == ()
    assert critical(judged(replace(DELEGATED, certs=certs[:1]))) == {IMPOSTOR}


def test_of_a_crowd_of_certificates_the_first_sixteen_are_tried() -> None:
    unfit = replace(P256.blank_delegate, extensions=(pki.NOT_CA,))
    crowd = [replace(unfit, serial=number).sign(P256.delegate.key) for number in range(1, 17)]
    certs = [one.certificate.public_bytes(Encoding.DER) for one in (*crowd, P256.delegate)]
    assert critical(judged(replace(DELEGATED, certs=tuple(certs)))) == {IMPOSTOR}
    assert judged(replace(DELEGATED, certs=tuple(certs[1:]))).acceptance is Acceptance.ACCEPTED


def test_an_entry_about_another_issuer_is_only_warned_of() -> None:
    for other in (
        replace(GOOD.entry.cert_id, key_hash=b"\1" * 20),
        replace(GOOD.entry.cert_id, algorithm=asn1.seq(asn1.oid(ALIEN))),
    ):
        twice = replace(GOOD, more=(replace(GOOD.entry, cert_id=other, status=pki.revoked(THEN)),))
        assert (judged(twice).acceptance, others(judged(twice))) == (
            Acceptance.ACCEPTED,
            {Code.OCSP_AMBIGUOUS},
        )
    same = replace(GOOD.entry.cert_id, serial=asn1.integer(7))
    assert judged(replace(GOOD, more=(replace(GOOD.entry, cert_id=same),))).findings == ()


def test_a_string_that_is_not_what_its_tag_says_is_malformed() -> None:
    for tag, text in ((12, b"T\xdcrk"), (30, b"odd"), (28, b"odd"), (26, b"visible"), (4, b"octets")):
        name = asn1.seq(asn1.tlv(17, asn1.seq(asn1.oid("2.5.4.3"), asn1.tlv(tag, text)), constructed=1))
        odd = pki.retold(P256.leaf.certificate, P256.issuer, subject=name)
        assert critical(judged(replace(GOOD, certs=(odd,)))) == {MALFORMED}
        assert critical(judged(replace(GOOD, responder=explicit(1, name)))) == {MALFORMED}


UNNEEDED = {
    "of version v5": {"version": 4},
    "with a negative serial number": {"serial": asn1.integer(-5)},
    "with serial number nought": {"serial": asn1.integer(0)},
    "with an overlong serial number": {"serial": asn1.integer(1 << 300)},
    "with a key that nobody knows": {
        "key_info": pki.key_info(P256.leaf.certificate, asn1.seq(asn1.oid(ALIEN)))
    },
    "with a name of no known encoding": {
        "subject": asn1.seq(
            asn1.tlv(17, asn1.seq(asn1.oid("2.5.4.3"), asn1.tlv(20, b"T\xdcRK")), constructed=1)
        )
    },
    "with an extension twice": {"extensions": (extension(ALIEN), extension(ALIEN))},
    "whose signature is damaged": {"damage": flipped},
}


@pytest.mark.parametrize("how", UNNEEDED)
@pytest.mark.parametrize("base", [GOOD, DELEGATED, replace(GOOD, responder=pki.by_name(P256.issuer))])
def test_an_odd_certificate_that_is_not_needed_does_no_harm(how: str, base: Answer) -> None:
    odd = pki.retold(P256.leaf.certificate, P256.issuer, **UNNEEDED[how])
    answer = replace(base, certs=(odd, *(base.certs or ())))
    assert judged(answer).findings == ()
    assert critical(judged(replace(answer, damage=flipped))) == {Code.OCSP_BAD_SIGNATURE}


def test_the_issuers_own_certificate_may_be_enclosed() -> None:
    assert judged(replace(GOOD, certs=(P256.issuer.certificate.public_bytes(Encoding.DER),))).findings == ()


def test_the_issuer_given_is_trusted_as_it_stands() -> None:
    blank = pki.Blank(
        "Odd CA", NOW - DAY, NOW - 30 * MINUTE, extensions=((pki.key_usage(), True), pki.NOT_CA)
    )
    odd = blank.sign(P256.issuer.key)
    leaf = pki.Blank("leaf.test", NOW - DAY, NOW + 60 * DAY, under=odd).sign(P256.leaf.key)
    of = replace(P256, issuer=odd, leaf=leaf)
    assert judged(Answer.good(of, NOW), of=of).acceptance is Acceptance.ACCEPTED
    late = replace(Answer.good(of, NOW), produced_at=NOW - 20 * MINUTE)  # but it did not sign after its end
    assert critical(judged(late, of=of)) == {IMPOSTOR}


def test_a_leaf_of_another_issuer_is_judged_by_nobody() -> None:
    of = replace(P256, issuer=OTHER.issuer)
    answer = Answer.good(of, NOW)
    judgement = judged(replace(answer, algorithm=pki.ECDSA_SHA384), of=of)
    assert critical(judgement) == {WRONG}
    assert judgement.status is None


def test_an_impostors_revoked_is_shown_but_not_believed() -> None:
    forged = replace(entry(status=pki.revoked(THEN)), key=P256.leaf.key)
    judgement = judged(forged)
    assert critical(judgement) == {Code.OCSP_BAD_SIGNATURE}
    assert judgement.status is CertStatus.REVOKED


# Times with rules of the caller.


def test_max_age_holds_with_nextUpdate_and_without() -> None:  # noqa: N802 the field's own name
    day = Rules(max_age=DAY.total_seconds())
    for answer in (
        entry(this_update=NOW - DAY - SECOND),
        entry(this_update=NOW - DAY - SECOND, next_update=None),
    ):
        assert critical(judged(answer, day)) == {Code.OCSP_TOO_OLD}
        assert judged(answer).acceptance is Acceptance.ACCEPTED
    assert judged(entry(this_update=NOW - DAY), day).acceptance is Acceptance.ACCEPTED
    month = Rules(max_age=30 * DAY.total_seconds())
    assert judged(entry(this_update=NOW - 8 * DAY, next_update=None), month).acceptance is Acceptance.ACCEPTED


def test_without_nextUpdate_twelve_hours_warn() -> None:  # noqa: N802 the field's own name
    fresh, stale = entry(next_update=None), entry(next_update=None, this_update=NOW - 12 * HOUR - SECOND)
    assert [(found.code, found.severity) for found in judged(fresh).findings] == [
        (Code.OCSP_NO_NEXT_UPDATE, Severity.INFO)
    ]
    assert [(found.code, found.severity) for found in judged(stale).findings] == [
        (Code.OCSP_NO_NEXT_UPDATE, Severity.WARNING)
    ]


def test_nextUpdate_before_thisUpdate_is_malformed() -> None:  # noqa: N802 the field's own name
    assert critical(judged(entry(next_update=THEN - SECOND))) == {MALFORMED, Code.OCSP_EXPIRED}
    assert judged(entry(this_update=THEN, next_update=NOW + SECOND)).acceptance is Acceptance.ACCEPTED


def test_of_two_wrong_times_both_are_said() -> None:
    judgement = judged(entry(this_update=NOW + 5 * MINUTE + SECOND))
    assert [found.message.split()[0:2] for found in judgement.findings] == [
        ["thisUpdate", "2026-06-01T12:05:01Z"],
        ["producedAt", "lies"],
    ]


# Accepted, with a warning.


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (entry(next_update=NOW + 8 * HOUR - SECOND, this_update=NOW - 5 * DAY), Code.STAPLE_NEAR_EXPIRY),
        (entry(next_update=NOW + 19 * MINUTE), Code.STAPLE_NEAR_EXPIRY),  # of a window of 79 minutes
        (Answer.good(P256, NOW, pki.SHA256), Code.OCSP_CERTID_UNMATCHED),
        (Answer.good(P256, NOW, pki.SHA384), Code.OCSP_CERTID_UNMATCHED),
        (Answer.good(P256, NOW, pki.SHA512), Code.OCSP_CERTID_UNMATCHED),
        (entry(next_update=P256.leaf.certificate.not_valid_after_utc + SECOND), Code.OCSP_OUTLIVES_LEAF),
        (saying(pki.NOT_CA, pki.SIGNS, pki.OCSP_SIGNING), Code.OCSP_NO_NOCHECK),
    ],
)
def test_what_is_acceptable_may_still_be_warned_of(answer: Answer, code: Code) -> None:
    judgement = judged(answer)
    assert (judgement.acceptance, others(judgement)) == (Acceptance.ACCEPTED, {code})


@pytest.mark.parametrize(
    "answer",
    [
        entry(next_update=NOW + 8 * HOUR, this_update=NOW - 5 * DAY),
        entry(next_update=NOW + 21 * MINUTE),
        entry(next_update=P256.leaf.certificate.not_valid_after_utc),
        replace(Answer.good(P256, NOW, pki.SHA256), more=(GOOD.entry,)),
    ],
)
def test_and_its_twin_is_not(answer: Answer) -> None:
    assert judged(answer).findings == ()


# What the judgement says.


def test_a_response_beyond_the_limit_is_refused_unread() -> None:
    great = replace(GOOD, extensions=(extension(ALIEN, value=b"\0" * MAX_RESPONSE),)).der()
    assert critical(judged(great)) == {Code.RESPONDER_TOO_LARGE}
    large = replace(GOOD, extensions=(extension(ALIEN, value=b"\0" * (MAX_RESPONSE - 1000)),)).der()
    assert judged(large).acceptance is Acceptance.ACCEPTED


@pytest.mark.parametrize(
    ("answer", "clients"),
    [
        (entry(status=pki.revoked(THEN)), {"Firefox", "GnuTLS", "curl --cert-status"}),
        (entry(status=pki.UNKNOWN), {"Firefox", "curl --cert-status"}),
        (entry(next_update=NOW), {"GnuTLS", "curl --cert-status"}),
        (cert_id(key_hash=b"\1" * 20), {"GnuTLS", "curl --cert-status"}),
        (replace(GOOD, status=asn1.enumerated(3)), {"curl --cert-status"}),
        (replace(GOOD, status=asn1.enumerated(6)), {"Firefox", "curl --cert-status"}),
    ],
)
def test_a_rejecting_finding_names_the_clients_that_break(answer: Answer, clients: set[str]) -> None:
    (found,) = (found for found in judged(answer).findings if found.critical)
    breaks = found.evidence["breaks_clients"]
    assert isinstance(breaks, tuple)
    assert set(breaks) == clients


MUST_STAPLE = replace(
    P256,
    leaf=pki.Blank(
        "leaf.test",
        NOW - DAY,
        NOW + DAY,
        under=P256.issuer,
        extensions=((x509.TLSFeature([x509.TLSFeatureType.status_request]), False),),
    ).sign(P256.leaf.key),
)


@pytest.mark.parametrize(("number", "others_"), [(3, set()), (6, {"Firefox"}), (2, {"Firefox"})])
def test_gnutls_breaks_on_some_refusals_where_a_staple_is_demanded(number: int, others_: set[str]) -> None:
    (found,) = judged(replace(GOOD, status=asn1.enumerated(number)), of=MUST_STAPLE).findings
    gnutls = set() if number == 2 else {"GnuTLS"}  # internalError was not measured there
    breaks = found.evidence["breaks_clients"]
    assert isinstance(breaks, tuple)
    assert set(breaks) == {"curl --cert-status", *others_, *gnutls}


def test_a_leaf_whose_extensions_cannot_be_read_demands_no_staple() -> None:
    twice = (pki.extension(ALIEN), pki.extension(ALIEN))
    odd = x509.load_der_x509_certificate(pki.retold(P256.leaf.certificate, P256.issuer, extensions=twice))
    of = replace(P256, leaf=pki.Signer(odd, P256.leaf.key))
    (found,) = judged(replace(GOOD, status=asn1.enumerated(3)), of=of).findings
    assert found.evidence["breaks_clients"] == ("curl --cert-status",)


def test_a_crowd_of_faults_is_told_in_a_few() -> None:
    aliens = tuple(extension(f"1.2.{number}", critical=asn1.CRITICAL) for number in range(1000, 1500))
    judgement = judged(replace(GOOD, extensions=aliens))
    assert critical(judgement) == {Code.OCSP_CRITICAL_EXTENSION}
    assert len(judgement.findings) == 10
    assert len(judged(replace(GOOD, extensions=aliens[:2])).findings) == 2


def test_an_issuer_with_a_key_that_no_client_takes_makes_its_delegates_weak() -> None:
    of = make_pki(KeyKind.DSA2048, NOW, KeyKind.P256)
    assert critical(judged(Answer.delegated(of, NOW), of=of)) == {Code.OCSP_WEAK_SIGNATURE}


def test_a_hostile_name_cannot_forge_a_line() -> None:
    evil = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a\nb\x1b[2Jc\u202e")])
    judgement = judged(replace(GOOD, responder=explicit(1, evil.public_bytes())))
    said = [judgement.responder or "", *(found.message for found in judgement.findings)]
    assert all(text.isprintable() for text in said)


def test_the_subject_is_the_serial_and_the_digest_that_of_the_bytes() -> None:
    judgement = judged(b"nonsense")
    assert (
        judgement.findings[0].subject == f"OCSP response for serial {P256.leaf.certificate.serial_number:x}"
    )
    assert judgement.sha256 == hashlib.sha256(b"nonsense").hexdigest()


def test_half_life() -> None:
    assert judged(GOOD).half_life == THEN + (NOW + 6 * DAY - THEN) / 2
    assert judged(entry(next_update=None)).half_life == THEN + 6 * HOUR
    assert judged(b"").half_life is None
    assert judged(entry(next_update=None, this_update=b"99991231235959Z")).half_life is not None


def test_the_request_is_for_this_certificate_with_sha1_and_no_nonce() -> None:
    asked = pyca_ocsp.load_der_ocsp_request(request(P256.leaf.certificate, P256.issuer.certificate))
    expected = CertId.of(P256.leaf.certificate, P256.issuer.certificate)
    assert (asked.issuer_name_hash, asked.issuer_key_hash) == (expected.name_hash, expected.key_hash)
    assert (asked.serial_number, asked.hash_algorithm.name) == (P256.leaf.certificate.serial_number, "sha1")
    assert list(asked.extensions) == []
