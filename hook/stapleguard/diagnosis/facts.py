"""What a diagnosis is made from: facts of one certificate at one server, gathered by somebody else.

Nothing here judges. A fact that could not be had is absent and stands among `unseen`, with what it takes
to see it: an inference must never take "not looked at" for "not there".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from stapleguard.diagnosis.manner import UNKNOWN, Manner
from stapleguard.finding import Code, Finding
from stapleguard.ocsp import Judgement


class Symptom(Enum):
    """What the handshakes show."""

    GOOD = "a good staple everywhere"
    ABSENT = "no staple"
    PARTIAL = "some workers send no staple"
    BAD = "a staple that does not pass"
    NOT_APPLICABLE = "no staple is expected"
    UNSEEN = "no handshake"


@dataclass(frozen=True, slots=True)
class Lookup:
    """One question for the addresses of a name; `resolver` '' is this host's own way (getaddrinfo).

    `silent` are the kinds of address that it did not answer for, though it did for another.
    """

    resolver: str
    addresses: tuple[str, ...]
    code: Code | None = None
    text: str = ""
    silent: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Name:
    """A responder's host name, asked of everybody who matters.

    `servers` are the name servers of this host that know it from here, where the configuration has none.
    """

    host: str
    system: Lookup
    configured: tuple[Lookup, ...] = ()
    servers: tuple[str, ...] = ()


class Signer(Enum):
    """Who signed an answer, as far as it concerns what a server needs to verify it."""

    ISSUER = "the issuer, whose certificate the answer does not hold"
    ENCLOSED = "the issuer, whose certificate the answer holds"
    DELEGATE = "a delegate, whose certificate the answer holds"


@dataclass(frozen=True, slots=True)
class Reply:
    """One request and what became of it; `code` None: an answer that the judge accepts.

    `location` is where a redirect leads, `date` the Date of the HTTP answer.
    """

    method: str
    code: Code | None
    text: str
    seconds: float
    status: int | None = None
    location: str = ""
    date: datetime | None = None
    judgement: Judgement | None = None
    signer: Signer | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """One address of one responder, or the proxy in front of it, with the replies to GET and POST.

    The first of `replies` is to what the server itself sends. `named_by` are the resolvers that gave the
    address ('' is the system's).
    """

    url: str
    address: str
    port: int
    replies: tuple[Reply, ...]
    named_by: tuple[str, ...] = ("",)
    proxy: str = ""

    @property
    def where(self) -> str:
        """The address and the port as they are written."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def reply(self) -> Reply:
        """The reply to what the server itself would send."""
        return self.replies[0]


@dataclass(frozen=True, slots=True)
class Setting:
    """A directive in force: its words, and FILE:LINE where it stands ('' when it is a default)."""

    words: tuple[str, ...] = ()
    where: str = ""

    @property
    def value(self) -> str:
        """The first word."""
        return self.words[0] if self.words else ""


@dataclass(frozen=True, slots=True)
class StapleFile:
    """The staple file of the configuration as it is on disk; `problem` '' with a judgement.

    `denied` is the user of the running server, where that one may not read it.
    """

    path: str
    problem: str
    judgement: Judgement | None
    changed: datetime | None = None
    denied: str = ""


class Trust(Enum):
    """Whether a server's anchors lead from a delegate to a root, as OpenSSL wants it."""

    COMPLETE = "complete"
    NO_ROOT = "no root"
    NO_ISSUER = "no issuer"


@dataclass(frozen=True, slots=True)
class Block:
    """The server block that presents the certificate, with everything in force for stapling.

    `certificate` has the files of every kind of key that are in force, where there are several.
    `chain` is a file of its own for what stands above the leaf. `fetches`: it would ask the responder
    itself. `cache` is what it needs to start with stapling on, None where it needs nothing. `errors` and
    `made_up` are on where it passes on an answer that is none, or one of its own invention. `in_handshake`:
    a client waits while it asks. `proxy` is the way that it takes to the responder. `families` are the
    kinds of address that it looks up.
    """

    where: str
    stapling: Setting = Setting(("off",))
    verify: Setting = Setting(("off",))
    file: Setting = Setting()
    responder: Setting = Setting()
    resolver: Setting = Setting()
    trusted: Setting = Setting()
    certificate: Setting = Setting()
    variable: Setting | None = None
    certificates: int = 1
    chain: Setting = Setting()
    fetches: bool = True
    cache: Setting | None = None
    errors: Setting = Setting(("off",))
    made_up: Setting = Setting(("off",))
    in_handshake: bool = False
    proxy: Setting = Setting()
    key: Setting = Setting()
    families: tuple[int, ...] = (4, 6)

    @property
    def on(self) -> bool:
        """Whether stapling is on."""
        return self.stapling.value == "on"

    def asked(self, urls: Sequence[str]) -> tuple[str, ...]:
        """Return the URL that it asks: the first of a certificate; all where somebody else fetches for it."""
        if self.responder.value:
            return (self.responder.value,)
        return tuple(urls[:1] if self.fetches else urls)


@dataclass(frozen=True, slots=True)
class Load:
    """What the server's own test says of its configuration, and whether the running one is older."""

    findings: tuple[Finding, ...] = ()
    refused: str = ""
    changed_since: str = ""
    """A file of the configuration that is newer than the running workers, '' when there is none."""


@dataclass(frozen=True, slots=True)
class Knock:
    """One try from where the server stands: its network namespace and its user."""

    target: str
    code: Code | None
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server stands, and what can be reached from there."""

    user: str
    knocks: tuple[Knock, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """A server of this host; `log` are its own words since it was last loaded."""

    kind: str
    version: str
    config: str
    running: bool
    block: Block | None = None
    load: Load = Load()
    log: tuple[Finding, ...] = ()
    place: Place | None = None
    issuer_found: bool = True
    """Whether the issuer is where the server looks for it: behind the leaf, or among its anchors."""
    issuer_sent: bool = True
    """Whether the issuer stands behind the leaf in the certificate file."""
    trust: Trust = Trust.COMPLETE
    staple_file: StapleFile | None = None
    key_fits: bool = True
    """Whether the key file belongs to the certificate file, where its own test does not compare them."""
    manner: Manner = UNKNOWN


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be looked at, why, and what it takes."""

    what: str
    why: str
    takes: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about one certificate at one server."""

    subject: str
    symptom: Symptom
    now: datetime
    urls: tuple[str, ...]
    names: tuple[Name, ...] = ()
    doors: tuple[Door, ...] = ()
    server: Server | None = None
    handshakes: tuple[Finding, ...] = ()
    """What the handshakes showed, as it is told anyway."""
    unseen: tuple[Unseen, ...] = ()
    dates: tuple[tuple[str, datetime], ...] = ()
    """(who, its clock) of everybody who told the time in an HTTP answer, at about `now`."""

    @property
    def skews(self) -> tuple[tuple[str, timedelta], ...]:
        """How far the others are ahead of us."""
        return tuple((who, date - self.now) for who, date in self.dates)
