"""What a judgement costs: usual answers, warm and cold, and the worst that fits into 64 KiB.

`make bench-judge`. Times are of this process's CPU; the usual ones are medians.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median

import cryptography
from pki import Answer, KeyKind, Pki, make_pki
from stapleguard.ocsp import Acceptance, judge
from twins import Setting
from worst import WORST

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
ROUNDS, FRESH = 2000, 200
ALLOWED_USUAL, ALLOWED_WORST = 0.4e-3, 1.0


def cost(der: bytes, of: Pki, now: datetime) -> tuple[float, Acceptance]:
    """Judge once; give the seconds of CPU."""
    started = time.process_time_ns()
    judgement = judge(der, of.leaf.certificate, of.issuer.certificate, now)
    return (time.process_time_ns() - started) / 1e9, judgement.acceptance


def warm(make: Callable[[Pki, datetime], Answer], kind: KeyKind) -> float:
    """Judge one answer again and again, as a poll does."""
    of = make_pki(kind, NOW)
    der = make(of, NOW).der()
    return median(cost(der, of, NOW)[0] for _ in range(ROUNDS))


def cold(make: Callable[[Pki, datetime], Answer], kind: KeyKind) -> float:
    """Judge answers of ever new authorities, of which nothing is remembered."""
    times = [
        NOW + timedelta(seconds=number) for number in range(FRESH if kind is not KeyKind.RSA2048 else 10)
    ]
    answers = [(make(make_pki(kind, now), now).der(), make_pki(kind, now), now) for now in times]
    return median(cost(*one)[0] for one in answers)


def main() -> int:
    """Print the figures; 1 when one is above what is promised."""
    print(
        f"Python {platform.python_version()}, cryptography {cryptography.__version__}, {platform.machine()}"
    )
    print("milliseconds of CPU      again   first time")
    over = []
    for kind in (KeyKind.P256, KeyKind.RSA2048, KeyKind.P384, KeyKind.ED25519):
        for name, make in (("direct", Answer.good), ("delegated", Answer.delegated)):
            again, first = warm(make, kind), cold(make, kind)
            print(f"{kind.value + ' ' + name:<22}{again * 1e3:>8.3f}{first * 1e3:>13.3f}", flush=True)
            over += [name] if kind is KeyKind.P256 and again > ALLOWED_USUAL else []
    setting = Setting.of(KeyKind.P256, NOW, delegated=False, by_key=False, delegate=KeyKind.P256)
    print("the worst that fits        bytes  milliseconds")
    for name, build in WORST.items():
        der = build(setting)
        seconds, acceptance = cost(der, setting.pki, NOW)
        print(f"{name:<52}{len(der):>6}{seconds * 1e3:>9.1f}  {acceptance.value}", flush=True)
        over += [name] if seconds > ALLOWED_WORST else []
    print(f"above what is promised: {', '.join(over) or 'nothing'}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
