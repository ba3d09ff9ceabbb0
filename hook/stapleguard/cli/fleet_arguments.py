"""The arguments of `check` for many endpoints, and those of `exporter`; nothing is loaded for them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from stapleguard.model import escape

if TYPE_CHECKING:
    from stapleguard.inventory import Form

WATCH_SECONDS: Final = 10.0
LISTEN: Final = "127.0.0.1:9117"


def add_check(check: argparse.ArgumentParser, seconds: Callable[[str], float]) -> None:
    """Add where the endpoints come from, how deep to look, and how they are shown."""
    check.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="an inventory to look at; `-` is stdin; repeatable",
    )
    check.add_argument(
        "--format",
        type=_form,
        metavar="FORM",
        help="its form, where it is not to be guessed: lines, ansible-ini, ansible-json or file-sd",
    )
    check.add_argument(
        "--no-sni", action="store_true", help="ask for no server name, as clients without SNI do"
    )
    depth = check.add_mutually_exclusive_group()
    depth.add_argument(
        "--quick",
        dest="depth",
        action="store_const",
        const="quick",
        help="one handshake with each address (the default with --file)",
    )
    depth.add_argument(
        "--thorough",
        dest="depth",
        action="store_const",
        const="thorough",
        help="each key type, TLS version and worker of each address (the default without --file)",
    )
    _add_forms(check, seconds)


def _add_forms(check: argparse.ArgumentParser, seconds: Callable[[str], float]) -> None:
    check.add_argument(
        "--jsonl", action="store_true", help="one JSON object an endpoint and line, as they come"
    )
    check.add_argument(
        "--nagios", action="store_true", help="one line and the exit status of a monitoring plugin"
    )
    check.add_argument(
        "--warning",
        type=_days,
        default=14.0,
        metavar="DAYS",
        help="with --nagios: certificate life that is a WARNING (default 14)",
    )
    check.add_argument(
        "--critical",
        type=_days,
        default=3.0,
        metavar="DAYS",
        help="with --nagios: certificate life that is CRITICAL (default 3)",
    )
    check.add_argument(
        "--metrics", metavar="FILE", help="write metrics for node_exporter's textfile collector, too"
    )
    check.add_argument(
        "--watch",
        nargs="?",
        type=seconds,
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"look again and again, with so long a pause (default {WATCH_SECONDS:.0f}), on a screen",
    )


def add_exporter(exporter: argparse.ArgumentParser) -> None:
    """Add where to listen and whom to trust."""
    exporter.add_argument("--listen", default=LISTEN, metavar="IP:PORT", help=f"default {LISTEN}")
    exporter.add_argument("--ca-file", metavar="FILE", help="trust anchors (PEM) instead of the system's")


def _form(text: str) -> Form:
    from stapleguard.inventory import Form

    try:
        return Form(text)
    except ValueError:
        known = ", ".join(one.value for one in Form)
        raise argparse.ArgumentTypeError(f"no such form: {escape(text)} (known are {known})") from None


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"not a number of days: {escape(text)}")
    return value
