"""What every web server is spoken of with: installations, sites, configuration tests, includes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from cryptography import x509

from stapleguard.diagnosis.facts import Block, Unseen
from stapleguard.diagnosis.manner import Manner
from stapleguard.finding import Finding
from stapleguard.host import Completed
from stapleguard.model import Endpoint


@dataclass(frozen=True, slots=True)
class Instance:
    """A server installation found on this host.

    `config` is the absolute path of its main configuration file. `arguments` are the options that
    make `binary` mean this very installation again, with absolute paths. `version` is '' when the
    program did not tell it. `master` is the process, None when it is not running.
    """

    kind: str
    binary: str
    config: str
    arguments: tuple[str, ...]
    version: str
    master: int | None


@dataclass(frozen=True, slots=True)
class Site:
    """One server block that presents certificates.

    `names` as configured. `listens` are (address to connect to, TCP port), empty when the block only
    listens where a plain TLS client of this host cannot connect (UNIX sockets, PROXY protocol).
    `certificates` are absolute paths as configured, links not followed; a value that is computed per
    connection is left out and makes `variable` true. `stapling`, `staple_file`, `trusted` and
    `resolvers` are what is in force, inherited or not. `where` is FILE:LINE of the block. `guards` are
    the lineages whose published include the block names, also while that file is missing.
    `verifies_clients`: its `trusted` anchors are anchors for client certificates, too. `included` is the
    file of the generation that a guarded block names, where there are several to choose from. `keeper` is
    the part of the server that gets and keeps the certificate itself (`mod_md`), '' without one.
    """

    names: tuple[str, ...]
    listens: tuple[tuple[str, int], ...]
    certificates: tuple[str, ...]
    variable: bool
    stapling: bool
    staple_file: str | None
    trusted: str | None
    resolvers: tuple[str, ...]
    where: str
    guards: tuple[str, ...]
    verifies_clients: bool
    included: str = ""
    keeper: str = ""


class ConfigOutcome(Enum):
    """What a server says of its configuration."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNTESTED = "untested"
    """The test itself did not work: no such program, no permission, or out of time."""


@dataclass(frozen=True, slots=True)
class ConfigTest:
    """How a configuration test ended; `refusals` and `warnings` are the server's words, `text` is all."""

    outcome: ConfigOutcome
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    text: str


class Stapling(Enum):
    """Where a server is told to take its staple from."""

    OFF = "off"
    FETCH = "fetch"
    """It asks the responder itself."""
    FILE = "file"
    """The answer lies in the generation, and the server asks nobody."""


class Update(Enum):
    """How handing a generation over to a running server ended."""

    DONE = "done"
    """It serves what lies on the disk now."""
    RELOAD = "reload"
    """It has to be reloaded; nothing was changed in it."""


@dataclass(frozen=True, slots=True)
class Include:
    """What the lines of a generation for one server are made of.

    `directory` is the absolute path of the generation, `live` that of the link which leads to it once it
    is published. `suffixes` tell its certificates apart: '' is `fullchain.pem` and `privkey.pem`, '.ecdsa'
    is `fullchain.ecdsa.pem` and so on. `trusted` is the file of anchors for the signer of an answer, None
    where the server must not be given any. `resolvers` are the values of one resolver line,
    `resolver_timeout` is in seconds. `comments` are
    single lines that say what this is.
    """

    directory: str
    suffixes: tuple[str, ...] = ("",)
    stapling: Stapling = Stapling.OFF
    trusted: str | None = "trusted.pem"
    resolvers: tuple[str, ...] = ()
    resolver_timeout: float | None = None
    comments: Sequence[str] = ()
    live: str = ""


class Account(Enum):
    """As whom an understudy plays."""

    SERVER = "the server's own user"
    OURS = "our own user"
    """Where this process may not become another one, as in a sandbox."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where an understudy plays: everything that it may touch.

    `directory` is private and will be removed. `candidate` is the absolute path of the generation that stands
    in for the one at `live`. `ports` of 127.0.0.1 are free, one for each of the `sites` that it plays.
    """

    directory: str
    candidate: str
    live: str
    sites: tuple[Site, ...]
    ports: tuple[int, ...]
    account: Account = Account.SERVER


@dataclass(frozen=True, slots=True)
class Understudy:
    """A private instance of a server with the candidate's files: what it is made of, and how it is run.

    `instance` has its own configuration and no master yet. `argv` runs it in the foreground, with `env`
    beside what every program gets. `files` are written first, by name within the stage's directory. What it
    says goes to the files `logs`, or to its output. `origins` leads from FILE:LINE of its configuration to
    where the directive really stands.
    """

    instance: Instance
    argv: tuple[str, ...]
    files: Mapping[str, str]
    logs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


class Server(Protocol):
    """What a module of this package offers for one kind of server; see `nginx` for the details."""

    @property
    def KIND(self) -> str:  # noqa: N802 - a constant of the module
        """Its name: the `kind` of its instances."""
        ...

    @property
    def INCLUDE(self) -> str:  # noqa: N802 - a constant of the module
        """The file of a generation that its configuration names; '' where it names none."""
        ...

    def instances(self, binary: str | None = None, config: str | None = None) -> tuple[Instance, ...]:
        """Find the installations on this host, running or not."""
        ...

    def sites(self, instance: Instance, state_dir: str) -> tuple[Site, ...]:
        """Read its configuration."""
        ...

    def takes(
        self, instance: Instance | None, sites: Sequence[Site], certificates: int
    ) -> frozenset[Stapling]:
        """Tell where it can take its staples from, for so many certificates at a time; None: any version."""
        ...

    def faults(self, instance: Instance, sites: Sequence[Site]) -> tuple[Finding, ...]:
        """Find what its configuration lacks for stapling, where its own test is silent; nothing is run."""
        ...

    def test(self, instance: Instance, timeout: float) -> ConfigTest:
        """Have it test its configuration as it is."""
        ...

    def test_candidate(
        self, instance: Instance, candidate_include: str, live_include: str, timeout: float
    ) -> ConfigTest | None:
        """Have it test its configuration as it would be; None where that is not possible."""
        ...

    def understudy(self, instance: Instance, stage: Stage) -> Understudy | None:
        """Compose a private instance of it out of its configuration; None where it has none. Nothing runs."""
        ...

    def update(self, instance: Instance, sites: Sequence[Site], live: str, timeout: float) -> Update:
        """Hand the generation at `live` over to the running server without a reload, where it can."""
        ...

    def reload(self, instance: Instance, timeout: float) -> Completed:
        """Ask it to load its configuration and certificates anew."""
        ...

    def workers(self, instance: Instance) -> tuple[int, ...]:
        """List the processes that accept connections now."""
        ...

    def leaving(self, instance: Instance) -> tuple[int, ...]:
        """List those of them that a reload replaces; none where they load the new certificate themselves."""
        ...

    def line(self, live: str) -> str:
        """Return the one line that a person puts into its configuration, for the generation at `live`."""
        ...

    def layout(self, include: Include, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """Write the files that are this server's own, beside those that a generation has anyway."""
        ...

    def log_findings(self, text: str) -> tuple[Finding, ...]:
        """Read what it says of stapling in its log and in its configuration test."""
        ...

    def error_log(self, instance: Instance) -> str | None:
        """Find the file that it says it in."""
        ...


@dataclass(frozen=True, slots=True)
class Heard:
    """What a server has said since it was last loaded, and what could not be listened to."""

    findings: tuple[Finding, ...] = ()
    unseen: tuple[Unseen, ...] = ()


class Stapler(Protocol):
    """What a module of this package tells the doctor of one kind of server; see `nginx_stapling`."""

    @property
    def MANNER(self) -> Manner:  # noqa: N802 - a constant of the module
        """How it staples, and how it is told to."""
        ...

    def block_for(
        self, instance: Instance, endpoint: Endpoint, leaf: x509.Certificate | None
    ) -> Block | None:
        """Find what answers a server name at an address, and read what is in force there.

        `leaf` is what a handshake showed, for a server that chooses by what is in its certificates.
        """
        ...

    def resolvers(self, instance: Instance, block: Block) -> tuple[str, ...]:
        """Return the name servers that it asks by itself, none where it leaves that to the host."""
        ...

    def files(self, instance: Instance) -> tuple[str, ...]:
        """List every file that its configuration is made of."""
        ...

    def loaded_at(self, instance: Instance) -> float | None:
        """When it last read its configuration, in seconds since the epoch; None where nothing tells."""
        ...

    def heard(self, instance: Instance, block: Block | None, leaf: x509.Certificate | None) -> Heard:
        """Read what it has said of this certificate since it was last loaded."""
        ...
