"""The words: frozen values, enumerations, and the one exception tree.

Everything here is data. Times are timezone-aware UTC, durations are seconds (float), certificates
and OCSP responses are DER unless a name says `pem`.

The exception tree (raised for "cannot go on"; outcomes of the domain are findings instead)::

    StapleguardError            message + hint, exit status of its own
     +-- UsageError             wrong usage or configuration; nothing was touched      (2)
     +-- LockBusy               another run holds the lock                            (75)
     +-- Interrupted            SIGINT or SIGTERM                                     (130)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Final, TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


class ExitStatus(IntEnum):
    """The published exit statuses; an unknown non-zero one is a failure."""

    OK = 0
    BUG = 1
    USAGE = 2
    DEGRADED = 3
    REFUSED = 4
    ROLLED_BACK = 5
    STRANDED = 6
    INCONCLUSIVE = 7
    PENDING = 8
    BUSY = 75
    INTERRUPTED = 130


class Verdict(Enum):
    """The one conclusion of a run."""

    VERIFIED = "verified"
    NOT_APPLICABLE = "not-applicable"
    DEGRADED = "degraded"
    REFUSED = "refused"
    ROLLED_BACK = "rolled-back"
    STRANDED = "stranded"
    INCONCLUSIVE = "inconclusive"
    PENDING = "pending"

    @property
    def exit_status(self) -> ExitStatus:
        """The status that a process ending in this verdict returns."""
        return _EXIT_STATUS[self]


_EXIT_STATUS: Final = {
    Verdict.VERIFIED: ExitStatus.OK,
    Verdict.NOT_APPLICABLE: ExitStatus.OK,
    Verdict.DEGRADED: ExitStatus.DEGRADED,
    Verdict.REFUSED: ExitStatus.REFUSED,
    Verdict.ROLLED_BACK: ExitStatus.ROLLED_BACK,
    Verdict.STRANDED: ExitStatus.STRANDED,
    Verdict.INCONCLUSIVE: ExitStatus.INCONCLUSIVE,
    Verdict.PENDING: ExitStatus.PENDING,
}


class Severity(Enum):
    """How much a finding matters: critical breaks clients or the proof, warning will, info is news."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class KeyType(Enum):
    """The public-key algorithm of a leaf; a server may hold one certificate of each."""

    RSA = "rsa"
    ECDSA = "ecdsa"
    EDDSA = "eddsa"


class TlsVersion(Enum):
    """A protocol version that a handshake is pinned to."""

    TLS1_2 = "TLSv1.2"
    TLS1_3 = "TLSv1.3"


class Prime(Enum):
    """How a server gets its first staple after a reload (design: Priming)."""

    AUTO = "auto"
    FILE = "file"
    WARM = "warm"


class Depth(Enum):
    """How much of a place is looked at."""

    QUICK = "quick"
    """One handshake with each address: what one client sees."""
    THOROUGH = "thorough"
    """Each key type, TLS version and worker of each address."""


class CertStatus(Enum):
    """RFC 6960 section 4.2.1, CertStatus."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class HandshakeFault(Enum):
    """Why a handshake told us nothing; each is a different cause."""

    NAME = "name"
    """The host name has no address."""
    REFUSED = "refused"
    """The kernel of the peer said that nobody listens."""
    BLOCKED = "blocked"
    """No answer to SYN within the time, or host or network unreachable."""
    RESET = "reset"
    """The peer closed or reset the connection before the handshake was complete."""
    STALLED = "stalled"
    """Connected, but the handshake did not end within the time."""
    NOT_TLS = "not-tls"
    """What came back is not TLS (plain HTTP, usually)."""
    ALERT = "alert"
    """The peer refused by a TLS alert or the handshake failed in the protocol."""
    NO_STARTTLS = "no-starttls"
    """The peer speaks, but does not let TLS begin."""


class StartTls(Enum):
    """The protocol in which TLS is asked for on a connection that begins without it."""

    SMTP = "smtp"
    """RFC 3207."""
    IMAP = "imap"
    """RFC 9051 section 6.2.1."""
    POP3 = "pop3"
    """RFC 2595 section 4."""
    LDAP = "ldap"
    """RFC 4511 section 4.14."""
    POSTGRES = "postgres"
    """PostgreSQL, Frontend/Backend Protocol, SSLRequest."""


STARTTLS: Final[Mapping[str, int]] = MappingProxyType(
    {
        StartTls.SMTP.value: 25,
        StartTls.IMAP.value: 143,
        StartTls.POP3.value: 110,
        StartTls.LDAP.value: 389,
        StartTls.POSTGRES.value: 5432,
    }
)
"""The port that each of these protocols has, by its name."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client would connect: `address` is an IP of `host`; `server_name` is the SNI ('': none).

    With `starttls`, TLS begins only after that protocol's own dialogue.
    """

    host: str
    port: int
    server_name: str
    address: str
    starttls: StartTls | None = None

    def __str__(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address
        name = self.server_name or self.host
        return f"{name} at {shown}:{self.port}"


@dataclass(frozen=True, slots=True)
class Ask:
    """One handshake to make: pinned to a version and a key type where they are given."""

    endpoint: Endpoint
    tls: TlsVersion | None = None
    key_type: KeyType | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One handshake's facts, no judgement.

    `chain` is what the peer sent, leaf first, DER. `staple` is the OCSP response sent for the leaf
    (RFC 6066 section 8), None when there was none. `worker` is the process that owned the accepted
    connection, where the kernel of this host could tell. With a `fault`, chain is empty.
    """

    ask: Ask
    at: datetime
    seconds: float
    protocol: str | None = None
    chain: tuple[bytes, ...] = ()
    staple: bytes | None = None
    worker: int | None = None
    fault: HandshakeFault | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LeafFacts:
    """What a certificate says of itself, as far as this program needs it."""

    sha256: str
    serial: int
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key_type: KeyType
    ocsp_urls: tuple[str, ...]
    ca_issuers: tuple[str, ...]
    must_staple: bool


@dataclass(frozen=True, slots=True)
class Renewal:
    """What an ACME client says it has renewed: a lineage by name and directory, and its names.

    A client that names files has no directory; then `files` maps privkey, cert, chain and fullchain to paths.
    """

    name: str
    directory: str
    domains: tuple[str, ...]
    client: str
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The bytes of one lineage as the ACME client left them (PEM), and where each came from.

    `chain` and `fullchain` may be empty when the client does not write them.
    """

    privkey: bytes = field(repr=False)
    cert: bytes = b""
    chain: bytes = b""
    fullchain: bytes = b""
    paths: Mapping[str, str] = field(default_factory=dict)


class StapleguardError(Exception):
    """Cannot go on: `message` says what, `hint` what to do about it; lower case, no full stop."""

    exit_status: ExitStatus = ExitStatus.USAGE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(StapleguardError):
    """Wrong usage or configuration; nothing was touched."""


class LockBusy(StapleguardError):
    """Another run holds the lock."""

    exit_status = ExitStatus.BUSY


class Interrupted(StapleguardError):
    """A signal asked the run to end."""

    exit_status = ExitStatus.INTERRUPTED


def escape(text: str, limit: int = 256) -> str:
    r"""Make text of unknown origin fit for a message: no character of it can move a cursor or forge a line.

    What Unicode does not call printable (C0, C1, DEL, line ends, bidirectional and other format
    controls, surrogates, unassigned, any space but U+0020) becomes `\xNN`, `\uNNNN` or `\UNNNNNNNN`;
    all else stays, so escaping twice changes nothing. The result has at most `limit` characters
    (at least 1); what does not fit is replaced by one ellipsis, never in the middle of an escape.
    """
    pieces: list[str] = []
    length = 0
    for character in text:
        pieces.append(character if character.isprintable() else _escaped(ord(character)))
        length += len(pieces[-1])
        if length > limit:
            while pieces and length >= limit:
                length -= len(pieces.pop())
            return "".join(pieces) + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(pieces)


def _escaped(point: int) -> str:
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
