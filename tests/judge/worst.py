"""The most expensive responses that fit into 64 KiB, as far as we could think of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Final

import asn1
import pki
from asn1 import integer, oid, seq
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pki import Answer, CertId, Entry, extension
from twins import ALIEN, DAY, Setting

LIMIT: Final = 65536


def filled(make: Callable[[int], Answer]) -> bytes:
    """Take about the greatest number of pieces with which the answer fits."""
    empty, some = len(make(0).der()), 1000
    count = int((LIMIT - empty) / ((len(make(some).der()) - empty) / some))
    while len(der := make(count).der()) > LIMIT:
        count -= count // 100 + 1
    return der


def enclosing(setting: Setting, answer: Answer, make: Callable[[int], bytes]) -> bytes:
    """Enclose as many different certificates as fit, all of which the responderID means."""
    made: list[bytes] = []
    while sum(map(len, made)) < LIMIT - len(answer.der()):
        made.append(make(len(made) + 2))
    while len(replace(answer, certs=tuple(made)).der()) > LIMIT:
        made.pop()
    return replace(answer, certs=tuple(made)).der()


def by_delegates(setting: Setting, key: pki.PrivateKey, *, good: bool, fit: bool = False) -> bytes:
    """Let one key sign that has hundreds of certificates."""
    blank = replace(setting.pki.blank_delegate, extensions=pki.DELEGATE if fit else ())
    first = blank.sign(key)
    answer = Answer.delegated(setting.pki, setting.now, first)
    if not good:
        answer = replace(answer, damage=lambda signature: signature[:-1] + bytes([signature[-1] ^ 1]))
    return enclosing(
        setting,
        answer,
        lambda number: replace(blank, serial=number).sign(key).certificate.public_bytes(Encoding.DER),
    )


def by_giants(setting: Setting, modulus: int, exponent: int) -> bytes:
    """Name hundreds of RSA keys as great as OpenSSL still multiplies with; each is tried."""
    random = Random(modulus)

    def certificate(number: int) -> bytes:
        n = random.getrandbits(modulus) | 1 << (modulus - 1) | 1
        e = random.getrandbits(exponent) | 1 << (exponent - 1) | 1
        public = rsa.RSAPublicNumbers(e, n).public_key()
        key_info = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return pki.retold(
            setting.pki.delegate.certificate, setting.pki.issuer, serial=integer(number), key_info=key_info
        )

    signature = (1 << (modulus - 2)).to_bytes(modulus // 8, "big")
    algorithm = pki.Algorithm(pki.RSA_SHA256.encoded, lambda key, data: signature)
    answer = replace(setting.base, responder=pki.by_name(setting.pki.delegate), algorithm=algorithm)
    return enclosing(setting, answer, certificate)


def by_names(setting: Setting) -> bytes:
    """Let the responderID and many certificates have long names that differ in the kind of string only."""

    def name(string: int) -> bytes:
        part = asn1.tlv(17, seq(oid("2.5.4.3"), asn1.tlv(string, b"a")), constructed=1)
        return seq(*[part] * 700)

    def certificate(number: int) -> bytes:
        return pki.retold(
            setting.pki.delegate.certificate, setting.pki.issuer, serial=integer(number), subject=name(12)
        )

    return enclosing(setting, replace(setting.base, responder=asn1.explicit(1, name(19))), certificate)


def entries(setting: Setting, *, about: bool) -> bytes:
    """Write as many entries as fit: about the certificate, each late in another way; or about nothing."""
    algorithms = [seq(oid(hash_)) for hash_ in pki.HASHES]

    def late(number: int) -> Entry:
        this = setting.now - DAY - timedelta(seconds=number)
        return replace(setting.base.entry, this_update=this, next_update=this + timedelta(seconds=1))

    def nothing(number: int) -> Entry:
        cert_id = CertId(algorithms[number % len(algorithms)], b"", b"", integer(number % 100))
        return Entry(cert_id, pki.GOOD, setting.then, None)

    make = late if about else nothing
    return filled(lambda count: setting.but(more=tuple(map(make, range(count)))))


def extensions(setting: Setting) -> bytes:
    """Write as many critical extensions as fit, none of them known."""
    return filled(
        lambda count: setting.but(
            extensions=tuple(
                extension(f"1.2.{number}", critical=asn1.CRITICAL, value=b"") for number in range(count)
            )
        )
    )


def extended_delegate(setting: Setting) -> bytes:
    """Let a delegate have as many extensions as fit."""
    return filled(
        lambda count: setting.retold(
            extensions=tuple(extension(f"1.2.{number}", value=b"") for number in range(count))
        )
    )


def nested(setting: Setting) -> bytes:
    """Nest as deep as the size allows, where a value may be anything."""
    return filled(lambda count: setting.but(extensions=(extension(ALIEN, value=b"\x30\x80" * count),)))


def long_oid(setting: Setting) -> bytes:
    """Name an extension by a single arc of half a million bits."""
    return filled(
        lambda count: setting.but(
            extensions=(
                seq(asn1.tlv(6, b"\x2a" + b"\xff" * count + b"\x01"), asn1.CRITICAL, asn1.octets(b"")),
            )
        )
    )


WORST: Final[Mapping[str, Callable[[Setting], bytes]]] = {
    "one key, hundreds of fit certificates": lambda s: by_delegates(
        s, s.pki.delegate.key, good=True, fit=True
    ),
    "one P-521 key, hundreds of certificates": lambda s: by_delegates(
        s, ec.generate_private_key(ec.SECP521R1()), good=True
    ),
    "the same, no signature": lambda s: by_delegates(s, ec.generate_private_key(ec.SECP521R1()), good=False),
    "one brainpoolP512r1 key, hundreds of certificates": lambda s: by_delegates(
        s, ec.generate_private_key(ec.BrainpoolP512R1()), good=True
    ),
    "RSA keys of 16384 bits, exponents of 64": lambda s: by_giants(s, 16384, 64),
    "RSA keys of 3072 bits, exponents of 3071": lambda s: by_giants(s, 3072, 3071),
    "names of hundreds of parts": by_names,
    "entries about the certificate, each late": lambda s: entries(s, about=True),
    "entries about nothing, hashes in turn": lambda s: entries(s, about=False),
    "critical extensions": extensions,
    "a delegate of extensions": extended_delegate,
    "nested as deep as it goes": nested,
    "an OID of half a million bits": long_oid,
    "nothing but headers": lambda s: b"\x30\x80" * (LIMIT // 2),
}
