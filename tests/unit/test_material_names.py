"""What certificates say and which names they cover, with text that wants to do harm."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from material_pki import (
    AIA_URL,
    CA,
    DAY,
    MUST_STAPLE,
    NOW,
    OCSP_URL,
    TWIST_KEY,
    access,
    bad,
    files,
    good,
    issue,
    key_pem,
    only,
    twist,
)
from stapleguard.finding import Code
from stapleguard.material import Material, NameMatch, TrustPath, gate, leaf_facts, matches_name, read
from stapleguard.model import SourceFiles, escape

pytestmark = pytest.mark.unit

KEY = CA.leaf.key_pem


class TestFacts:
    def test_everything_a_leaf_says(self) -> None:
        leaf = issue(
            "",
            CA.lower,
            names=["xn--bcher-kva.example", "*.example.org"],
            addresses=["192.0.2.1", "2001:db8::1"],
            extensions=[MUST_STAPLE, access(ocsp=OCSP_URL, issuers=AIA_URL)],
        ).certificate
        facts = leaf_facts(leaf)
        assert facts.sha256 == leaf.fingerprint(hashes.SHA256()).hex()
        assert facts.serial == leaf.serial_number
        assert (facts.subject, facts.issuer) == ("", "CN=Lower")
        assert facts.names == ("xn--bcher-kva.example", "*.example.org", "192.0.2.1", "2001:db8::1")
        assert (facts.not_before, facts.not_after) == (NOW - DAY, NOW + 90 * DAY)
        assert (facts.ocsp_urls, facts.ca_issuers) == ((OCSP_URL,), (AIA_URL,))
        assert facts.must_staple

    def test_a_plain_leaf_says_less(self) -> None:
        facts = leaf_facts(issue("", CA.lower).certificate)
        assert (facts.names, facts.ocsp_urls, facts.ca_issuers, facts.must_staple) == ((), (), (), False)

    def test_another_tls_feature_is_no_demand_for_a_staple(self) -> None:
        feature = x509.TLSFeature([x509.TLSFeatureType.status_request_v2])
        assert not leaf_facts(issue("", CA.lower, extensions=[feature]).certificate).must_staple

    @pytest.mark.parametrize(
        "odd",
        [
            ("2.5.29.17", b"\x02\x01\x05"),  # subjectAltName that is an INTEGER
            ("2.5.29.17", b"\x30\x05\x87\x03\x01\x02\x03"),  # an IP address of three bytes
            ("2.5.29.17", b"\x30\x02\xa3\x00"),  # an x400Address, which cryptography does not take
            ("1.3.6.1.5.5.7.1.24", b"\x30\x03\x02\x01\x63"),  # TLS feature 99
            ("1.3.6.1.5.5.7.1.1", b"junk"),  # authorityInformationAccess
        ],
    )
    def test_undecodable_extensions_count_as_absent(self, odd: tuple[str, bytes]) -> None:
        twisted = twist(CA.leaf.certificate, CA.lower, odd)
        assert leaf_facts(twisted).names == ()
        assert matches_name(twisted, "www.example.org") is NameMatch.DIFFERS

    def test_a_duplicate_extension_counts_as_absent(self) -> None:
        oids = (b"\x06\x03\x55\x1d\x63", b"\x06\x03\x55\x1d\x62")
        twisted = twist(CA.leaf.certificate, CA.lower, ("2.5.29.99", b"\x05\x00"), ("2.5.29.98", b"\x05\x00"))
        der = twisted.public_bytes(serialization.Encoding.DER)
        assert leaf_facts(x509.load_der_x509_certificate(der)).issuer == "CN=Lower"
        twice = x509.load_der_x509_certificate(der.replace(*oids))
        with pytest.raises(x509.DuplicateExtension):
            _ = twice.extensions
        assert leaf_facts(twice).names == ()

    def test_odd_certificates_raise_nothing_and_warn_nobody(self) -> None:
        """A serial number of 0, a country of three letters, a version of 6: warnings are errors here."""
        der = twist(CA.leaf.certificate, CA.lower).public_bytes(serialization.Encoding.DER)
        serial = der.replace(b"\x02\x01\x02\x02\x01\x01", b"\x02\x01\x02\x02\x01\x00")
        version = der.replace(b"\x02\x01\x02\x02\x01\x01", b"\x02\x01\x05\x02\x01\x01")
        country = der.replace(b"\x06\x03\x55\x04\x03", b"\x06\x03\x55\x04\x06")
        assert len({der, serial, version, country}) == 4
        key = key_pem(TWIST_KEY)
        assert isinstance(read(SourceFiles(key, armour(der))), Material)
        for odd in (serial, version, country):
            result = read(SourceFiles(key, armour(odd)))
            assert isinstance(result, Material) or only(result).code is Code.MATERIAL_UNREADABLE
        assert only(bad(SourceFiles(key, armour(version)))).code is Code.MATERIAL_UNREADABLE

    def test_hostile_text_is_escaped_everywhere(self) -> None:
        hostile = "evil\r\nstapleguard: error: \x1b[2J\u202egro"
        leaf = issue(hostile, CA.lower, extensions=[access(issuers="http://x/\x1b[1m\n")])
        material = good(replace(files(leaf), chain=b"", fullchain=b""))
        found = [
            *gate(material, TrustPath((), "\x1b"), ["a\nb"], NOW + 900 * DAY),
            *bad(files(leaf, CA.upper)),
            *bad(replace(files(leaf), privkey=KEY)),
            *bad(replace(CA.source, fullchain=files(leaf, CA.lower, CA.upper).fullchain)),
        ]
        assert len(found) == 7
        assert "evil\\x0d\\x0astapleguard" in found[0].message
        assert material.facts.subject.isprintable()
        for finding in found:
            assert finding.message.isprintable()
            assert repr(dict(finding.evidence)).isprintable()
            assert all(text.isprintable() for text in flat(finding.evidence.values()))


def armour(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def flat(values: object) -> list[str]:
    if isinstance(values, str):
        return [values]
    try:
        return [text for value in values for text in flat(value)]  # type: ignore[attr-defined]  # tried
    except TypeError:
        return []


class TestNames:
    LEAF = issue(
        "cn.example.net",
        CA.lower,
        names=[
            "Example.org",
            "*.example.org",
            "xn--bcher-kva.example",
            "f*.example.net",
            "*.com",
            "*",
            "a\0b",
        ],
        addresses=["192.0.2.1", "2001:db8::1"],
    ).certificate

    @pytest.mark.parametrize(
        "name",
        [
            "example.org",
            "EXAMPLE.org.",
            "www.example.org",
            "*.example.org",
            "xn--bcher-kva.example.org",
            "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example.org",
            "B\N{LATIN CAPITAL LETTER U WITH DIAERESIS}CHER.example",
            "xn--bcher-kva.example",
            "192.0.2.1",
            "2001:DB8:0::1",
            "[2001:db8::1]",
        ],
    )
    def test_covered(self, name: str) -> None:
        assert matches_name(self.LEAF, name) is NameMatch.MATCHES

    @pytest.mark.parametrize(
        "name",
        [
            "a.b.example.org",
            "*.b.example.org",
            "cn.example.net",
            "xn--fcher-kva.example.net",
            "www.xn--bcher-kva.example",
            "*.example.net",
            "evil.com",
            "*.com",
            "*",
            "a",
            "192.0.2.2",
            "2001:db8::2",
            "",
            ".",
            "a b",
            "example.org\0",
            "\ud800.example.org",
            "1234",
            "x" * 300,
        ],
    )
    def test_not_covered(self, name: str) -> None:
        assert matches_name(self.LEAF, name) is NameMatch.DIFFERS

    def test_a_literal_label_is_no_wildcard(self) -> None:
        leaf = issue("", CA.lower, names=["any-single-label.example.org"]).certificate
        assert matches_name(leaf, "*.example.org") is NameMatch.DIFFERS

        assert matches_name(leaf, "xn--bcher-kva.example.org") is NameMatch.DIFFERS
        wildcard = issue("", CA.lower, names=["*.example.org"]).certificate
        assert matches_name(wildcard, "xn--bcher-kva.example.org") is NameMatch.MATCHES

    def test_an_address_in_a_dns_name_does_not_count(self) -> None:
        assert matches_name(issue("", names=["192.0.2.1"]).certificate, "192.0.2.1") is NameMatch.DIFFERS


class TestEscape:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (
                "plain \N{LATIN SMALL LETTER U WITH DIAERESIS} \\",
                "plain \N{LATIN SMALL LETTER U WITH DIAERESIS} \\",
            ),
            ("a\r\n\tb", "a\\x0d\\x0a\\x09b"),
            ("\x1b[2J\x7f\x9b", "\\x1b[2J\\x7f\\x9b"),
            ("\u202e\u2066\u200f\u2028", "\\u202e\\u2066\\u200f\\u2028"),
            ("\ud800", "\\ud800"),
            ("\U000e0041", "\\U000e0041"),
        ],
    )
    def test_forms(self, text: str, shown: str) -> None:
        assert escape(text) == shown

    @pytest.mark.parametrize(
        ("text", "shown"),
        [("12345678", "12345678"), ("123456789", "1234567\u2026"), ("12345\n89", "12345\u2026")],
    )
    def test_cut(self, text: str, shown: str) -> None:
        assert escape(text, 8) == shown
