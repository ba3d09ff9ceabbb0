"""A few answers beside OpenSSL in each run of the tests; `make differential` judges twenty thousand."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from differential import RULES, Bent, Careful, OpenSsl, compare
from lab.tools import require
from pki import KeyKind
from stapleguard.ocsp import Acceptance, judge
from twins import Setting

pytestmark = pytest.mark.unit


def test_nothing_is_accepted_that_openssl_refuses(tmp_path: Path) -> None:
    require("openssl")
    seed = secrets.randbits(32)
    tally = compare(Random(seed), 250, tmp_path, datetime.now(UTC), (KeyKind.P256,))
    told = [(bent.der.hex(), said.output, judgement) for bent, judgement, said in tally.wrong]
    assert told == [], f"seed {seed}"
    # Nought would prove nothing if all were refused.
    assert tally.by_verdict["accepted", "accepted"] > 25
    assert tally.by_verdict["rejected", "rejected"] > 25


def test_the_wrapper_refuses_what_openssl_ends_well_with(tmp_path: Path) -> None:
    require("openssl")
    now = datetime.now(UTC)
    setting = Setting.of(KeyKind.P256, now, delegated=True, by_key=False, delegate=KeyKind.P256)
    openssl = OpenSsl(tmp_path)
    for answer, expected in (
        (setting.base, Careful.ACCEPTED),
        (setting.hashed("2.16.840.1.101.3.4.2.1"), Careful.ACCEPTED),
        (setting.entry(status=b"\x82\x00"), Careful.REJECTED),
        (setting.entry(next_update=setting.then), Careful.REJECTED),
        (setting.but(damage=lambda signature: signature[:-1]), Careful.REJECTED),
    ):
        bent = Bent("by hand", answer.der(), setting.pki)
        assert openssl.judge(bent).verdict is expected
        ours = judge(bent.der, bent.of.leaf.certificate, bent.of.issuer.certificate, now, RULES)
        assert (ours.acceptance is Acceptance.ACCEPTED) == (expected is Careful.ACCEPTED)
