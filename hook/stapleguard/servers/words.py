"""What every web server is spoken of with: installations, sites, configuration tests, includes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from stapleguard.finding import Finding
from stapleguard.host import Completed


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
    `verifies_clients`: its `trusted` anchors are anchors for client certificates, too.
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


@dataclass(frozen=True, slots=True)
class Include:
    """What the lines of a generation for one server are made of.

    `directory` is the absolute path of the generation. `suffixes` tell its certificates apart: '' is
    `fullchain.pem` and `privkey.pem`, '.ecdsa' is `fullchain.ecdsa.pem` and so on. `trusted` is the
    file of anchors for the signer of an answer, None where the server must not be given any.
    `resolvers` are the values of one resolver line, `resolver_timeout` is in seconds. `comments` are
    single lines that say what this is.
    """

    directory: str
    suffixes: tuple[str, ...] = ("",)
    stapling: Stapling = Stapling.OFF
    trusted: str | None = "trusted.pem"
    resolvers: tuple[str, ...] = ()
    resolver_timeout: float | None = None
    comments: Sequence[str] = ()


class Server(Protocol):
    """What a module of this package offers for one kind of server; see `nginx` for the details."""

    @property
    def KIND(self) -> str:  # noqa: N802 - a constant of the module
        """Its name: the `kind` of its instances."""
        ...

    def instances(self, binary: str | None = None, config: str | None = None) -> tuple[Instance, ...]:
        """Find the installations on this host, running or not."""
        ...

    def sites(self, instance: Instance, state_dir: str) -> tuple[Site, ...]:
        """Read its configuration."""
        ...

    def test(self, instance: Instance, timeout: float) -> ConfigTest:
        """Have it test its configuration as it is."""
        ...

    def test_candidate(
        self, instance: Instance, candidate_include: str, live_include: str, timeout: float
    ) -> ConfigTest | None:
        """Have it test its configuration as it would be; None where that is not possible."""
        ...

    def reload(self, instance: Instance, timeout: float) -> Completed:
        """Ask it to load its configuration and certificates anew."""
        ...

    def workers(self, instance: Instance) -> tuple[int, ...]:
        """List the processes that accept connections now."""
        ...

    def render(self, include: Include) -> str:
        """Write the lines that it includes."""
        ...

    def log_findings(self, text: str) -> tuple[Finding, ...]:
        """Read what it says of stapling in its log and in its configuration test."""
        ...

    def error_log(self, instance: Instance) -> str | None:
        """Find the file that it says it in."""
        ...
