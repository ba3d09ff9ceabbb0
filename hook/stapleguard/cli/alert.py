"""`alert unit`, which systemd calls when a unit has failed, and `alert test`."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from stapleguard import alerts, notice, report, trouble
from stapleguard.alerts import Sent
from stapleguard.channels import Channel
from stapleguard.cli.arguments import settings
from stapleguard.cli.telling import Teller, announce, book
from stapleguard.config import Config
from stapleguard.disk import StateDirectory
from stapleguard.host import SystemClock, stays_failed
from stapleguard.model import ExitStatus, Json, UsageError, Verdict

_NO_TROUBLE: Final = frozenset(
    str(int(one)) for one in (ExitStatus.PENDING, ExitStatus.BUSY, ExitStatus.INTERRUPTED)
)
_VERDICTS: Final = frozenset(str(int(one.exit_status)) for one in Verdict) - _NO_TROUBLE
"""Exit statuses after which a run has noted its trouble, unless the disk did not take the note."""


def alert(arguments: argparse.Namespace) -> int:
    """Tell a person."""
    return _unit(arguments) if arguments.what == "unit" else _test(arguments)


def _unit(arguments: argparse.Namespace) -> int:
    """Tell what has not been told yet; a run that ended in a verdict has noted its trouble itself."""
    state = StateDirectory(Path(os.path.abspath(arguments.state_dir)))  # noqa: PTH100 - links in it are the user's choice
    state.prepare()
    unit = os.environ.get("MONITOR_UNIT") or arguments.subject
    if not unit:
        raise UsageError("which unit has failed?", "write `stapleguard alert unit UNIT`")
    ended = os.environ.get("MONITOR_SERVICE_RESULT", "")
    status = os.environ.get("MONITOR_EXIT_STATUS", "")
    clock = SystemClock()
    try:
        config = settings(arguments)
    except (
        UsageError
    ) as error:  # the trouble may be this very file; the journal has to hear of it all the same
        sys.stderr.write(f"stapleguard: no channel is used: {error.message}\n")
        config = Config()
    bad = ended not in ("", "success")
    # From 254 on OnFailure= follows every attempt of a unit with Restart=; the last one is what counts.
    final = bad and stays_failed(unit)
    with book(state) as lent:
        told_itself = status in _NO_TROUBLE or (status in _VERDICTS and bool(lent[0]))
        if final and not (ended == "exit-code" and told_itself):
            lent[0] = trouble.crashed(lent[0], unit, f"{ended} {status}".strip(), clock.now())
    news = announce(Teller(state, config, clock), unit)
    if arguments.json:
        told: list[Json] = [one.about for one in news]
        report.print_json({"schema": "stapleguard.alert/1", "exit": 0, "told": told})
    return int(ExitStatus.OK)


def _test(arguments: argparse.Namespace) -> int:
    """Send a message through each channel, or those named, past their queues; 3 when one did not take it."""
    config, clock = settings(arguments), SystemClock()
    channels = _wanted(config, arguments.subject)
    message = notice.probe(config.alert_host or os.uname().nodename, clock.now())
    with ThreadPoolExecutor(max_workers=len(channels)) as pool:
        ended = [*pool.map(lambda one: alerts.send(one, message, os.environ), channels)]
    status = ExitStatus.OK if all(one.taken for one in ended) else ExitStatus.DEGRADED
    if arguments.json:
        each: list[Json] = [_row(channel, sent) for channel, sent in zip(channels, ended, strict=True)]
        report.print_json({"schema": "stapleguard.alert/1", "exit": int(status), "channels": each})
    else:
        for channel, sent in zip(channels, ended, strict=True):
            sys.stdout.write(f"{channel.name} ({channel.kind.value}): {sent.problem or 'taken'}\n")
    return int(status)


def _wanted(config: Config, name: str | None) -> list[Channel]:
    if not config.channels:
        raise UsageError("no alert channel is configured", "add a table [alerts.NAME]: docs/how-to/alerts.md")
    if name and name not in config.channels:
        raise UsageError(f"no alert channel is called {name}", f"there are: {', '.join(config.channels)}")
    return [one for one in config.channels.values() if name in (None, one.name)]


def _row(channel: Channel, sent: Sent) -> Json:
    return {
        "channel": channel.name,
        "kind": channel.kind.value,
        "taken": sent.taken,
        "problem": sent.problem or None,
    }
