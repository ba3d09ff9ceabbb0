"""The judge beside a careful use of `openssl ocsp`, on answers bent in every way and often signed anew.

OpenSSL is no oracle for what is wrong: it passes over much. But what it refuses, we must not accept.
`make differential` runs 20,000 and lists, by our reason, what it accepts and we do not.
"""

from __future__ import annotations

import argparse
import re
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pki import Answer, KeyKind, Pki, usual
from stapleguard.ocsp import Acceptance, Judgement, Rules, judge
from tree import bend, read, sign_anew
from twins import Setting, Variant
from vectors import MUTATIONS

WEEK: Final = 604800
# The wrapper grants 5 minutes of skew and a week of age, whatever nextUpdate says; so do we here.
RULES: Final = Rules(max_age=WEEK)
KINDS: Final = (KeyKind.P256, KeyKind.P384, KeyKind.RSA2048, KeyKind.ED25519)
# A mutation is not for the key, certificate or signature that an earlier one put there.
_UNFIT: Final = (AssertionError, AttributeError, TypeError, ValueError, ZeroDivisionError)
_OPTIONS: Final = (
    *("-partial_chain", "-no-CApath", "-no-CAstore", "-no_nonce"),
    *("-validity_period", "300", "-status_age", str(WEEK)),
)


class Careful(Enum):
    """What the wrapper makes of the output."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Said:
    """What OpenSSL said."""

    verdict: Careful
    output: str


@dataclass(frozen=True, slots=True)
class Bent:
    """A response and the certificates that it is judged by."""

    how: str
    der: bytes
    of: Pki


class OpenSsl:
    """The careful wrapper: the exit status alone is no verdict."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[x509.Certificate, Path] = {}

    def judge(self, bent: Bent) -> Said:
        """Ask OpenSSL about one response, with the first hash of a CertID that finds an entry."""
        said = Said(Careful.REJECTED, "")
        for digest in ("-sha1", "-sha256", "-sha384", "-sha512"):
            said = self._ask(bent, digest)
            if "No Status found" not in said.output:
                return said
        return said

    def _ask(self, bent: Bent, digest: str) -> Said:
        leaf, issuer = self._pem(bent.of.leaf.certificate), self._pem(bent.of.issuer.certificate)
        response = self._directory / "response.der"
        response.write_bytes(bent.der)
        argv = ["openssl", "ocsp", "-respin", str(response), "-issuer", issuer, digest, "-cert", leaf]
        given = bent.of.issuer.certificate
        in_date = given.not_valid_before_utc <= datetime.now(UTC) <= given.not_valid_after_utc
        # The issuer is trusted as it stands; OpenSSL looks at its dates as well (from 3.0.22 on).
        dates = [] if in_date else ["-no_check_time"]
        done = subprocess.run(
            [*argv, "-CAfile", issuer, "-verify_other", issuer, *_OPTIONS, *dates],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=30,
        )
        output = done.stdout + done.stderr
        accepted = (
            done.returncode == 0
            and "Response verify OK" in output
            and f"{leaf}: good" in output.splitlines()
            and "Status times invalid" not in output
        )
        return Said(Careful.ACCEPTED if accepted else Careful.REJECTED, output)

    def _pem(self, certificate: x509.Certificate) -> str:
        if certificate not in self._files:
            path = self._directory / f"{len(self._files)}.pem"
            path.write_bytes(certificate.public_bytes(Encoding.PEM))
            self._files[certificate] = path
        return str(self._files[certificate])


def bent_answers(random: Random, now: datetime, kinds: tuple[KeyKind, ...] = KINDS) -> Iterator[Bent]:
    """Make responses without end."""
    settings = [
        Setting.of(kind, now, delegated=delegated, by_key=by_key, delegate=kind)
        for kind in kinds
        for delegated in (False, True)
        for by_key in (False, True)
    ]
    while True:
        setting = random.choice(settings)
        variant = _semantic(random, setting, random.choice([0, 0, 1, 1, 1, 2, 3]))
        of = variant.of or setting.pki
        answer = variant.answer
        der = answer if isinstance(answer, bytes) else answer.der()
        match random.randrange(10):
            case 0 | 1 | 2 | 3:
                yield Bent("semantic", der, of)
            case 4:
                yield Bent("octets", _octets(random, der), of)
            case _:
                signer = setting.base if isinstance(answer, bytes) else answer
                yield _elements(random, Bent("elements", der, of), signer)


def _semantic(random: Random, setting: Setting, times: int) -> Variant:
    """Apply mutations, or their twins, one to what the other made."""
    variant = Variant(setting.base)
    for _ in range(times):
        mutation = MUTATIONS[random.choice(list(MUTATIONS))]
        if not mutation.means(setting, setting.pki.kind) or isinstance(variant.answer, bytes):
            continue
        make = mutation.broken if random.random() < 0.6 else mutation.twin
        try:
            made = make(replace(setting, base=variant.answer))
            made = made if isinstance(made, Variant) else replace(variant, answer=made)
            if isinstance(made.answer, Answer):
                made.answer.der()
        except _UNFIT:
            continue
        variant = made
    return variant


def _octets(random: Random, der: bytes) -> bytes:
    changed = bytearray(der)
    for _ in range(random.choice([1, 1, 2, 4])):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _elements(random: Random, bent: Bent, signer: Answer) -> Bent:
    root = read(bent.der)
    if root is None:
        return bent
    bend(random, root, random.choice([1, 1, 1, 2, 3]))
    if random.random() < 0.15:
        return replace(bent, der=root.der())
    issuer = bent.of.issuer if random.random() < 0.6 else None
    algorithm = signer.algorithm
    try:
        return Bent("elements, signed", sign_anew(root, signer.key, algorithm, issuer), bent.of)
    except _UNFIT:
        return Bent("elements, signed", sign_anew(root, signer.key, usual(signer.key), issuer), bent.of)


@dataclass(slots=True)
class Tally:
    """What came of a run."""

    by_verdict: Counter[tuple[str, str]]
    by_kind: Counter[str]
    lenient: Counter[str]
    told: int
    wrong: list[tuple[Bent, Judgement, Said]]


class Ask(Enum):
    """Which responses OpenSSL is asked about."""

    ALL = "all"
    ACCEPTED = "accepted"


def compare(
    random: Random,
    count: int,
    directory: Path,
    now: datetime,
    kinds: tuple[KeyKind, ...] = KINDS,
    ask: Ask = Ask.ALL,
) -> Tally:
    """Judge `count` responses by both."""
    tally = Tally(Counter(), Counter(), Counter(), 0, [])
    openssl = OpenSsl(directory)
    for _, bent in zip(range(count), bent_answers(random, now, kinds), strict=False):
        leaf, issuer = bent.of.leaf.certificate, bent.of.issuer.certificate
        ours = judge(bent.der, leaf, issuer, datetime.now(UTC), RULES)
        tally.by_kind[bent.how] += 1
        if ask is Ask.ACCEPTED and ours.acceptance is Acceptance.REJECTED:
            tally.by_verdict["rejected", "not asked"] += 1
            continue
        theirs = openssl.judge(bent)
        tally.by_verdict[ours.acceptance.value, theirs.verdict.value] += 1
        if (ours.acceptance, theirs.verdict) == (Acceptance.ACCEPTED, Careful.REJECTED):
            if any("OpenSSL" in str(found.evidence.get("breaks_clients")) for found in ours.findings):
                tally.told += 1  # RFC 6960 allows it, and the judge says who refuses it
            else:
                tally.wrong.append((bent, ours, theirs))
        if (ours.acceptance, theirs.verdict) == (Acceptance.REJECTED, Careful.ACCEPTED):
            tally.lenient[_reason(ours)] += 1
    return tally


def _reason(judgement: Judgement) -> str:
    """Name the first reason of a rejection, without what differs from one answer to the next."""
    first = next(found for found in judgement.findings if found.critical)
    kind = re.search(r"kind: (\w+)", first.message)
    if kind:
        return f"{first.code.value}: not strict DER, {kind[1]}"
    words = first.message.removeprefix("the response is not a strict DER OCSP response: ").split()
    kept = [word for word in words if word.isascii() and not re.search(r"\d|=", word)]
    return f"{first.code.value}: {' '.join(kept)}"


def main() -> int:
    """Run, print the figures, keep what is wrong."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=secrets.randbits(32))
    arguments.add_argument("--keep", type=Path, help="a directory for what we accept and OpenSSL refuses")
    arguments.add_argument(
        "--accepted-only", action="store_true", help="ask OpenSSL only about what we accept (faster)"
    )
    given = arguments.parse_args()
    ask = Ask.ACCEPTED if given.accepted_only else Ask.ALL
    version = subprocess.run(
        ["openssl", "version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    print(f"{given.count} responses beside {version}, seed {given.seed} (keys are fresh in each run)")
    started = monotonic()
    with tempfile.TemporaryDirectory(prefix="stapleguard-differential-") as directory:
        tally = compare(Random(given.seed), given.count, Path(directory), datetime.now(UTC), ask=ask)
    for (ours, theirs), number in sorted(tally.by_verdict.items()):
        print(f"{number:>7}  {ours} by the judge, {theirs} by OpenSSL")
    print("made by: " + ", ".join(f"{how} {number}" for how, number in tally.by_kind.most_common()))
    print("what OpenSSL accepts and we refuse, by our first reason:")
    for reason, number in tally.lenient.most_common():
        print(f"{number:>7}  {reason}")
    for number, (bent, _, said) in enumerate(tally.wrong):
        print(f"WRONG {number}: {bent.how}: {said.output}", file=sys.stderr)
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            (given.keep / f"{number}.der").write_bytes(bent.der)
            for name, signer in (("leaf", bent.of.leaf), ("issuer", bent.of.issuer)):
                pem = signer.certificate.public_bytes(Encoding.PEM)
                (given.keep / f"{number}.{name}.pem").write_bytes(pem)
    print(f"accepted by us with the warning that OpenSSL refuses it (ocsp.ambiguous): {tally.told}")
    print(f"accepted by us without one and refused by OpenSSL: {len(tally.wrong)}")
    print(f"took {monotonic() - started:.0f} s")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
