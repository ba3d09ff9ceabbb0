"""`hook`: who calls, what was renewed, and the way out. Light until the work has to be done here."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from stapleguard.cli import _deploy_named, _say, _sources
from stapleguard.cli.handover import hand_over
from stapleguard.clients import Call, Idle, links, receive
from stapleguard.disk import DiskFault, StateDirectory
from stapleguard.model import ExitStatus, Renewal, UsageError


def hook(arguments: argparse.Namespace) -> int:
    """Take a renewal from an ACME client."""
    given = (arguments.name, arguments.cert, arguments.key, arguments.chain, arguments.store)
    call = Call(os.environ, tuple(arguments.words), *given)
    taken = receive(call, arguments.client)
    if isinstance(taken, Idle):
        if arguments.verbose:
            _say(f"{taken.event} of {taken.client}: nothing to do")
        return int(ExitStatus.OK)
    name, sources = _sources(arguments, _directory(arguments, taken))
    if hand_over(arguments, name, sources, taken.client):
        return int(ExitStatus.OK)
    if not arguments.quiet:
        sys.stderr.write(f"stapleguard: took {name} from {taken.client}\n")
    return _deploy_named(arguments, name, sources, "hook")


def _directory(arguments: argparse.Namespace, renewal: Renewal) -> str:
    if not renewal.files:
        return renewal.directory
    state = StateDirectory(Path(os.path.abspath(arguments.state_dir)))  # noqa: PTH100 - links in it are the user's choice
    try:
        state.prepare()
        return links.directory(state, renewal)
    except DiskFault:
        raise
    except OSError as error:
        raise UsageError(
            f"cannot note where the files of {renewal.name} are: {os.strerror(error.errno or 0).lower()}",
            "free some space, or run it as the owner of the state directory",
        ) from None
