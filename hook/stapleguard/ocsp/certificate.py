"""What `cryptography` does not show of a certificate, read from its DER."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from stapleguard.ocsp.der import elements

# What is remembered of a certificate follows from its bytes alone, so it cannot grow old: every staple
# of a run asks the same of the same issuer, leaf and delegate.
remember = lru_cache(maxsize=64)

# UTF8String, NumericString, PrintableString, T61String, IA5String, UniversalString, BMPString, BIT STRING.
# T61String is read as bytes, as old authorities write Latin-1 there; so are those that nobody misreads.
_TEXT: Final = {12: "utf-8", 28: "utf-32-be", 30: "utf-16-be"}
_BYTES: Final = frozenset({3, 18, 19, 20, 22})


@dataclass(frozen=True, slots=True)
class Encoded:
    """Fields of a certificate in DER, as they stand and decoded by nobody.

    `key` is what the BIT STRING subjectPublicKey holds; parameters of an algorithm are None when absent.
    """

    issuer: bytes
    subject: bytes
    inner_algorithm: bytes
    outer_algorithm: bytes
    parameters: bytes | None
    key: bytes
    key_parameters: bytes | None


@remember
def encoded_fields(certificate: x509.Certificate) -> Encoded:
    """Take a certificate apart."""
    (whole,) = elements(certificate.public_bytes(Encoding.DER))
    tbs, outer, _ = elements(whole.contents)
    fields = elements(tbs.contents)
    if fields[0].tag == 0:  # [0] version; v1, the DEFAULT, is not encoded
        del fields[0]
    _, inner, issuer, _, subject, key_info, *_ = fields
    algorithm, key = elements(key_info.contents)
    _, *parameters = elements(outer.contents)
    _, *key_parameters = elements(algorithm.contents)
    return Encoded(
        issuer=issuer.encoded,
        subject=subject.encoded,
        inner_algorithm=inner.encoded,
        outer_algorithm=outer.encoded,
        parameters=parameters[0].encoded if parameters else None,
        key=key.contents[1:],  # after the count of unused bits, as 4.1.1 and 4.2.2.3 hash it
        key_parameters=key_parameters[0].encoded if key_parameters else None,
    )


@remember
def check_names(certificate: x509.Certificate) -> None:
    """Raise ValueError unless subject and issuer are names in the sense of `check_name`."""
    fields = encoded_fields(certificate)
    check_name(fields.subject)
    check_name(fields.issuer)


def check_name(name: bytes) -> None:
    """Raise ValueError where a value in a Name (DER) is no string, or not in the encoding of its tag.

    RFC 5280 section 4.1.2.4. `cryptography` looks only when it is asked for the name, and then refuses
    Latin-1, too.
    """
    (whole,) = elements(name)
    for relative in elements(whole.contents):
        for attribute in elements(relative.contents):
            _, value = elements(attribute.contents)
            if value.class_ or value.tag not in _BYTES | _TEXT.keys():
                raise ValueError("a value in a name is no string")
            value.contents.decode(_TEXT.get(value.tag, "latin-1"))
