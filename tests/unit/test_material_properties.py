"""Whatever the bytes: `read` gives material or findings, `escape` gives one harmless line."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from stapleguard.material import Material, NameMatch, leaf_facts, matches_name, read
from stapleguard.model import SourceFiles, escape

pytestmark = pytest.mark.unit

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example")])
CERTIFICATE = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(KEY.public_key())
    .serial_number(5)
    .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=9))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=False)
    .add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
    .sign(KEY, hashes.SHA256())
)
DER = CERTIFICATE.public_bytes(serialization.Encoding.DER)
PEM = CERTIFICATE.public_bytes(serialization.Encoding.PEM)
KEY_PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


def armour(label: bytes, der: bytes) -> bytes:
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, base64.encodebytes(der), label)


def flipped(der: bytes) -> st.SearchStrategy[bytes]:
    """Replace one to three bytes: the structure stays near enough to be parsed deep."""
    change = st.tuples(st.integers(0, len(der) - 1), st.integers(0, 255))

    def apply(changes: list[tuple[int, int]]) -> bytes:
        out = bytearray(der)
        for place, value in changes:
            out[place] = value
        return bytes(out)

    return st.lists(change, min_size=1, max_size=3).map(apply)


labels = st.sampled_from(
    [b"CERTIFICATE", b"X509 CERTIFICATE", b"PRIVATE KEY", b"EC PRIVATE KEY", b"ENCRYPTED PRIVATE KEY", b"X"]
)
blocks = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([PEM, KEY_PEM, PEM[:90], KEY_PEM[:60], b"-----BEGIN CERTIFICATE-----", b"-----END "]),
    st.builds(armour, labels, st.binary(max_size=60)),
    flipped(DER).map(lambda der: armour(b"CERTIFICATE", der)),
    flipped(PEM),
)
contents = st.lists(blocks, max_size=4).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(contents | st.just(KEY_PEM), contents, contents, contents)
def test_any_bytes_give_material_or_findings(
    privkey: bytes, cert: bytes, chain: bytes, fullchain: bytes
) -> None:
    result = read(SourceFiles(privkey, cert, chain, fullchain))
    if isinstance(result, Material):
        assert result.key_pem.startswith(b"-----BEGIN ")
        return
    assert result
    for finding in result:
        assert finding.message.isprintable()
        assert finding.code.value.startswith("material.")


@settings(max_examples=300, deadline=None)
@given(flipped(DER))
def test_a_damaged_certificate_with_its_key(der: bytes) -> None:
    result = read(SourceFiles(KEY_PEM, armour(b"CERTIFICATE", der)))
    if isinstance(result, Material):
        assert leaf_facts(result.leaf) == result.facts
        assert result.facts.subject.isprintable()
        assert matches_name(result.leaf, "b.example") is NameMatch.DIFFERS or b"a.example" not in der
    else:
        assert result


def test_the_undamaged_certificate_is_material() -> None:
    assert isinstance(read(SourceFiles(KEY_PEM, PEM)), Material)


@given(st.text(st.characters(), max_size=80))
def test_any_name_has_an_answer(name: str) -> None:
    expected = (
        NameMatch.MATCHES if name.strip().lower().removesuffix(".") == "a.example" else NameMatch.DIFFERS
    )
    assert matches_name(CERTIFICATE, name) is expected


@given(st.text(st.characters(exclude_categories=()), max_size=80), st.integers(1, 60))
def test_escape_is_one_short_line_and_final(text: str, limit: int) -> None:
    shown = escape(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert escape(shown, limit) == shown
    assert shown == text or not text.isprintable() or len(text) > limit
    shown.encode("utf-8")
