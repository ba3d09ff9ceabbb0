"""How a hook was called, and what every client's reading of it has in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stapleguard.config import NAME
from stapleguard.model import Renewal, UsageError, escape


@dataclass(frozen=True, slots=True)
class Call:
    """What a client gave: its environment, the words of its command line, and our own options."""

    environment: Mapping[str, str]
    words: tuple[str, ...] = ()
    name: str = ""
    cert: str = ""
    key: str = ""
    chain: str = ""
    store: str = ""

    def any_of(self, *variables: str) -> bool:
        """Whether one of these variables is set."""
        return any(self.environment.get(one) for one in variables)

    def need(self, variable: str, client: str) -> str:
        """Return a variable; UsageError names it when the client did not set it."""
        value = self.environment.get(variable, "")
        if not value:
            raise UsageError(
                f"{variable} is not set, though {client} calls",
                f"{client} sets it for its hooks; what to write for each client: stapleguard hook --help",
            )
        return value


@dataclass(frozen=True, slots=True)
class Idle:
    """A call that is none of our business: success, and nothing is done."""

    client: str
    event: str


@dataclass(frozen=True, slots=True)
class Client:
    """One ACME client: the line that makes it call, how its calls are recognised, and what they mean."""

    name: str
    line: str
    """What a person writes, for a certificate of example.org."""
    calls: Callable[[Call], bool]
    receive: Callable[[Call], Renewal | Idle]


def named(name: str, what: str) -> str:
    """Return a name that a lineage may have; UsageError otherwise."""
    if NAME.fullmatch(name) is None:
        raise UsageError(f"{what} is no name for a lineage: {escape(name)}", "give one with --name")
    return name


def from_files(
    client: str, name: str, domains: tuple[str, ...], files: Mapping[str, tuple[str, str]]
) -> Renewal:
    """Make a renewal of single files; each kind has what names it (for messages) and its path."""
    paths = {kind: _file(what, path) for kind, (what, path) in files.items()}
    return Renewal(name, "", domains, client, paths)


def from_directory(client: str, name: str, domains: tuple[str, ...], directory: Path, what: str) -> Renewal:
    """Make a renewal of a directory that has the names of certbot's files."""
    if not directory.is_dir():
        raise UsageError(
            f"{what} is in no directory: {escape(str(directory))}", "has the client kept its files?"
        )
    return Renewal(name, str(directory), domains, client)


def _file(what: str, path: str) -> str:
    shown = escape(path)
    if ".." in Path(path).parts or not path.isprintable():
        raise UsageError(f"{what} is no usable path: {shown}", "give an absolute path")
    # lego and others may be told of their directory in words that only hold where they were started.
    absolute = os.path.abspath(path)  # noqa: PTH100 - a link that moves with each renewal must stay one
    if not Path(absolute).is_file():
        raise UsageError(
            f"{what} is not a file: {shown}", "has the client written it, and may this user read it?"
        )
    return absolute


def never(_call: Call) -> bool:
    """Nothing but --client tells that it is one of these."""
    return False


def identifier(call: Call, client: str) -> str:
    """Return the one word that a client which gives no more is called with."""
    if not call.words:
        raise UsageError(f"--client {client} needs the certificate's name", f"hook --client {client} NAME")
    return named(call.words[0], "the name")
