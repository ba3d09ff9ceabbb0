"""Answers in pairs: one with a rule broken, and its twin that differs only in keeping it.

A `Mutation` makes the pair in any `Setting` (kind of key, direct or delegated, byName or byKey), so the
verdict is known by construction and does not come from any judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final  # dataclasses.replace() is checked at run time

import pki
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pki import Answer, KeyKind, Pki
from stapleguard.finding import Code
from stapleguard.model import CertStatus
from stapleguard.ocsp import Judgement, Rules, judge

SECOND, MINUTE, HOUR, DAY = (
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)
ALIEN: Final = "1.2.3.4"
"""The OID of an extension, algorithm or type that nobody knows."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a mutation takes place; `base` is the good answer of it, an hour old."""

    pki: Pki
    other: Pki
    now: datetime
    base: Answer
    delegated: bool

    @classmethod
    def of(cls, kind: KeyKind, now: datetime, *, delegated: bool, by_key: bool, delegate: KeyKind) -> Setting:
        """Make the setting; keys are made once for each kind and run."""
        of = pki.make_pki(kind, now, delegate)
        base = Answer.delegated(of, now) if delegated else Answer.good(of, now)
        signer = of.delegate if delegated else of.issuer
        base = replace(base, responder=pki.by_key(signer) if by_key else pki.by_name(signer))
        return cls(of, pki.make_pki(KeyKind.P521, now), now, base, delegated)

    @property
    def then(self) -> datetime:
        """Look up thisUpdate and producedAt of the base."""
        return self.now - HOUR

    def but(self, **changes: Any) -> Answer:
        """Change fields of the response."""
        return replace(self.base, **changes)

    def entry(self, **changes: Any) -> Answer:
        """Change fields of the entry."""
        return replace(self.base, entry=replace(self.base.entry, **changes))

    def cert_id(self, **changes: Any) -> Answer:
        """Change fields of the CertID."""
        return self.entry(cert_id=replace(self.base.entry.cert_id, **changes))

    def hashed(self, digest: str) -> Answer:
        """Write the CertID with another hash."""
        made = pki.CertId.of(self.pki.leaf.certificate, self.pki.issuer.certificate, digest)
        return self.entry(cert_id=made)

    def twice(self, *, last: bool = True, **changes: Any) -> Answer:
        """Add a second entry about the same certificate that differs in this, after the first or before."""
        second = replace(self.base.entry, **changes)
        first, more = (self.base.entry, second) if last else (second, self.base.entry)
        return self.but(entry=first, more=(more,))

    def signed(self, by: pki.Signer, *, enclosed: bool = True, **changes: Any) -> Answer:
        """Let somebody else sign, who is named as the base names its signer."""
        der = by.certificate.public_bytes(Encoding.DER)
        key = self.base.responder.startswith(b"\xa2")
        responder = pki.by_key(by) if key else pki.by_name(by)
        signed = replace(self.base, key=by.key, algorithm=pki.usual(by.key), responder=responder)
        return replace(signed, certs=(der,) if enclosed else None, **changes)

    def delegate(self, **changes: Any) -> Answer:
        """Let a delegate sign whose certificate says something else than usual."""
        return self.signed(replace(self.pki.blank_delegate, **changes).sign(self.pki.delegate.key))

    def saying(self, *extensions: tuple[x509.ExtensionType, bool]) -> Answer:
        """Let a delegate sign whose certificate has these extensions."""
        return self.delegate(extensions=extensions)

    def retold(self, **fields: Any) -> Answer:
        """Let the delegate sign with its certificate written anew, byte for byte."""
        der = pki.retold(self.pki.delegate.certificate, self.pki.issuer, **fields)
        if "version" in fields:  # which `cryptography` does not load by itself
            return replace(self.signed(self.pki.delegate), certs=(der,))
        return self.signed(pki.Signer(x509.load_der_x509_certificate(der), self.pki.delegate.key))


@dataclass(frozen=True, slots=True)
class Variant:
    """An answer with the circumstances of its judgement where those are not the setting's."""

    answer: Answer | bytes
    of: Pki | None = None
    now: datetime | None = None
    rules: Rules = field(default_factory=Rules)


Make = Callable[[Setting], Variant | Answer | bytes]


class By(Enum):
    """In which settings a mutation means something."""

    ANY = "any"
    ISSUER = "issuer"
    DELEGATE = "delegate"


ALL_KINDS: Final = frozenset(KeyKind)
RSA_ONLY: Final = frozenset({KeyKind.RSA2048})
EC_ONLY: Final = frozenset({KeyKind.P256, KeyKind.P384})


@dataclass(frozen=True, slots=True)
class Mutation:
    """A broken rule with the code that it earns, and how the pair is made.

    `kinds` are those of the signer's key. `status` is what an impostor or a good signer claims.
    """

    code: Code
    broken: Make
    twin: Make = field(default=lambda setting: setting.base)
    by: By = By.ANY
    kinds: frozenset[KeyKind] = ALL_KINDS
    status: CertStatus | None = CertStatus.GOOD

    def means(self, setting: Setting, kind: KeyKind) -> bool:
        """Tell whether the pair can be made there; `kind` is that of the signer's key."""
        if kind not in self.kinds:
            return False
        return self.by is By.ANY or (self.by is By.DELEGATE) == setting.delegated


Table = Mapping[str, Mutation]


def judged(made: Variant | Answer | bytes, setting: Setting) -> Judgement:
    """Judge what a mutation made."""
    variant = made if isinstance(made, Variant) else Variant(made)
    of = variant.of or setting.pki
    der = variant.answer if isinstance(variant.answer, bytes) else variant.answer.der()
    return judge(der, of.leaf.certificate, of.issuer.certificate, variant.now or setting.now, variant.rules)
