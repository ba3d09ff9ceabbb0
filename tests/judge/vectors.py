"""The vector factory: every mutation and its twin in every setting, with fresh keys, judged and counted.

`make vectors` runs all of it and prints the figures; the tests run a part.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Final

from mutations_certid import CERT_ID, STATUS
from mutations_form import FORM
from mutations_signer import AUTHORITY, RESPONDER, SIGNATURE
from mutations_times import TIMES
from pki import KeyKind
from stapleguard.finding import Code
from stapleguard.model import CertStatus
from stapleguard.ocsp import Acceptance
from twins import Mutation, Setting, Table, judged

NOW: Final = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
MUTATIONS: Final[Table] = {**FORM, **CERT_ID, **STATUS, **SIGNATURE, **RESPONDER, **AUTHORITY, **TIMES}
KINDS: Final = (KeyKind.RSA2048, KeyKind.P256, KeyKind.P384, KeyKind.ED25519)
# The keys of the issuer and of the delegate; the last are of two kinds, as real authorities have them.
PAIRS: Final = (
    *((kind, kind) for kind in KINDS),
    (KeyKind.RSA2048, KeyKind.P256),
    (KeyKind.P384, KeyKind.RSA2048),
)


@dataclass(frozen=True, slots=True)
class Vector:
    """A mutation in a setting; `signer` is the kind of the signing key."""

    name: str
    mutation: Mutation
    setting: Setting
    signer: KeyKind

    def __str__(self) -> str:
        """Name it so that it can be run again."""
        how = "delegated" if self.setting.delegated else "direct"
        by = "byKey" if self.setting.base.responder.startswith(b"\xa2") else "byName"
        return f"{self.name} [{self.setting.pki.kind.value} {how} {by} {self.signer.value}]"


def vectors(
    pairs: tuple[tuple[KeyKind, KeyKind], ...] = PAIRS, by_key: tuple[bool, ...] = (True, False)
) -> Iterator[Vector]:
    """Make every pair that means something in every setting."""
    for (kind, other), delegated, key in product(pairs, (False, True), by_key):
        if kind is not other and not delegated:
            continue
        setting = Setting.of(kind, NOW, delegated=delegated, by_key=key, delegate=other)
        signer = other if delegated else kind
        for name, mutation in MUTATIONS.items():
            if mutation.means(setting, signer) and not (_needs_rsa_issuer(mutation) and kind is not signer):
                yield Vector(name, mutation, setting, signer)


def _needs_rsa_issuer(mutation: Mutation) -> bool:
    """Tell whether the issuer must have a key of the same kind (it signs the delegate's certificate so)."""
    return len(mutation.kinds) < len(KeyKind)


def wrong_rejection(vector: Vector) -> str | None:
    """Judge the twin; say what is wrong when it is not accepted."""
    judgement = judged(vector.mutation.twin(vector.setting), vector.setting)
    if (judgement.acceptance, judgement.status) == (Acceptance.ACCEPTED, CertStatus.GOOD):
        return None
    return f"{vector}: the twin was rejected: {[str(found.code) for found in judgement.findings]}"


def wrong_acceptance(vector: Vector) -> str | None:
    """Judge the broken one; say what is wrong when it is accepted, or rejected for another reason."""
    judgement = judged(vector.mutation.broken(vector.setting), vector.setting)
    codes = {found.code for found in judgement.findings if found.critical}
    if judgement.acceptance is Acceptance.ACCEPTED:
        return f"{vector}: WRONGLY ACCEPTED"
    if codes - _COMPANIONS.get(vector.mutation.code, frozenset()) != {vector.mutation.code}:
        return f"{vector}: rejected with {sorted(codes)}, not with {vector.mutation.code}"
    if judgement.status is not vector.mutation.status:
        return f"{vector}: status {judgement.status}, not {vector.mutation.status}"
    return None


# What may stand beside the code: a bad signature under the name of a certificate that may not sign either.
_COMPANIONS: Final = {
    Code.OCSP_MALFORMED: frozenset({Code.OCSP_EXPIRED}),  # nextUpdate before thisUpdate is also over
}


def main() -> int:
    """Run all, print the figures, and fail on one wrong verdict."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for vector in vectors():
        for kind, verdict in (
            ("rejecting", wrong_acceptance(vector)),
            ("accepting", wrong_rejection(vector)),
        ):
            counts[kind] += 1
            counts[vector.signer.value] += 1
            counts["delegated" if vector.setting.delegated else "direct"] += 1
            wrong += [verdict] if verdict else []
    print("\n".join(wrong), end="\n" if wrong else "")
    total = counts["rejecting"] + counts["accepting"]
    print(
        f"{len(MUTATIONS)} mutations, {total} vectors: " + ", ".join(f"{n} {of}" for of, n in counts.items())
    )
    accepted = sum("ACCEPTED" in one for one in wrong)
    print(f"wrong acceptances {accepted}, other wrong verdicts {len(wrong) - accepted}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
