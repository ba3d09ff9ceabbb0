"""The command line and the configuration that it names."""

from __future__ import annotations

import argparse
import os
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from stapleguard import __version__
from stapleguard.cli import fleet_arguments
from stapleguard.clients import CLIENTS
from stapleguard.model import UsageError, escape

if TYPE_CHECKING:
    from stapleguard.config import Config

DEFAULT_CONFIG: Final = "/etc/stapleguard/stapleguard.toml"
DEFAULT_STATE: Final = "/var/lib/stapleguard"
EXPORTER: Final = "answer Prometheus: /probe?target=HOST:PORT&module=NAME, and /metrics of itself"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see `{self.prog} --help`")


def _common(parser: argparse.ArgumentParser, *, live: str = "") -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    if live:
        parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help=live)
        parser.add_argument("--ca-file", metavar="FILE", help="trust anchors (PEM) instead of the system's")
        parser.add_argument(
            "--allow-address",
            action="append",
            default=[],
            metavar="CIDR",
            help="a private or loopback range that a responder or AIA host may have; repeatable",
        )
        parser.add_argument("--sni", default="", metavar="NAME", help="server name to ask for")
        parser.add_argument(
            "--address",
            action="append",
            default=[],
            metavar="IP",
            help="connect to this address only; repeatable",
        )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"not a number of seconds up to a day: {escape(text)}")
    return value


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"not an RFC 3339 time: {escape(text)}") from None


def _program() -> argparse.ArgumentParser:
    top = _Parser(
        prog="stapleguard",
        description="Finish a certificate renewal: publish, reload, prove it on the live handshake, "
        "or undo it.",
    )
    top.add_argument("--version", action="version", version=f"stapleguard {__version__}")
    top.add_argument(
        "--config", metavar="FILE", help=f"configuration (default {DEFAULT_CONFIG}, may be absent)"
    )
    top.add_argument(
        "--state-dir",
        metavar="DIR",
        default=os.environ.get("STAPLEGUARD_STATE_DIR", DEFAULT_STATE),
        help=f"state directory (default {DEFAULT_STATE})",
    )
    loud = top.add_mutually_exclusive_group()
    loud.add_argument("-v", "--verbose", action="store_true", help="tracebacks for errors, too")
    loud.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    return top


def _hook_arguments(hook: argparse.ArgumentParser) -> None:
    # The lines are to be copied, so they must not be wrapped; then nothing is.
    hook.formatter_class = argparse.RawDescriptionHelpFormatter
    hook.description = textwrap.fill(hook.description or "", 100)
    hook.epilog = "\n".join(
        ["what to write, for example.org:", *(f"  {one.line}" for one in CLIENTS.values())]
    )
    hook.add_argument(
        "--client",
        default="",
        choices=[*CLIENTS],
        metavar="CLIENT",
        help=f"who calls, where that cannot be told: {', '.join(CLIENTS)}",
    )
    for option, about in (
        ("--cert", "the certificate, with its chain unless --chain is given"),
        ("--key", "its private key"),
        ("--chain", "the intermediates, where they are apart"),
        ("--store", "where the client keeps its files, where that is not the usual place"),
        ("--name", "what to call the lineage, instead of the client's own name for it"),
    ):
        value = "NAME" if option == "--name" else "DIR" if option == "--store" else "FILE"
        hook.add_argument(option, default="", metavar=value, help=about)
    hook.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="WORD",
        help="what the client adds (dehydrated, mod_md), or what --client asks for; after all options",
    )


def _ocsp_arguments(ocsp: argparse.ArgumentParser) -> None:
    both = ocsp.add_subparsers(dest="ocsp", required=True, parser_class=_Parser)
    for name, about in (("fetch", "ask the certificate's responder"), ("verify", "judge a response")):
        one = both.add_parser(name, help=about, description=about)
        _common(one, live="seconds for the exchange" if name == "fetch" else "")
        one.add_argument("--cert", required=True, metavar="LEAF.pem", help="the certificate asked about")
        one.add_argument(
            "--issuer", required=True, metavar="ISSUER.pem", help="its issuer, trusted as it stands"
        )
        if name == "fetch":
            one.add_argument("--url", help="responder, instead of the certificate's own")
            one.add_argument("--out", metavar="FILE", help="keep the accepted answer (DER) here")
        else:
            one.add_argument("--response", required=True, metavar="R.der", help="the OCSP response (DER)")
        one.add_argument(
            "--at", type=_moment, metavar="TIME", help="time of judgement (RFC 3339; default now)"
        )
        one.add_argument(
            "--max-age", type=float, metavar="SECONDS", help="refuse an answer whose thisUpdate is older"
        )
        one.add_argument("--allow-sha1", action="store_true", help="accept SHA-1 signatures (old test data)")


class _Add(Protocol):
    """What makes the parser of one command."""

    def __call__(self, name: str, about: str, *, live: str = "") -> argparse.ArgumentParser: ...


def _service_arguments(add: _Add) -> None:
    retry = add("retry", "finish or retry everything that is pending", live="seconds for each lineage")
    retry.add_argument(
        "lineage", nargs="*", metavar="NAME", help="deploy and prove these lineages, pending or not"
    )
    retry.add_argument(
        "--due",
        action="store_true",
        help="what the timer does: refresh staple files, retry what is pending and prove again what is "
        "deployed, each when its time has come",
    )
    alert = add("alert", "tell a person")
    alert.add_argument(
        "what",
        choices=["test", "unit"],
        help="test: send a test message through every channel; unit: a unit failed (systemd calls this)",
    )
    alert.add_argument("subject", nargs="?", metavar="NAME", help="one channel only; the unit that failed")
    setup = add(
        "setup",
        "find servers and lineages on this host, show the exact changes as a diff, apply them with --write",
    )
    setup.add_argument("--write", action="store_true", help="apply the changes, asking before each")
    setup.add_argument("--yes", action="store_true", help="ask nothing")
    setup.add_argument("--undo", action="store_true", help="take back everything that --write has changed")
    for name, about in (
        ("install", "units, certbot's hook entry, default configuration, state directory; twice is once"),
        ("uninstall", "remove what install wrote; staple files are withdrawn, generations stay"),
    ):
        one = add(name, about)
        one.add_argument("--root", metavar="DIR", help="work on a directory tree, as a packager does")
        if name == "install":
            one.add_argument("--program", metavar="PATH", help="what the units start (default: this program)")


def _renewal_arguments(add: _Add) -> None:
    hook = add(
        "hook",
        "what an ACME client calls after a renewal (certbot: --deploy-hook 'stapleguard hook'); finds out "
        "which one by the environment and the words that it gives, and hands the "
        "work over to its systemd unit where there is one",
        live="seconds for all of it; after them the verdict is final",
    )
    hook.add_argument("--wait", action="store_true", help="stay in the foreground until the verdict")
    _hook_arguments(hook)
    deploy = add(
        "deploy",
        "run the whole transaction now",
        live="seconds for all of it; after them the verdict is final",
    )
    deploy.add_argument(
        "lineage", help="a configured name, or a directory such as /etc/letsencrypt/live/example.org"
    )


def _looking_arguments(add: _Add) -> None:
    check = add(
        "check",
        "look at live handshakes, judge them, change nothing",
        live="seconds for all handshakes (default 20)",
    )
    check.add_argument(
        "what",
        nargs="*",
        metavar="NAME|HOST:PORT",
        help="lineages or endpoints; all deployed lineages without any",
    )
    fleet_arguments.add_check(check, _seconds)
    doctor = add(
        "doctor",
        "find out why a staple is missing or bad: the cause, what proves it, the exact fix; change nothing",
        live="seconds for the handshakes (default 6); the rest takes up to 10 more",
    )
    doctor.add_argument(
        "what",
        nargs="?",
        metavar="NAME|HOST:PORT",
        help="a lineage or an endpoint; all deployed lineages without it",
    )
    doctor.add_argument(
        "--bundle", metavar="FILE", help="write all that was seen, without secrets, for a colleague"
    )


def _keeping_arguments(add: _Add) -> None:
    add("status", "what is deployed and pending, certificate and staple life left")
    add("refresh", "renew primed staples that are past half their life", live="seconds for each lineage")
    add("recover", "finish or undo whatever a crash left behind", live="seconds for each lineage")
    rollback = add(
        "rollback", "put the previous good generation back, reload, prove it", live="seconds for the proof"
    )
    rollback.add_argument("lineage", help="the name of a deployed lineage")
    add(
        "rehearse",
        "a fire drill in a private lab: own CA, responder, resolver and nginx; no root, "
        "nothing of the host touched",
    )


def parser() -> argparse.ArgumentParser:
    """Build the command line; docs/reference/commands.md is generated from it."""
    top = _program()
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def add(name: str, about: str, *, live: str = "") -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        _common(one, live=live)
        return one

    _renewal_arguments(add)
    _looking_arguments(add)
    _keeping_arguments(add)
    _service_arguments(add)
    _ocsp_arguments(commands.add_parser("ocsp", help="the OCSP client and the judge alone"))
    exporter = commands.add_parser("exporter", help=EXPORTER, description=EXPORTER)
    fleet_arguments.add_exporter(exporter)
    explain = add("explain", "what a finding means, how it is recognised, how to fix it")
    explain.add_argument("code", nargs="?", metavar="CODE", help="a finding's code; all of them without one")
    return top


def settings(arguments: argparse.Namespace) -> Config:
    """Read the configuration that `--config` names and add what the command line says."""
    from stapleguard.config import networks, parse

    path = Path(arguments.config or DEFAULT_CONFIG)
    try:
        text = path.read_text(encoding="utf-8") if arguments.config or path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", "give another file with --config") from None
    read = parse(text, str(path))
    allowed = networks(getattr(arguments, "allow_address", []))
    return replace(read, allow_addresses=(*read.allow_addresses, *allowed))
