"""Fuzz the judge with atheris: coverage of our code, mutations of the ASN.1 tree, often signed anew.

Whatever the bytes: no exception, a judgement that says why, no more than a second; and what is accepted
is checked again in another way. `make fuzz ARGS="-max_total_time=600"`; the arguments are libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["stapleguard.ocsp"]):
    from stapleguard.ocsp import Acceptance, Rules, judge

from pki import KeyKind, usual
from recheck import recheck
from stapleguard.model import CertStatus
from tree import bend, read, sign_anew
from twins import Setting, Variant
from vectors import MUTATIONS, NOW

SETTINGS = [
    Setting.of(KeyKind.P256, NOW, delegated=delegated, by_key=by_key, delegate=KeyKind.P256)
    for delegated in (False, True)
    for by_key in (False, True)
]
PKI = SETTINGS[0].pki
LEAF, ISSUER = PKI.leaf.certificate, PKI.issuer.certificate
KEYS = (PKI.issuer.key, PKI.delegate.key, PKI.leaf.key)
CPU_SECONDS = 1.0


class Counts:
    """What came of it; printed now and then, so that a fuzzer that accepts nothing is noticed."""

    accepted = 0
    rejected = 0


def one_input(data: bytes) -> None:
    """Judge one input and check what must hold for any."""
    started = time.process_time()
    judgement = judge(data, LEAF, ISSUER, NOW, Rules())
    assert time.process_time() - started < CPU_SECONDS, "more than a second"
    if (Counts.accepted + Counts.rejected) % 10_000 == 9_999:
        print(f"accepted {Counts.accepted}, rejected {Counts.rejected}", flush=True)
    critical = [found for found in judgement.findings if found.critical]
    assert all(found.message.isprintable() for found in judgement.findings)
    assert judgement.half_life is None or judgement.this_update is not None
    if judgement.acceptance is Acceptance.REJECTED:
        Counts.rejected += 1
        assert critical, "rejected without a reason"
        return
    Counts.accepted += 1
    assert judgement.status is CertStatus.GOOD
    assert not critical
    broken = list(recheck(data, LEAF, ISSUER, NOW))
    assert not broken, broken


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Bend the tree and mostly sign it anew; sometimes leave it to libFuzzer."""
    random = Random(seed)
    root = read(data) if random.random() < 0.8 else None
    if root is None:
        mutated: bytes = atheris.Mutate(data, max_size)
        return mutated
    bend(random, root, random.choice([1, 1, 2, 3]))
    key = random.choice(KEYS)
    issuer = PKI.issuer if random.random() < 0.5 else None
    made = sign_anew(root, key, usual(key), issuer) if random.random() < 0.85 else root.der()
    return made if len(made) <= max_size else data[:max_size]


def seeds(directory: Path) -> None:
    """Write every mutation and its twin to start from."""
    for number, setting in enumerate(SETTINGS):
        for name, mutation in MUTATIONS.items():
            if not mutation.means(setting, KeyKind.P256):
                continue
            for kind, make in (("broken", mutation.broken), ("twin", mutation.twin)):
                made = make(setting)
                answer = made.answer if isinstance(made, Variant) else made
                der = answer if isinstance(answer, bytes) else answer.der()
                if len(der) < 8192:
                    file = f"{number}-{name}-{kind}".replace("/", "-").replace(" ", "_")
                    (directory / file).write_bytes(der)


def main() -> None:
    """Start from the factory's answers; end after ten minutes unless told otherwise."""
    warnings.simplefilter("ignore")
    given = sys.argv[1:] or ["-max_total_time=600"]
    with tempfile.TemporaryDirectory(prefix="stapleguard-fuzz-") as directory:
        seeds(Path(directory))
        options = ["-max_len=8192", "-print_final_stats=1", f"-artifact_prefix={tempfile.gettempdir()}/"]
        atheris.Setup([sys.argv[0], *options, *given, directory], one_input, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
