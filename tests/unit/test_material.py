"""Reading the files of a certificate: every bad set beside the good one it was made from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from material_pki import (
    AIA_URL,
    CA,
    DAY,
    NOW,
    PATHS,
    Pair,
    SigningKey,
    authority,
    bad,
    files,
    good,
    issue,
    key_pem,
    named,
    only,
)
from stapleguard.finding import Code, Finding
from stapleguard.material import (
    leaf_facts,
)
from stapleguard.model import KeyType, Severity, SourceFiles

pytestmark = pytest.mark.unit


class TestReadsEverySplit:
    def test_four_files_as_certbot_writes_them(self) -> None:
        ca = authority()
        material = good(ca.source)
        assert material.leaf == ca.leaf.certificate
        assert material.chain == (ca.lower.certificate, ca.upper.certificate)
        assert material.issuer == ca.lower.certificate
        assert material.key_pem == ca.leaf.key_pem
        assert dict(material.paths) == PATHS

    def test_fullchain_alone(self) -> None:
        ca = authority()
        material = good(replace(ca.source, cert=b"", chain=b""))
        assert material.chain == (ca.lower.certificate, ca.upper.certificate)
        assert material.paths["cert"] == material.paths["chain"] == PATHS["fullchain"]

    def test_cert_file_that_is_a_fullchain(self) -> None:
        source = authority().source
        assert good(replace(source, cert=source.fullchain, chain=b"", fullchain=b"")).chain

    def test_cert_without_any_chain_is_read_and_left_to_the_gate(self) -> None:
        material = good(replace(authority().source, chain=b" \n", fullchain=b""))
        assert material.chain == ()
        assert material.issuer is None

    def test_root_in_the_chain_is_dropped(self) -> None:
        ca = authority()
        assert good(files(ca.leaf, ca.lower, ca.upper, ca.root)).chain == good(ca.source).chain

    def test_text_around_the_blocks_and_parameters_before_the_key(self) -> None:
        source = authority().source
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        noisy = replace(
            source,
            privkey=b"\xef\xbb\xbf" + parameters + source.privkey.strip(),
            cert=b"subject=CN\n" + source.cert.replace(b"\n", b"\r\n"),
        )
        material = good(noisy)
        assert material.key_pem == source.privkey

    @pytest.mark.parametrize(
        ("key", "kind"),
        [
            (rsa.generate_private_key(65537, 2048), KeyType.RSA),
            (ec.generate_private_key(ec.SECP384R1()), KeyType.ECDSA),
            (ed25519.Ed25519PrivateKey.generate(), KeyType.EDDSA),
            (ed448.Ed448PrivateKey.generate(), KeyType.EDDSA),
        ],
    )
    def test_every_key_type(self, key: SigningKey, kind: KeyType) -> None:
        root = issue("Root", key=key)
        leaf = issue("", root, key=key, names=["a.example"])
        assert good(files(leaf)).facts.key_type is kind
        stranger = issue("", root, names=["a.example"])
        assert bad(replace(files(leaf), privkey=stranger.key_pem))[0].code is Code.MATERIAL_KEY_MISMATCH

    def test_no_key_byte_in_the_representation(self) -> None:
        source = authority().source
        body = source.privkey.splitlines()[1].decode()
        assert body not in repr(good(source))
        assert body not in repr(source)


KEY = CA.leaf.key_pem
DER = CA.leaf.certificate.public_bytes(serialization.Encoding.DER)
CUT = CA.leaf.pem[: len(CA.leaf.pem) // 2]


class TestUnreadable:
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"hello", "is not PEM"),
            (DER, "is DER, not PEM"),
            (CA.leaf.pem, "holds no private key but a CERTIFICATE"),
            (key_pem(CA.leaf.key, b"secret"), "encrypted"),
            (key_pem(dsa.generate_private_key(1024)), "another type"),
            pytest.param(KEY[:100], "cut off", id="key-cut off"),
            (KEY + CA.lower.key_pem, "2 private keys"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be decoded"),
            (KEY + b"\n" * (1 << 20), "more than 1048576"),
        ],
    )
    def test_key(self, data: bytes, words: str) -> None:
        found = only(bad(replace(CA.source, privkey=data)))
        assert found.code is Code.MATERIAL_UNREADABLE
        assert found.message.startswith("/etc/le/privkey.pem ")
        assert words in found.message
        assert "secret" not in repr(found)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"hello", "is not PEM"),
            (DER, "is DER, not PEM"),
            (KEY, "holds no certificate but a PRIVATE KEY"),
            (CUT, "cut off"),
            (CA.leaf.pem + CUT, "cut off"),
            (b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "not valid DER"),
            (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "damaged"),
            (CA.leaf.pem * 11, "holds 11 certificates, more than 10"),
            (CA.leaf.pem + b"\n" * (1 << 20), "more than 1048576"),
        ],
    )
    @pytest.mark.parametrize("kind", ["cert", "chain", "fullchain"])
    def test_certificates(self, kind: str, data: bytes, words: str) -> None:
        source = CA.source
        broken = SourceFiles(
            source.privkey,
            data if kind == "cert" else source.cert,
            data if kind == "chain" else source.chain,
            data if kind == "fullchain" else source.fullchain,
            PATHS,
        )
        found = only(bad(broken))
        assert found.code is Code.MATERIAL_UNREADABLE
        assert found.subject == f"/etc/le/{kind}.pem"
        assert words in found.message

    def test_neither_cert_nor_fullchain(self) -> None:
        found = only(bad(replace(CA.source, cert=b"", fullchain=b"")))
        assert found.message == "/etc/le/cert.pem is empty"

    def test_the_first_thing_to_mend_comes_first(self) -> None:
        found = bad(SourceFiles(b"", b"x", b"x", b"x"))
        assert [finding.subject for finding in found] == [
            "privkey.pem",
            "cert.pem",
            "chain.pem",
            "fullchain.pem",
        ]

    def test_leaf_with_a_key_that_no_server_uses(self) -> None:
        odd = dsa.generate_private_key(1024)
        built = (
            x509.CertificateBuilder()
            .subject_name(named("dsa"))
            .issuer_name(CA.lower.certificate.subject)
            .public_key(odd.public_key())
            .serial_number(1)
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + DAY)
            .sign(CA.lower.key, hashes.SHA256())
        )
        pem = built.public_bytes(serialization.Encoding.PEM)
        found = only(bad(replace(CA.source, cert=pem, fullchain=b"")))
        assert found.code is Code.MATERIAL_UNREADABLE
        assert "another type" in found.message
        assert leaf_facts(built).subject == "CN=dsa"

    def test_a_path_cannot_forge_a_line(self) -> None:
        found = only(bad(replace(CA.source, privkey=b"", paths={"privkey": "/a\nb\x1b[2J"})))
        assert found.message == "/a\\x0ab\\x1b[2J is empty"


class TestKeyBelongs:
    def test_foreign_key(self) -> None:
        stranger = issue("stranger")
        found = only(bad(replace(CA.source, privkey=stranger.key_pem)))
        assert found.code is Code.MATERIAL_KEY_MISMATCH
        assert "/etc/le/privkey.pem" in found.message
        assert {len(str(found.evidence[name])) for name in ("key_spki_sha256", "leaf_spki_sha256")} == {64}
        assert found.evidence["key_spki_sha256"] != found.evidence["leaf_spki_sha256"]
        assert "PRIVATE" not in repr(found)

    def test_cert_and_chain_swapped(self) -> None:
        source = CA.source
        found = only(bad(replace(source, cert=source.chain, chain=source.cert, fullchain=b"")))
        assert found.code is Code.MATERIAL_KEY_MISMATCH
        assert found.evidence["key_belongs_to"] == "certificate 1 of /etc/le/chain.pem"
        assert "swapped" in found.message

    def test_leaf_not_first_in_the_only_file_is_an_order(self) -> None:
        source = replace(CA.source, cert=b"", chain=b"", fullchain=CA.lower.pem + CA.leaf.pem + CA.upper.pem)
        found = only(bad(source))
        assert found.code is Code.MATERIAL_CHAIN_ORDER
        assert "certificate 2 of /etc/le/fullchain.pem" in found.message


class TestChainOrder:
    def expect(self, source: SourceFiles, words: str) -> Finding:
        found = only(bad(source))
        assert found.code is Code.MATERIAL_CHAIN_ORDER
        assert found.severity is Severity.CRITICAL
        assert words in found.message
        return found

    def test_reversed_tells_the_right_order(self) -> None:
        found = self.expect(files(CA.leaf, CA.upper, CA.lower), "wrong order")
        assert found.message.endswith("CN=Lower; then CN=Upper")
        assert found.subject == PATHS["chain"]

    def test_stray(self) -> None:
        stray = issue("Stray", CA.root)
        assert "CN=Stray" in self.expect(files(CA.leaf, CA.lower, stray, CA.upper), "no part of").message

    def test_leaf_among_the_intermediates(self) -> None:
        self.expect(files(CA.leaf, CA.leaf, CA.lower, CA.upper), "the leaf CN=www.example.org itself")

    def test_intermediate_twice(self) -> None:
        self.expect(files(CA.leaf, CA.lower, CA.lower, CA.upper), "more than once")

    def test_nothing_but_strangers_is_incomplete_first(self) -> None:
        found = bad(files(CA.leaf, CA.upper))
        assert [finding.code for finding in found] == [
            Code.MATERIAL_CHAIN_INCOMPLETE,
            Code.MATERIAL_CHAIN_ORDER,
        ]
        assert found[0].message.startswith("CN=Lower, which issued CN=www.example.org, is no intermediate in")
        assert AIA_URL in found[0].message

    def test_same_name_with_another_key(self) -> None:
        impostor = issue("Lower", CA.upper)
        found = bad(files(CA.leaf, impostor, CA.upper))
        assert found[0].code is Code.MATERIAL_CHAIN_INCOMPLETE
        assert "with another key" in found[0].message

    def test_fullchain_of_another_renewal(self) -> None:
        other = issue("other", CA.lower)
        source = replace(CA.source, fullchain=files(other, CA.lower, CA.upper).fullchain)
        found = self.expect(source, "begins with CN=other, not with the leaf CN=www.example.org")
        assert found.subject == PATHS["fullchain"]

    def test_fullchain_in_another_order_than_cert(self) -> None:
        fullchain = CA.lower.pem + CA.leaf.pem + CA.upper.pem
        self.expect(replace(CA.source, fullchain=fullchain), "stands there at place 2")

    def test_fullchain_that_is_not_cert_and_chain(self) -> None:
        self.expect(replace(CA.source, fullchain=CA.leaf.pem + CA.lower.pem), "followed by the intermediates")

    def test_many_cross_signed_intermediates_are_sorted_in_time(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        one = Pair(key, issue("A", key=key).certificate)
        two = Pair(key, issue("B", key=key).certificate)
        crossed = [issue("A", two, key=key) if place % 2 else issue("B", one, key=key) for place in range(9)]
        leaf = issue("leaf", one)
        found = only(bad(replace(files(leaf, *crossed[::2], *crossed[1::2], CA.lower), fullchain=b"")))
        assert found.code is Code.MATERIAL_CHAIN_ORDER
        assert len(found.evidence["right_order"]) == 8  # type: ignore[arg-type]  # a list of labels
