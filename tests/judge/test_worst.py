"""No response of up to 64 KiB takes more than a second; see `make bench-judge` for the figures."""

from __future__ import annotations

import time

import pytest
from ocsp_answers import NOW, judged
from pki import KeyKind
from stapleguard.ocsp import MAX_RESPONSE
from twins import Setting
from worst import WORST

pytestmark = pytest.mark.unit

SETTING = Setting.of(KeyKind.P256, NOW, delegated=False, by_key=False, delegate=KeyKind.P256)


@pytest.mark.parametrize("name", WORST)
def test_the_worst_that_fits_is_judged_within_a_second(name: str) -> None:
    der = WORST[name](SETTING)
    assert MAX_RESPONSE - 16000 < len(der) <= MAX_RESPONSE
    started = time.process_time()
    judgement = judged(der, of=SETTING.pki)
    assert time.process_time() - started < 1.0
    assert len(judgement.findings) <= 40
