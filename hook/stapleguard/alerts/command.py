"""A program of one's own: argv as configured, the facts as JSON on its standard input."""

from __future__ import annotations

import json

from stapleguard import host
from stapleguard.alerts.fault import SendFault
from stapleguard.channels import Channel
from stapleguard.notice import Notice, as_json


def send(channel: Channel, notice: Notice) -> None:
    """Run it; SendFault when it does not end with 0 in time."""
    done = host.run(
        channel.command, channel.timeout, given=json.dumps(as_json(notice)).encode("ascii") + b"\n"
    )
    if done.status != 0:
        raise SendFault(f"{channel.command[0]} ended with {done.status}: {done.stderr.strip()[-200:]}")
