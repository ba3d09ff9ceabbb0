"""`hook`: who calls, what was renewed, and the way out. Light until the work has to be done here."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from stapleguard.cli import _deploy_named, _say, _sources
from stapleguard.cli.handover import Handed, hand_over
from stapleguard.clients import WITHIN_RESTART, Call, Idle, links, receive
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
    awaited = taken.client in WITHIN_RESTART
    if awaited and arguments.wait:
        raise UsageError(
            f"--wait cannot be used by {taken.client}: it serves the new certificate only after its hook",
            "leave it out; to prove it by hand: stapleguard retry",
        )
    name, sources = _sources(arguments, _directory(arguments, taken))
    handed = hand_over(arguments, name, sources, taken.client)
    if handed is Handed.STARTED:
        return int(ExitStatus.OK)
    if awaited and handed is Handed.QUEUED:
        _say(f"queued {name} from {taken.client}; `stapleguard retry` proves it")
        return int(ExitStatus.OK)
    if not arguments.quiet:
        sys.stderr.write(f"stapleguard: took {name} from {taken.client}, going on here\n")
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
