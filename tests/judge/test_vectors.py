"""Every broken rule beside its twin that keeps it, with fresh keys; P-256 here, all with `make vectors`."""

from __future__ import annotations

import pytest
from pki import KeyKind
from vectors import MUTATIONS, Vector, vectors, wrong_acceptance, wrong_rejection

pytestmark = pytest.mark.unit

P256 = ((KeyKind.P256, KeyKind.P256),)
RSA = ((KeyKind.RSA2048, KeyKind.RSA2048),)
# Of RSA only what P-256 cannot show.
SAMPLE = [
    *vectors(P256, (True,)),
    *(vector for vector in vectors(RSA, (False,)) if len(vector.mutation.kinds) == 1),
]


@pytest.mark.parametrize("vector", SAMPLE, ids=str)
def test_a_broken_rule_is_named_and_refused(vector: Vector) -> None:
    assert wrong_acceptance(vector) is None


@pytest.mark.parametrize("vector", SAMPLE, ids=str)
def test_its_twin_that_keeps_the_rule_is_accepted(vector: Vector) -> None:
    assert wrong_rejection(vector) is None


def test_the_sample_has_every_mutation() -> None:
    assert {vector.name for vector in SAMPLE} == set(MUTATIONS)
    assert len(MUTATIONS) >= 60
