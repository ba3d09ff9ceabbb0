"""Answers that differ from a good one in one thing, and how they are judged; pairs are in `judge/`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any  # dataclasses.replace() is checked at run time

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier
from pki import Answer, KeyKind, Pki, make_pki
from stapleguard.finding import Code
from stapleguard.ocsp import Judgement, Rules, Sha1, judge

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
HOUR, DAY, MINUTE, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)
THEN = NOW - HOUR
P256 = make_pki(KeyKind.P256, NOW)
RSA = make_pki(KeyKind.RSA2048, NOW)
OTHER = make_pki(KeyKind.P384, NOW)
GOOD = Answer.good(P256, NOW)
DELEGATED = Answer.delegated(P256, NOW)
OLD_TEST_DATA = Rules(sha1=Sha1.ALLOWED)


def judged(
    answer: Answer | bytes, rules: Rules | None = None, of: Pki = P256, now: datetime = NOW
) -> Judgement:
    der = answer if isinstance(answer, bytes) else answer.der()
    return judge(der, of.leaf.certificate, of.issuer.certificate, now, rules or Rules())


def critical(judgement: Judgement) -> set[Code]:
    return {found.code for found in judgement.findings if found.critical}


def others(judgement: Judgement) -> set[Code]:
    return {found.code for found in judgement.findings if not found.critical}


def entry(base: Answer = GOOD, **changes: Any) -> Answer:
    return replace(base, entry=replace(base.entry, **changes))


def cert_id(**changes: Any) -> Answer:
    return entry(cert_id=replace(GOOD.entry.cert_id, **changes))


def delegate(under: Pki = P256, **changes: Any) -> Answer:
    """Answer by a delegate whose certificate says something else than usual."""
    signer = replace(under.blank_delegate, **changes).sign(under.delegate.key)
    return Answer.delegated(under, NOW, signer)


def saying(*extensions: tuple[x509.ExtensionType, bool]) -> Answer:
    return delegate(extensions=extensions)


def unknown_extension(*, critical: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical


def flipped(signature: bytes) -> bytes:
    return signature[:-1] + bytes([signature[-1] ^ 1])


ALIEN = "1.2.3.4"
MALFORMED = Code.OCSP_MALFORMED
WRONG = Code.OCSP_WRONG_CERTIFICATE
IMPOSTOR = Code.OCSP_UNAUTHORIZED_RESPONDER
