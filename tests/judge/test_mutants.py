"""The seeded mistakes still fit the judge; that each is caught is shown by `make mutants`."""

from __future__ import annotations

import pytest
from mutants import MISTAKES, REPOSITORY, Mistake, mistaken

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_can_still_be_made(mistake: Mistake) -> None:
    package = REPOSITORY / "hook" / "stapleguard"
    assert mistaken(mistake, package) != (package / "ocsp" / mistake.file).read_text()


def test_each_has_a_name_of_its_own() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 25
