"""Servers that are looked at and never written to: what each can do with a staple, by its program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final


class Ability(Enum):
    """What a program that we leave alone can do."""

    FETCHES = "fetches"
    FILE = "file"
    """It takes a file that somebody else renews."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Observed:
    """One such program; `advice` is what its users have to know."""

    name: str
    ability: Ability
    advice: str


_CADDY: Final = Observed("Caddy", Ability.FETCHES, "it fetches staples itself and keeps them in its storage")
_EXIM: Final = Observed(
    "Exim",
    Ability.FILE,
    "a bad tls_ocsp_file breaks TLS itself, not only the staple: with one that has expired, is of another "
    "certificate, or cannot be read, it ends every handshake. Replace the file by a rename, and in time",
)
_STUNNEL: Final = Observed("stunnel", Ability.NOTHING, "put a server that staples in front (HAProxy, nginx)")
_POSTFIX: Final = Observed("Postfix", Ability.NOTHING, "it has no OCSP stapling at all")
_DOVECOT: Final = Observed("Dovecot", Ability.NOTHING, "it has no OCSP stapling at all")

OBSERVED: Final[Mapping[str, Observed]] = MappingProxyType(
    {
        "caddy": _CADDY,
        "exim": _EXIM,
        "exim4": _EXIM,
        "stunnel": _STUNNEL,
        "stunnel3": _STUNNEL,
        "stunnel4": _STUNNEL,
        "stunnel5": _STUNNEL,
        "dovecot": _DOVECOT,
        "imap-login": _DOVECOT,
        "pop3-login": _DOVECOT,
    }
)
"""Programs by the name of their executable."""


def observed(executable: str) -> Observed | None:
    """Tell what a program is by its path; None for one that is not known."""
    if executable.endswith("/postfix/sbin/master"):
        return _POSTFIX  # a name that tells nothing without its directory
    return OBSERVED.get(executable.rpartition("/")[2])
