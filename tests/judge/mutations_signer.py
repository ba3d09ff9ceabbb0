"""Who signed, with what, and whether they may: RFC 6960 sections 4.2.2.2, 4.2.2.3 and 4.3; RFC 4055, 5280."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

import asn1
import pki
from asn1 import CRITICAL, NULL, explicit, octets
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from mutations_certid import same_name
from pki import DELEGATE, NOCHECK, NOT_CA, OCSP_SIGNING, SIGNS, Answer, KeyKind
from stapleguard.finding import Code
from stapleguard.ocsp import Rules, Sha1
from twins import ALIEN, DAY, EC_ONLY, RSA_ONLY, SECOND, By, Make, Mutation, Setting, Table, Variant

OLD = Rules(sha1=Sha1.ALLOWED)
PSS_OID: Final = "1.2.840.113549.1.1.10"
ANY_PURPOSE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


def impostor(broken: Make, twin: Make | None = None, by: By = By.DELEGATE) -> Mutation:
    """Make an answer by somebody who may not sign it."""
    pair = Mutation(Code.OCSP_UNAUTHORIZED_RESPONDER, broken, by=by)
    return pair if twin is None else replace(pair, twin=twin)


def bad(broken: Make, twin: Make | None = None, by: By = By.ANY) -> Mutation:
    """Make an answer whose signature is not that of the signer named."""
    pair = Mutation(Code.OCSP_BAD_SIGNATURE, broken, by=by)
    return pair if twin is None else replace(pair, twin=twin)


def rsa(code: Code, broken: Make, twin: Make | None = None, by: By = By.ANY) -> Mutation:
    """Make an answer that only an RSA key can sign."""
    pair = Mutation(code, broken, by=by, kinds=RSA_ONLY)
    return pair if twin is None else replace(pair, twin=twin)


WEAK = Code.OCSP_WEAK_SIGNATURE


def flipped(at: int) -> Make:
    """Flip one bit of the signature."""

    def damage(signature: bytes) -> bytes:
        number = at % len(signature)
        return signature[:number] + bytes([signature[number] ^ 1]) + signature[number + 1 :]

    return lambda setting: setting.but(damage=damage)


def purposes(*named: ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    return x509.ExtendedKeyUsage(list(named)), False


def usage(**allowed: bool) -> tuple[x509.ExtensionType, bool]:
    return pki.key_usage(**allowed), True


def unknown(*, critical: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(ObjectIdentifier(ALIEN), NULL), critical


def encoded(*extensions: tuple[x509.ExtensionType, bool]) -> tuple[bytes, ...]:
    """Write extensions for `retold`."""
    return tuple(
        pki.extension(
            value.oid.dotted_string, critical=CRITICAL if critical else b"", value=value.public_bytes()
        )
        for value, critical in extensions
    )


def under(setting: Setting, signer: pki.Signer) -> Answer:
    """Let the delegate be issued by somebody."""
    return setting.delegate(under=signer)


def through_intermediate(setting: Setting) -> Answer:
    """Let the delegate be issued by an intermediate of the issuer, which is enclosed too."""
    middle = pki.Blank(
        "Middle", setting.now - DAY, setting.now + DAY, under=setting.pki.issuer, extensions=(pki.CA,)
    ).sign(setting.other.leaf.key)
    answer = under(setting, middle)
    return replace(answer, certs=(*(answer.certs or ()), middle.certificate.public_bytes(Encoding.DER)))


def crossed(setting: Setting) -> Answer:
    """Let the issuer's own key sign under a certificate of another name."""
    blank = pki.Blank(
        "Cross CA", setting.now - DAY, setting.now + DAY, under=setting.pki.issuer, extensions=(pki.CA,)
    )
    return setting.signed(blank.sign(setting.pki.issuer.key))


def tied_to_pss(setting: Setting, algorithm: pki.Algorithm, parameters: bytes = b"") -> Answer:
    """Let a delegate sign whose key is one for RSASSA-PSS only (RFC 4055 section 1.2)."""
    key_info = pki.key_info(setting.pki.delegate.certificate, asn1.seq(asn1.oid(PSS_OID), parameters))
    return replace(setting.retold(key_info=key_info), algorithm=algorithm)


def parameters(algorithm: pki.Algorithm) -> bytes:
    """Look up the parameters of an algorithm."""
    return asn1.elements(algorithm.encoded)[1]


def exponent_one(setting: Setting) -> Answer:
    """Forge a signature that is its own padding, for a key whose exponent is 1."""
    numbers = setting.pki.delegate.certificate.public_key().public_numbers()
    key = asn1.seq(asn1.integer(numbers.n), asn1.integer(1))
    key_info = asn1.seq(asn1.seq(asn1.oid("1.2.840.113549.1.1.1"), NULL), asn1.bits(key))

    def forge(_: pki.PrivateKey, data: bytes) -> bytes:
        info = asn1.seq(asn1.seq(asn1.oid(pki.SHA256), NULL), octets(hashlib.sha256(data).digest()))
        return b"\0\1" + b"\xff" * (256 - 3 - len(info)) + b"\0" + info

    forging = pki.Algorithm(pki.RSA_SHA256.encoded, forge)
    return replace(setting.retold(key_info=key_info), algorithm=forging)


def resigned(setting: Setting, algorithm: pki.Algorithm, by: pki.Signer | None = None) -> Answer:
    made = pki.resigned(setting.pki.delegate.certificate, by or setting.pki.issuer, algorithm)
    return setting.signed(pki.Signer(made, setting.pki.delegate.key))


def of_kind(setting: Setting, kind: KeyKind) -> Answer:
    """Let a delegate sign whose key is of another kind."""
    return setting.signed(setting.pki.blank_delegate.sign(pki.new_key(kind)))


def by_the_leaf(setting: Setting) -> Answer:
    return setting.signed(setting.pki.leaf)


def enclosing(setting: Setting, *certificates: x509.Certificate) -> Answer:
    more = tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
    return setting.but(certs=(*more, *(setting.base.certs or ())))


LATIN: Final = asn1.seq(asn1.tlv(17, asn1.seq(asn1.oid("2.5.4.3"), asn1.tlv(20, b"T\xdcRK")), constructed=1))

SIGNATURE: Final[Table] = {
    "the first bit of the signature": bad(flipped(0)),
    "the last bit of the signature": bad(flipped(-1)),
    "a signature and more": bad(lambda s: s.but(damage=lambda signature: signature + b"\0")),
    "a signature cut short": bad(lambda s: s.but(damage=lambda signature: signature[:-1])),
    "no signature": bad(lambda s: s.but(damage=lambda signature: b"")),
    "signed by the leaf under the signer's name": bad(
        lambda s: s.but(key=s.pki.leaf.key, algorithm=pki.usual(s.pki.leaf.key))
    ),
    "signed by a stranger under the signer's name": bad(
        lambda s: s.but(key=s.other.issuer.key, algorithm=pki.usual(s.other.issuer.key))
    ),
    "an algorithm of another family": Mutation(
        Code.OCSP_BAD_SIGNATURE,
        lambda s: s.but(algorithm=pki.Algorithm(pki.RSA_SHA256.encoded, pki.usual(s.base.key).sign)),
        kinds=frozenset({KeyKind.P256, KeyKind.P384, KeyKind.ED25519}),
    ),
    "another hash than said": Mutation(
        Code.OCSP_BAD_SIGNATURE,
        lambda s: s.but(algorithm=pki.Algorithm(pki.ECDSA_SHA512.encoded, pki.ECDSA_SHA256.sign)),
        lambda s: s.but(algorithm=pki.ECDSA_SHA512),
        kinds=EC_ONLY,
    ),
    "an algorithm that nobody knows": Mutation(
        WEAK, lambda s: s.but(algorithm=pki.Algorithm(asn1.seq(asn1.oid(ALIEN)), pki.usual(s.base.key).sign))
    ),
    "RSA with SHA-1": rsa(
        WEAK,
        lambda s: s.but(algorithm=pki.RSA_SHA1),
        lambda s: Variant(s.but(algorithm=pki.RSA_SHA1), rules=OLD),
    ),
    "RSA with MD5": rsa(
        WEAK,
        lambda s: s.but(
            algorithm=pki.Algorithm(asn1.seq(asn1.oid("1.2.840.113549.1.1.4"), NULL), pki.RSA_MD5.sign)
        ),
        lambda s: s.but(algorithm=pki.RSA_SHA512),
    ),
    "ECDSA with SHA-1": Mutation(
        WEAK,
        lambda s: s.but(algorithm=pki.ECDSA_SHA1),
        lambda s: Variant(s.but(algorithm=pki.ECDSA_SHA1), rules=OLD),
        kinds=EC_ONLY,
    ),
    "RSASSA-PSS with SHA-1": rsa(
        WEAK,
        lambda s: s.but(algorithm=pki.PSS_SHA1),
        lambda s: Variant(s.but(algorithm=pki.PSS_SHA1), rules=OLD),
    ),
    "RSASSA-PSS without parameters": rsa(
        WEAK,
        lambda s: Variant(
            s.but(algorithm=pki.Algorithm(asn1.seq(asn1.oid(PSS_OID)), pki.PSS_SHA1.sign)), rules=OLD
        ),
        lambda s: s.but(algorithm=pki.PSS_SHA256),
    ),
    "RSASSA-PSS with an unbelievable salt": rsa(
        WEAK,
        lambda s: s.but(
            algorithm=pki.Algorithm(
                pki.pss(pki.SHA256, hashes.SHA256(), salt=1000).encoded, pki.PSS_SHA256.sign
            )
        ),
        lambda s: s.but(algorithm=pki.pss(pki.SHA256, hashes.SHA256(), salt=24)),
    ),
    "RSASSA-PSS with another salt than said": rsa(
        Code.OCSP_BAD_SIGNATURE,
        lambda s: s.but(
            algorithm=pki.Algorithm(
                pki.pss(pki.SHA256, hashes.SHA256(), salt=24).encoded, pki.PSS_SHA256.sign
            )
        ),
        lambda s: s.but(algorithm=pki.pss(pki.SHA384, hashes.SHA384(), salt=48)),
    ),
    "a key for RSASSA-PSS used otherwise": rsa(
        Code.OCSP_BAD_SIGNATURE,
        lambda s: tied_to_pss(s, pki.RSA_SHA256),
        lambda s: tied_to_pss(s, pki.PSS_SHA256),
        by=By.DELEGATE,
    ),
    "a key for RSASSA-PSS with SHA-384 used with SHA-256": rsa(
        Code.OCSP_BAD_SIGNATURE,
        lambda s: tied_to_pss(s, pki.pss(pki.SHA256, hashes.SHA256(), salt=48), parameters(pki.PSS_SHA384)),
        lambda s: tied_to_pss(s, pki.PSS_SHA384, parameters(pki.PSS_SHA384)),
        by=By.DELEGATE,
    ),
    "a key for more salt than there is": rsa(
        Code.OCSP_BAD_SIGNATURE,
        lambda s: tied_to_pss(s, pki.pss(pki.SHA256, hashes.SHA256(), salt=24), parameters(pki.PSS_SHA256)),
        lambda s: tied_to_pss(s, pki.pss(pki.SHA256, hashes.SHA256(), salt=48), parameters(pki.PSS_SHA256)),
        by=By.DELEGATE,
    ),
    "a key for a trailer that nobody knows": rsa(
        Code.OCSP_BAD_SIGNATURE,
        lambda s: tied_to_pss(
            s,
            pki.PSS_SHA256,
            parameters(pki.pss(pki.SHA256, hashes.SHA256(), trailer=explicit(3, asn1.integer(2)))),
        ),
        lambda s: tied_to_pss(s, pki.PSS_SHA256, parameters(pki.PSS_SHA256)),
        by=By.DELEGATE,
    ),
    "an RSA exponent of 1": rsa(Code.OCSP_BAD_SIGNATURE, exponent_one, by=By.DELEGATE),
}

RESPONDER: Final[Table] = {
    "a KeyHash that is nobody's": impostor(
        lambda s: s.but(responder=explicit(2, octets(b"\1" * 20))), by=By.ANY
    ),
    "a name that is nobody's": impostor(
        lambda s: s.but(responder=explicit(1, pki.name("Nobody").public_bytes())), by=By.ANY
    ),
    "an empty name": impostor(
        lambda s: s.but(responder=explicit(1, asn1.seq())),
        lambda s: replace(s.retold(subject=asn1.seq()), responder=explicit(1, asn1.seq())),
    ),
    "a name whose string is of no known encoding": impostor(
        lambda s: s.but(responder=explicit(1, LATIN)),
        lambda s: replace(s.retold(subject=LATIN), responder=explicit(1, LATIN)),
    ),
    "a name in other strings, of somebody else": impostor(
        lambda s: s.but(responder=explicit(1, pki.printable_name("Test OCSQ"))),
        lambda s: s.but(responder=explicit(1, pki.printable_name("Test OCSP"))),
    ),
    "the key's hash as the issuer's": bad(
        lambda s: s.but(responder=pki.by_key(s.pki.issuer)),
        lambda s: s.but(responder=pki.by_key(s.pki.delegate)),
        by=By.DELEGATE,
    ),
    "the issuer's name": bad(
        lambda s: s.but(responder=pki.by_name(s.pki.issuer)),
        lambda s: s.but(responder=pki.by_name(s.pki.delegate)),
        by=By.DELEGATE,
    ),
    "a delegate's name where the issuer signed": bad(
        lambda s: replace(enclosing(s, s.pki.delegate.certificate), responder=pki.by_name(s.pki.delegate)),
        lambda s: enclosing(s, s.pki.delegate.certificate),
        by=By.ISSUER,
    ),
    "a delegate that is not enclosed": impostor(lambda s: s.but(certs=None)),
    "signed by the leaf": impostor(by_the_leaf, by=By.ANY),
    "signed by the leaf, which is not enclosed": impostor(
        lambda s: s.signed(s.pki.leaf, enclosed=False), by=By.ANY
    ),
    "signed by a root nobody gave": impostor(lambda s: s.signed(s.other.issuer), by=By.ANY),
    "signed by a namesake of the issuer": impostor(lambda s: s.signed(same_name(s)), by=By.DELEGATE),
    "the issuer's key under another name": impostor(
        lambda s: replace(crossed(s), responder=explicit(1, pki.name("Cross CA").public_bytes())),
        lambda s: enclosing(s, s.pki.issuer.certificate, s.other.leaf.certificate),
        by=By.ISSUER,
    ),
}

AUTHORITY: Final[Table] = {
    "a delegate of another authority": impostor(lambda s: under(s, s.other.issuer)),
    "a delegate of a namesake": impostor(lambda s: under(s, same_name(s)), lambda s: under(s, s.pki.issuer)),
    "a delegate that signed itself": impostor(lambda s: s.delegate(under=None, issuer="Test CA")),
    "a delegate of an intermediate": impostor(through_intermediate),
    "a delegate of the leaf": impostor(lambda s: under(s, s.pki.leaf)),
    "a delegate with another issuer's name": impostor(lambda s: s.delegate(issuer="Test CB")),
    "a delegate whose signature is damaged": impostor(
        lambda s: s.retold(damage=lambda signature: signature[:-1] + bytes([signature[-1] ^ 1])),
        lambda s: s.retold(),
    ),
    "a delegate that ended a second ago": impostor(
        lambda s: s.delegate(not_after=s.now - SECOND), lambda s: s.delegate(not_after=s.now)
    ),
    "a delegate that starts in a second": impostor(
        lambda s: s.delegate(not_before=s.now + SECOND), lambda s: s.delegate(not_before=s.then)
    ),
    "a delegate younger than producedAt": impostor(
        lambda s: s.delegate(not_before=s.then + SECOND), lambda s: s.delegate(not_before=s.then)
    ),
    "a delegate that is a CA": impostor(
        lambda s: s.saying(pki.CA, SIGNS, OCSP_SIGNING, NOCHECK),
        lambda s: s.saying(SIGNS, OCSP_SIGNING, NOCHECK),
    ),
    "a delegate without purpose": impostor(lambda s: s.saying(NOT_CA, SIGNS, NOCHECK)),
    "a delegate for any purpose": impostor(
        lambda s: s.saying(NOT_CA, SIGNS, NOCHECK, purposes(ANY_PURPOSE)),
        lambda s: s.saying(NOT_CA, SIGNS, NOCHECK, purposes(ANY_PURPOSE, ExtendedKeyUsageOID.OCSP_SIGNING)),
    ),
    "a delegate for servers": impostor(
        lambda s: s.saying(NOT_CA, SIGNS, NOCHECK, purposes(ExtendedKeyUsageOID.SERVER_AUTH))
    ),
    "a delegate for servers and clients": impostor(
        lambda s: s.saying(
            NOT_CA,
            NOCHECK,
            purposes(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
        )
    ),
    "a delegate without any extension": impostor(lambda s: s.delegate(extensions=())),
    "a delegate in a certificate of version v1": impostor(lambda s: s.retold(version=0)),
    "a delegate of version v1 with extensions": impostor(
        lambda s: s.retold(version=0, extensions=encoded(*DELEGATE)),
        lambda s: s.retold(version=2, extensions=encoded(*DELEGATE)),
    ),
    "a delegate of a version that is none": impostor(
        lambda s: s.retold(version=66), lambda s: s.retold(version=2)
    ),
    "a delegate that may only encipher": impostor(
        lambda s: s.saying(usage(key_encipherment=True), OCSP_SIGNING, NOCHECK),
        lambda s: s.saying(usage(content_commitment=True), OCSP_SIGNING, NOCHECK),
    ),
    "a delegate that may only sign certificates": impostor(
        lambda s: s.saying(usage(key_cert_sign=True, crl_sign=True), OCSP_SIGNING, NOCHECK),
        lambda s: s.saying(usage(digital_signature=True, crl_sign=True), OCSP_SIGNING, NOCHECK),
    ),
    "a delegate with an unknown critical extension": impostor(
        lambda s: s.saying(*DELEGATE, unknown(critical=True)),
        lambda s: s.saying(*DELEGATE, unknown(critical=False)),
    ),
    "a delegate with critical name constraints": impostor(
        lambda s: s.saying(*DELEGATE, (x509.NameConstraints([x509.DNSName("test")], None), True)),
        lambda s: s.saying(*DELEGATE, (x509.SubjectAlternativeName([x509.DNSName("ocsp.test")]), True)),
    ),
    "a delegate with an extension twice": impostor(
        lambda s: s.retold(extensions=encoded(*DELEGATE, OCSP_SIGNING)),
        lambda s: s.retold(extensions=encoded(*DELEGATE)),
    ),
    "a delegate whose nocheck is no NULL": impostor(
        lambda s: s.retold(
            extensions=(
                *encoded(NOT_CA, SIGNS, OCSP_SIGNING),
                pki.extension("1.3.6.1.5.5.7.48.1.5", value=octets(b"")),
            )
        )
    ),
    "a delegate whose purposes cannot be read": impostor(
        lambda s: s.retold(
            extensions=(*encoded(NOT_CA, SIGNS, NOCHECK), pki.extension("2.5.29.37", value=NULL))
        )
    ),
    "a delegate signed with SHA-1": Mutation(
        WEAK,
        lambda s: resigned(s, pki.RSA_SHA1),
        lambda s: Variant(resigned(s, pki.RSA_SHA1), rules=OLD),
        by=By.DELEGATE,
        kinds=RSA_ONLY,
    ),
    "a delegate signed by RSASSA-PSS with SHA-1": Mutation(
        WEAK,
        lambda s: resigned(s, pki.PSS_SHA1),
        lambda s: resigned(s, pki.PSS_SHA256),
        by=By.DELEGATE,
        kinds=RSA_ONLY,
    ),
    "a delegate signed with MD5": Mutation(
        Code.OCSP_UNAUTHORIZED_RESPONDER,
        lambda s: Variant(resigned(s, pki.RSA_MD5), rules=OLD),
        lambda s: resigned(s, pki.RSA_SHA384),
        by=By.DELEGATE,
        kinds=RSA_ONLY,
    ),
    "a delegate signed with SHA-224": Mutation(
        WEAK,
        lambda s: s.delegate(hash=hashes.SHA224()),
        lambda s: s.delegate(hash=hashes.SHA384()),
        by=By.DELEGATE,
        kinds=RSA_ONLY | EC_ONLY,
    ),
    "a delegate with 1024 bits of RSA": Mutation(
        WEAK, lambda s: of_kind(s, KeyKind.RSA1024), lambda s: of_kind(s, KeyKind.RSA2048), by=By.DELEGATE
    ),
    "a delegate on P-224": Mutation(
        WEAK, lambda s: of_kind(s, KeyKind.P224), lambda s: of_kind(s, KeyKind.P521), by=By.DELEGATE
    ),
    "a delegate with DSA": Mutation(
        WEAK, lambda s: of_kind(s, KeyKind.DSA2048), lambda s: of_kind(s, KeyKind.ED448), by=By.DELEGATE
    ),
    "an unfit certificate of the delegate beside none that is fit": impostor(
        lambda s: s.saying(NOT_CA),
        lambda s: enclosing(
            s, replace(s.pki.blank_delegate, extensions=(NOT_CA,)).sign(s.pki.delegate.key).certificate
        ),
    ),
}
