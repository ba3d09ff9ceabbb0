"""Nodes behind one name: the odd one is named, ordinary differences are not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from stapleguard.diagnosis import Need, Served, Sighting, Strand, differences
from stapleguard.finding import Code, Finding
from stapleguard.model import Ask, Endpoint, HandshakeFault, KeyType, Observation, Severity
from stapleguard.ocsp import Judgement
from test_diagnosis import BAD, GOOD, LEAF, NOW

pytestmark = pytest.mark.unit

OLD = replace(LEAF, sha256="0ld" * 8, not_before=LEAF.not_before - timedelta(days=60))


def node(
    number: int,
    leaf: object = LEAF,
    *,
    chain: bytes = b"issuer",
    staple: Judgement | None = GOOD,
    protocol: str = "TLSv1.3",
    need: Need = Need.STAPLE,
    port: int = 443,
) -> Strand:
    where = Endpoint("a.test", port, "a.test", f"192.0.2.{number}")
    der = None if staple is None else b"DER%d" % number
    seen = Observation(Ask(where), NOW, 0.1, protocol, (b"leaf", chain), der)
    sighting = Sighting(seen, Served.EXPECTED, leaf, staple)  # type: ignore[arg-type]  # always LeafFacts
    return Strand(where, KeyType.RSA, need, False, (sighting,))


def odd(*strands: Strand) -> list[tuple[str, object, Severity]]:
    found = differences(strands)
    assert {one.code for one in found} <= {Code.SERVED_NODE_DIFFERS}
    return [(address(one), one.evidence["differs"], one.severity) for one in found]


def address(found: Finding) -> str:
    return found.subject.rpartition(" at ")[2].partition(":")[0]


def test_nodes_that_agree_are_no_news() -> None:
    # Each asks the responder for itself, so the bytes of the staples differ.
    assert odd(node(1), node(2), node(3)) == []
    assert odd(node(1)) == []
    assert odd() == []


def test_the_one_with_another_certificate_is_named() -> None:
    other = node(2, OLD, chain=b"other issuer", staple=None)
    named = odd(node(1), other, node(3))
    assert named == [("192.0.2.2", ["leaf", "chain", "staple"], Severity.CRITICAL)]
    (found,) = differences([node(1), other, node(3)])
    assert "another certificate (0ld0ld0ld0ld instead of aa)" in found.message
    assert "chain" not in found.message  # for it has another one only because of the certificate


def test_of_two_the_one_with_the_older_certificate_is_odd() -> None:
    assert [who for who, *_ in odd(node(1, OLD), node(2))] == ["192.0.2.1"]
    assert [who for who, *_ in odd(node(1), node(2, OLD))] == ["192.0.2.2"]


def test_most_nodes_decide_even_against_the_later_certificate() -> None:
    assert [who for who, *_ in odd(node(1, OLD), node(2, OLD), node(3))] == ["192.0.2.3"]


@pytest.mark.parametrize(
    ("strand", "facet", "severity"),
    [
        (node(3, chain=b""), "chain", Severity.CRITICAL),
        (node(3, staple=None), "staple", Severity.WARNING),
        (node(3, staple=BAD), "staple", Severity.WARNING),
        (node(3, protocol="TLSv1.2"), "protocol", Severity.WARNING),
    ],
)
def test_each_difference_is_told(strand: Strand, facet: str, severity: Severity) -> None:
    assert odd(node(1), node(2), strand) == [("192.0.2.3", [facet], severity)]


def test_a_staple_is_stale_beside_one_more_than_half_its_life_younger() -> None:
    life = timedelta(days=3)

    def aged(days: float) -> Judgement:
        this = NOW - timedelta(days=days)
        return replace(GOOD, this_update=this, next_update=this + life)

    assert odd(node(1, staple=aged(0)), node(2, staple=aged(1.4)), node(3, staple=aged(0.1))) == []
    named = odd(node(1, staple=aged(0)), node(2, staple=aged(1.6)), node(3, staple=aged(0.1)))
    assert named == [("192.0.2.2", ["age"], Severity.WARNING)]


def test_what_was_not_seen_is_another_findings_matter() -> None:
    where = node(2).endpoint
    fault = Sighting(Observation(Ask(where), NOW, 0.1, fault=HandshakeFault.REFUSED), Served.NOTHING)
    assert odd(node(1), replace(node(2), sightings=(fault,)), node(3)) == []
    assert odd(node(1), replace(node(2), sightings=()), node(3)) == []


def test_other_names_ports_and_key_types_are_other_clusters() -> None:
    other_name = replace(node(2, OLD), endpoint=Endpoint("b.test", 443, "b.test", "192.0.2.2"))
    assert odd(node(1), other_name) == []
    assert odd(node(1), node(2, OLD, port=8443)) == []
    assert odd(node(1), replace(node(2, OLD), key_type=KeyType.ECDSA)) == []


def test_without_a_responder_no_staple_is_missed() -> None:
    bare = [node(number, staple=None, need=Need.NOT_APPLICABLE) for number in (1, 2)]
    assert odd(*bare) == []
