"""What breaks the form: RFC 6960 section 4.2.1, strict DER, and the times of RFC 5280 section 4.1.2.5.2."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import asn1
import pki
from asn1 import NULL, enumerated, explicit, integer, octets
from pki import NONCE, extension
from stapleguard.finding import Code
from twins import ALIEN, DAY, EC_ONLY, MINUTE, RSA_ONLY, By, Mutation, Setting, Table, Variant

RSA_OID, EC_OID = "1.2.840.113549.1.1.11", "1.2.840.10045.4.3.2"


def form(broken: object, twin: object | None = None, **more: object) -> Mutation:
    """Make a mutation that leaves nothing to read."""
    pair = {"broken": broken} if twin is None else {"broken": broken, "twin": twin}
    return Mutation(Code.OCSP_MALFORMED, status=None, **pair, **more)  # type: ignore[arg-type]


def refused(number: int, code: Code) -> Mutation:
    """Make the responder refuse, with the good answer still inside."""
    return Mutation(code, lambda setting: setting.but(status=enumerated(number)), status=None)


def long_length(setting: Setting) -> bytes:
    """Write the outermost length with one octet too many."""
    der = setting.base.der()
    contents = asn1.contents(der)
    return b"\x30\x84" + len(contents).to_bytes(4, "big") + contents


def indefinite(setting: Setting) -> bytes:
    """Write the outermost element in the indefinite form of BER."""
    return b"\x30\x80" + asn1.contents(setting.base.der()) + b"\0\0"


def cut(setting: Setting) -> bytes:
    """Lose the last octet."""
    return setting.base.der()[:-1]


def too_large(setting: Setting, spare: int) -> Variant:
    """Fill the response with an extension to the limit of 64 KiB, less `spare`."""
    empty = setting.but(extensions=(extension(ALIEN, value=b"\0" * 60000),))
    room = 65536 - spare - len(empty.der())
    return Variant(setting.but(extensions=(extension(ALIEN, value=b"\0" * (60000 + room)),)))


def first_status(setting: Setting) -> bytes:
    """Read the good answer under the status 0 that is written in two octets."""
    return setting.but(status=asn1.tlv(10, b"\0\0")).der()


def octet_params(setting: Setting) -> object:
    algorithm = pki.Algorithm(asn1.seq(asn1.oid(RSA_OID), octets(b"")), pki.RSA_SHA256.sign)
    return setting.but(algorithm=algorithm)


def no_params(setting: Setting) -> object:
    """RFC 4055 section 5: the NULL must be written, and its absence must be read."""
    return setting.but(algorithm=pki.Algorithm(asn1.seq(asn1.oid(RSA_OID)), pki.RSA_SHA256.sign))


def at(text: str) -> dict[str, bytes]:
    return {"this_update": text.encode()}


def stamp(setting: Setting, form_: str, ago: int = 60) -> bytes:
    return (setting.now - ago * MINUTE).strftime(form_).encode()


RIGHT = "%Y%m%d%H%M%SZ"

FORM: Final[Table] = {
    "version v1 encoded": form(lambda s: s.but(version=explicit(0, integer(0)))),
    "version v2": form(lambda s: s.but(version=explicit(0, integer(1)))),
    "another responseType": form(lambda s: s.but(response_type="1.3.6.1.5.5.7.48.1.99")),
    "an undefined status 4": form(lambda s: s.but(status=enumerated(4))),
    "an undefined status 7": form(lambda s: s.but(status=enumerated(7))),
    "a status in two octets": form(first_status),
    "a status that is an INTEGER": form(lambda s: s.but(status=integer(0))),
    "malformedRequest": refused(1, Code.OCSP_MALFORMED_REQUEST),
    "internalError": refused(2, Code.OCSP_INTERNAL_ERROR),
    "tryLater": refused(3, Code.OCSP_TRY_LATER),
    "sigRequired": refused(5, Code.OCSP_SIG_REQUIRED),
    "unauthorized": refused(6, Code.OCSP_UNAUTHORIZED),
    "successful without an answer": form(lambda s: asn1.seq(enumerated(0))),
    "no bytes": form(lambda s: b""),
    "the last octet lost": form(cut),
    "a length in too many octets": form(long_length),
    "the indefinite form": form(indefinite),
    "bytes after the response": form(lambda s: s.but(tail=b"\0")),
    "bytes in the response": form(lambda s: s.but(tail_response=NULL)),
    "bytes in the explicit tag": form(lambda s: s.but(tail_explicit=NULL)),
    "bytes in responseBytes": form(lambda s: s.but(tail_bytes=NULL)),
    "bytes after the basic response": form(lambda s: s.but(tail_octets=NULL)),
    "bytes in the basic response": form(lambda s: s.but(tail_basic=NULL)),
    "bytes in the response data": form(lambda s: s.but(tail_data=NULL)),
    "bytes in the entry": form(lambda s: s.entry(tail=NULL)),
    "more than 64 KiB": Mutation(
        Code.RESPONDER_TOO_LARGE, lambda s: too_large(s, -64), lambda s: too_large(s, 64), status=None
    ),
    # times
    "a time with a fraction": form(
        lambda s: s.entry(this_update=stamp(s, "%Y%m%d%H%M%S.5Z")),
        lambda s: s.entry(this_update=stamp(s, RIGHT)),
    ),
    "a time without seconds": form(lambda s: s.entry(this_update=stamp(s, "%Y%m%d%H%MZ"))),
    "a time with an offset": form(
        lambda s: s.entry(next_update=stamp(s, "%Y%m%d%H%M%S+0000", -600)),
        lambda s: s.entry(next_update=stamp(s, RIGHT, -600)),
    ),
    "a time of nowhere": form(
        lambda s: s.but(produced_at=stamp(s, "%Y%m%d%H%M%S")), lambda s: s.but(produced_at=stamp(s, RIGHT))
    ),
    "a time with a small z": form(lambda s: s.entry(this_update=stamp(s, "%Y%m%d%H%M%Sz"))),
    "a UTCTime": form(lambda s: s.entry(this_update=stamp(s, "%y%m%d%H%M%SZ"))),
    "a thirtieth of February": form(lambda s: s.entry(this_update=b"20260230110000Z")),
    "a sixty-first second": form(lambda s: s.entry(this_update=stamp(s, "%Y%m%d%H%M60Z", 120))),
    "the hour twenty-four": form(lambda s: s.entry(this_update=stamp(s, "%Y%m%d240000Z", 1440))),
    "the year nought": form(lambda s: s.entry(this_update=b"00000601110000Z")),
    # fields
    "half an octet of signature": form(
        lambda s: s.but(unused_bits=4, damage=lambda signature: signature + b"\0")
    ),
    "a good that is constructed": form(lambda s: s.entry(status=b"\xa0\x00")),
    "a good with contents": form(lambda s: s.entry(status=b"\x80\x01\x00")),
    "a certStatus of tag 3": form(lambda s: s.entry(status=b"\x83\x00")),
    "revoked without a time": form(lambda s: s.entry(status=explicit(1))),
    "a serial number in too many octets": form(
        lambda s: s.cert_id(serial=asn1.tlv(2, b"\0\0" + asn1.contents(s.base.entry.cert_id.serial)))
    ),
    "parameters of the CertID hash": form(
        lambda s: s.cert_id(algorithm=asn1.seq(asn1.oid(pki.SHA1), octets(b"x"))),
        lambda s: s.cert_id(algorithm=asn1.seq(asn1.oid(pki.SHA1))),
    ),
    "parameters with ECDSA": form(
        lambda s: s.but(algorithm=pki.Algorithm(asn1.seq(asn1.oid(EC_OID), NULL), pki.ECDSA_SHA256.sign)),
        lambda s: s.but(algorithm=pki.ECDSA_SHA256),
        kinds=EC_ONLY,
    ),
    "parameters other than NULL with RSA": form(octet_params, no_params, kinds=RSA_ONLY),
    "a KeyHash cut short": form(lambda s: s.but(responder=explicit(2, octets(b"short")))),
    "a responderID of tag 3": form(lambda s: s.but(responder=explicit(3, octets(b"\1" * 20)))),
    "an explicit tag of certs around nothing": form(
        lambda s: s.but(tail_basic=explicit(0)), lambda s: s.but(certs=()), by=By.ISSUER
    ),
    "certs that are none": form(lambda s: s.but(certs=(NULL,)), by=By.ISSUER),
    # extensions
    "an empty list of response extensions": form(
        lambda s: s.but(extensions=()), lambda s: s.but(extensions=(extension(ALIEN),))
    ),
    "an empty list of entry extensions": form(
        lambda s: s.entry(extensions=()), lambda s: s.entry(extensions=(extension(ALIEN),))
    ),
    "a response extension twice": form(
        lambda s: s.but(extensions=(extension(NONCE), extension(NONCE, value=octets(b"b")))),
        lambda s: s.but(extensions=(extension(NONCE), extension(ALIEN))),
    ),
    "an entry extension twice": form(
        lambda s: s.entry(extensions=(extension(ALIEN), extension(ALIEN))),
        lambda s: s.entry(extensions=(extension(NONCE), extension(ALIEN))),
    ),
    "a critical FALSE that is encoded": form(
        lambda s: s.but(extensions=(extension(ALIEN, critical=asn1.tlv(1, b"\0")),)),
        lambda s: s.but(extensions=(extension(ALIEN),)),
    ),
    "a critical TRUE of 1": form(
        lambda s: s.but(extensions=(extension(NONCE, critical=asn1.tlv(1, b"\1")),)),
        lambda s: s.but(extensions=(extension(NONCE, critical=asn1.CRITICAL),)),
    ),
    "nextUpdate before thisUpdate": Mutation(
        Code.OCSP_MALFORMED,
        lambda s: s.entry(next_update=s.then - DAY),
        lambda s: s.entry(next_update=s.now + MINUTE),
    ),
    "a later entry that is malformed": form(
        lambda s: s.but(more=(replace(s.base.entry, this_update=b"20260601110000"),)),
        lambda s: s.but(more=(s.base.entry,)),
    ),
}
