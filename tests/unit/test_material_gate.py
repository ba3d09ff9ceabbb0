"""The gate, the completion of a chain, and the files for the server: the fit beside the unfit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from material_pki import (
    AIA_URL,
    CA,
    DAY,
    MUST_STAPLE,
    NOW,
    OCSP_URL,
    PATHS,
    TWIST_KEY,
    Pair,
    access,
    files,
    good,
    issue,
    only,
    path_of,
    twist,
)
from stapleguard.finding import Code, Finding, criticals
from stapleguard.material import (
    TrustPath,
    assemble,
    gate,
    missing_issuer,
    with_chain,
)
from stapleguard.model import Severity, SourceFiles

pytestmark = pytest.mark.unit

KEY = CA.leaf.key_pem


def reasons(found: Sequence[Finding]) -> list[Code]:
    return [finding.code for finding in found]


class TestGate:
    def test_fit(self) -> None:
        names = ["www.example.org", "example.org"]
        assert gate(good(CA.source), CA.path, names, NOW) == ()

    @pytest.mark.parametrize(
        ("ahead", "codes"),
        [(timedelta(minutes=5), []), (timedelta(minutes=5, seconds=1), [Code.MATERIAL_NOT_YET_VALID])],
    )
    def test_not_before(self, ahead: timedelta, codes: list[Code]) -> None:
        leaf = issue("a", CA.lower, life=(NOW + ahead, NOW + DAY))
        found = gate(good(files(leaf, CA.lower, CA.upper)), path_of(leaf), [], NOW)
        assert reasons(found) == codes

    @pytest.mark.parametrize(
        ("late", "codes"),
        [(timedelta(0), []), (timedelta(seconds=1), [Code.MATERIAL_EXPIRED])],
    )
    def test_not_after(self, late: timedelta, codes: list[Code]) -> None:
        leaf = issue("a", CA.lower, life=(NOW - DAY, NOW))
        found = gate(good(files(leaf, CA.lower, CA.upper)), path_of(leaf), [], NOW + late)
        assert reasons(found) == codes

    def test_an_expired_leaf_is_told_once_though_openssl_found_no_path(self) -> None:
        leaf = issue("a", CA.lower, life=(NOW - DAY, NOW))
        path = TrustPath((), "certificate has expired")
        found = only(gate(good(files(leaf, CA.lower, CA.upper)), path, [], NOW + DAY))
        assert found.code is Code.MATERIAL_EXPIRED
        assert "2026-03-01T12:00:00Z" in found.message

    def test_issuer_missing_names_it_and_where_it_is(self) -> None:
        source = replace(CA.source, chain=b"", fullchain=b"")
        path = TrustPath((), "unable to get local issuer certificate")
        found = only(gate(good(source), path, [], NOW))
        assert found.code is Code.MATERIAL_CHAIN_INCOMPLETE
        assert "CN=Lower" in found.message
        assert AIA_URL in found.message

    def test_leaf_of_the_anchor_itself_needs_no_chain(self) -> None:
        leaf = issue("a", CA.root)
        material = good(files(leaf))
        path = TrustPath((leaf.certificate, CA.root.certificate))
        assert gate(material, path, [], NOW) == ()
        assert reasons(gate(material, TrustPath((), "x"), [], NOW)) == [Code.MATERIAL_CHAIN_INCOMPLETE]

    def test_self_signed_leaf_is_fit_only_as_an_anchor(self) -> None:
        leaf = issue("self")
        material = good(files(leaf))
        assert gate(material, TrustPath((leaf.certificate,)), [], NOW) == ()
        found = only(gate(material, TrustPath((), "self-signed certificate"), [], NOW))
        assert found.code is Code.MATERIAL_CHAIN_INCOMPLETE
        assert found.message == "CN=self is self-signed and no anchor of the configured store"

    def test_expired_intermediate_is_critical_unless_the_path_does_without(self) -> None:
        old = issue("Upper", CA.root, key=CA.upper.key, life=(NOW - 9 * DAY, NOW - DAY))
        material = good(files(CA.leaf, CA.lower, old))
        found = only(gate(material, TrustPath((), "certificate has expired"), [], NOW))
        assert found.code is Code.MATERIAL_EXPIRED
        assert found.critical
        assert "CN=Upper in /etc/le/chain.pem" in found.message
        assert [finding.severity for finding in gate(material, CA.path, [], NOW)] == [Severity.WARNING]

    def test_issuer_by_name_only_did_not_sign(self) -> None:
        impostor = issue("Lower", CA.upper)
        material = with_chain(good(CA.source), [impostor.certificate, CA.upper.certificate])
        found = only(gate(material, TrustPath((), "certificate signature failure"), [], NOW))
        assert found.code is Code.MATERIAL_CHAIN_INCOMPLETE
        assert "another key" in found.message

    def test_completed_chain_in_the_wrong_order(self) -> None:
        material = with_chain(good(CA.source), [CA.upper.certificate, CA.lower.certificate])
        found = only(gate(material, CA.path, [], NOW))
        assert found.code is Code.MATERIAL_CHAIN_ORDER
        assert "followed by CN=Upper" in found.message

    def test_a_stray_beside_a_leaf_of_the_anchor(self) -> None:
        leaf = issue("a", CA.root)
        material = with_chain(good(files(leaf)), [CA.lower.certificate])
        path = TrustPath((leaf.certificate, CA.root.certificate))
        assert reasons(gate(material, path, [], NOW)) == [Code.MATERIAL_CHAIN_ORDER]

    def test_top_of_the_chain_not_in_the_store(self) -> None:
        path = TrustPath((), "unable to get issuer certificate")
        found = only(gate(good(CA.source), path, [], NOW))
        assert found.code is Code.MATERIAL_CHAIN_INCOMPLETE
        assert "CN=Root, which issued CN=Upper" in found.message
        assert found.evidence["openssl"] == "unable to get issuer certificate"

    def test_no_anchor_for_another_reason(self) -> None:
        found = only(gate(good(CA.source), TrustPath((), "invalid CA\ncertificate"), [], NOW))
        assert found.code is Code.MATERIAL_CHAIN_INCOMPLETE
        assert "no anchor of the configured store: invalid CA\\x0acertificate" in found.message

    def test_names(self) -> None:
        names = ["www.example.org", "mail.example.org", "198.51.100.7"]
        found = only(gate(good(CA.source), CA.path, names, NOW))
        assert found.code is Code.MATERIAL_NAME_MISMATCH
        assert found.evidence["wanted"] == ["mail.example.org", "198.51.100.7"]
        assert found.evidence["has"] == ["www.example.org", "example.org"]

    def test_must_staple_without_a_responder_can_never_be_met(self) -> None:
        bare = issue("a", CA.lower, extensions=[MUST_STAPLE])
        fine = issue("a", CA.lower, extensions=[MUST_STAPLE, access(ocsp=OCSP_URL)])
        found = only(gate(good(files(bare, CA.lower, CA.upper)), path_of(bare), [], NOW))
        assert found.code is Code.STAPLE_MUST_STAPLE_UNMET
        assert found.critical
        assert gate(good(files(fine, CA.lower, CA.upper)), path_of(fine), [], NOW) == ()

    def test_order_of_the_findings(self) -> None:
        leaf = issue("a", CA.lower, life=(NOW - DAY, NOW), extensions=[MUST_STAPLE])
        path = TrustPath((), "certificate has expired")
        found = gate(good(files(leaf)), path, ["a.example"], NOW + DAY)
        assert reasons(found) == [
            Code.MATERIAL_EXPIRED,
            Code.MATERIAL_CHAIN_INCOMPLETE,
            Code.MATERIAL_NAME_MISMATCH,
            Code.STAPLE_MUST_STAPLE_UNMET,
        ]

    def test_undecodable_extensions_warn(self) -> None:
        twisted = twist(issue("a", CA.lower, names=["a.example"]).certificate, CA.lower)
        leaf = Pair(TWIST_KEY, twisted)
        found = only(gate(good(files(leaf, CA.lower, CA.upper)), path_of(leaf), [], NOW))
        assert (found.code, found.severity) == (Code.MATERIAL_UNREADABLE, Severity.WARNING)
        assert criticals([found]) == ()


class TestCompletion:
    def test_where_aia_must_start(self) -> None:
        whole = good(CA.source)
        assert missing_issuer(whole) == CA.upper.certificate
        assert missing_issuer(with_chain(whole, [CA.lower.certificate])) == CA.lower.certificate
        assert missing_issuer(with_chain(whole, [])) == CA.leaf.certificate
        assert missing_issuer(with_chain(whole, [CA.upper.certificate])) == CA.leaf.certificate
        assert missing_issuer(good(files(issue("self")))) is None

    def test_completed_chain_passes_the_gate(self) -> None:
        bare = good(replace(CA.source, chain=b"", fullchain=b""))
        chain = [CA.lower.certificate, CA.upper.certificate, CA.root.certificate]
        whole = with_chain(bare, chain)
        assert whole.chain == tuple(chain[:2])
        assert gate(whole, CA.path, [], NOW) == ()
        assert gate(bare, CA.path, [], NOW) != ()


class TestAssemble:
    def test_every_file(self) -> None:
        made = assemble(good(CA.source), CA.root.certificate)
        leaf, lower, upper, root = CA.leaf.pem, CA.lower.pem, CA.upper.pem, CA.root.pem
        assert made == {
            "privkey.pem": KEY,
            "cert.pem": leaf,
            "chain.pem": lower + upper,
            "fullchain.pem": leaf + lower + upper,
            "issuer.pem": lower,
            "trusted.pem": lower + upper + root,
            "bundle.pem": KEY + leaf + lower + upper,
        }

    def test_it_reads_what_it_wrote(self) -> None:
        first = good(CA.source)
        made = assemble(first, CA.root.certificate, ".rsa")
        key, leaf, chain, fullchain = (made[f"{kind}.rsa.pem"] for kind in PATHS)
        again = good(SourceFiles(key, leaf, chain, fullchain, PATHS))
        assert again == first
        bundle = made["bundle.rsa.pem"]
        assert good(SourceFiles(bundle, bundle)).chain == first.chain

    def test_an_anchor_that_issued_the_leaf_is_the_issuer(self) -> None:
        leaf = issue("a", CA.root)
        made = assemble(good(files(leaf, CA.root)), CA.root.certificate)
        assert (made["issuer.pem"], made["chain.pem"], made["trusted.pem"]) == (CA.root.pem, b"", CA.root.pem)

    def test_without_an_anchor(self) -> None:
        made = assemble(good(replace(CA.source, chain=b"", fullchain=b"")), None)
        assert made["issuer.pem"] == made["trusted.pem"] == b""

    def test_an_intermediate_as_anchor_stands_once(self) -> None:
        made = assemble(good(CA.source), CA.upper.certificate)
        assert made["trusted.pem"] == CA.lower.pem + CA.upper.pem

    def test_an_end_of_line_always_parts_key_and_certificate(self) -> None:
        source = replace(CA.source, privkey=KEY.rstrip())
        assert assemble(good(source), None)["bundle.pem"].startswith(KEY + CA.leaf.pem)
