"""The host: processes, sockets, the clock, systemd and journald.

The only room that starts programs and the only one that reads the clock. `clock` is the two kinds
of time, `commands` the programs that we run, `proc` what the kernel tells about those that run
already, `network` the namespaces that they are in, `journal` the way to journald, `systemd` the way to
the system manager.
"""

from __future__ import annotations

from stapleguard.host.accepting import accepting
from stapleguard.host.clock import Clock, SystemClock, draw
from stapleguard.host.commands import PATH, Child, Completed, run, signalled, with_bind
from stapleguard.host.control import control
from stapleguard.host.journal import Delivery, journal_send
from stapleguard.host.network import Network, free_ports, may_change_user, network_of
from stapleguard.host.proc import (
    Process,
    accepted,
    children,
    denied,
    environment,
    holders,
    is_fork,
    listened,
    listeners,
    listeners_among,
    listening,
    named,
    output_of,
    owners,
    process,
    processes,
    shares_root,
    started_at,
    unit_of,
    working_directory,
)
from stapleguard.host.systemd import Timer, booted, start, stays_failed, systemctl, timer
from stapleguard.host.vantage import Tried, Try, differs, try_as

__all__ = [
    "PATH",
    "Child",
    "Clock",
    "Completed",
    "Delivery",
    "Network",
    "Process",
    "SystemClock",
    "Timer",
    "Tried",
    "Try",
    "accepted",
    "accepting",
    "booted",
    "children",
    "control",
    "denied",
    "differs",
    "draw",
    "environment",
    "free_ports",
    "holders",
    "is_fork",
    "journal_send",
    "listened",
    "listeners",
    "listeners_among",
    "listening",
    "may_change_user",
    "named",
    "network_of",
    "output_of",
    "owners",
    "process",
    "processes",
    "run",
    "shares_root",
    "signalled",
    "start",
    "started_at",
    "stays_failed",
    "systemctl",
    "timer",
    "try_as",
    "unit_of",
    "with_bind",
    "working_directory",
]
