"""Arguments, wiring, and the one place that turns an error into words and an exit status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from stapleguard import __version__
from stapleguard.model import ExitStatus, Interrupted, StapleguardError, UsageError, escape

if TYPE_CHECKING:
    from stapleguard.config import Config
    from stapleguard.diagnosis import Result
    from stapleguard.engine.run import Budget
    from stapleguard.engine.world import World

DEFAULT_CONFIG: Final = "/etc/stapleguard/stapleguard.toml"
DEFAULT_STATE: Final = "/var/lib/stapleguard"

# What only one command needs is imported when it runs: a hook must start fast, and `explain` needs no
# OpenSSL.


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
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an RFC 3339 time: {escape(text)}") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def parser() -> argparse.ArgumentParser:
    """Build the command line; docs/reference/commands.md is generated from it."""
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
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def add(name: str, about: str, *, live: str = "") -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        _common(one, live=live)
        return one

    hook = add(
        "hook",
        "what an ACME client calls after a renewal (certbot: --deploy-hook 'stapleguard hook --wait')",
        live="seconds for all of it; after them the verdict is final",
    )
    hook.add_argument("--wait", action="store_true", help="stay in the foreground until the verdict")
    deploy = add(
        "deploy",
        "run the whole transaction now",
        live="seconds for all of it; after them the verdict is final",
    )
    deploy.add_argument(
        "lineage", help="a configured name, or a directory such as /etc/letsencrypt/live/example.org"
    )
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
    add("status", "what is deployed and pending, certificate and staple life left")
    add("retry", "finish or retry everything that is pending", live="seconds for each lineage")
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
    ocsp = commands.add_parser("ocsp", help="the OCSP client and the judge alone").add_subparsers(
        dest="ocsp", required=True, parser_class=_Parser
    )
    for name, about in (("fetch", "ask the certificate's responder"), ("verify", "judge a response")):
        one = ocsp.add_parser(name, help=about, description=about)
        _common(one, live="seconds for the exchange" if name == "fetch" else "")
        one.add_argument("--cert", required=True, metavar="LEAF.pem")
        one.add_argument("--issuer", required=True, metavar="ISSUER.pem")
        if name == "fetch":
            one.add_argument("--url", help="responder, instead of the certificate's own")
            one.add_argument("--out", metavar="FILE", help="keep the accepted answer (DER) here")
        else:
            one.add_argument("--response", required=True, metavar="R.der")
        one.add_argument(
            "--at", type=_moment, metavar="TIME", help="time of judgement (RFC 3339; default now)"
        )
        one.add_argument(
            "--max-age", type=float, metavar="SECONDS", help="refuse an answer whose thisUpdate is older"
        )
        one.add_argument("--allow-sha1", action="store_true", help="accept SHA-1 signatures (old test data)")
    explain = add("explain", "what a finding means, how it is recognised, how to fix it")
    explain.add_argument("code", nargs="?", metavar="CODE", help="a finding's code; all of them without one")
    return top


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command; the only place that ends the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupted)
    verbose = False
    try:
        arguments = parser().parse_args(argv)
        verbose = arguments.verbose
        status = _COMMANDS[arguments.command](arguments)
    except StapleguardError as error:
        if verbose:
            raise
        _say(f"error: {error.message}")
        if error.hint:
            _say(f"hint: {error.hint}")
        status = int(error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = int(ExitStatus.BUG)
    sys.exit(status)


def _interrupted(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(
        f"interrupted by {signal.Signals(number).name}",
        "run `stapleguard recover` to finish or undo what was begun",
    )


def _say(text: str) -> None:
    sys.stderr.write(f"stapleguard: {text}\n")


# --- wiring ----------------------------------------------------------------------------------------------


def _settings(arguments: argparse.Namespace) -> Config:
    from stapleguard.config import networks, parse

    path = Path(arguments.config or DEFAULT_CONFIG)
    try:
        text = path.read_text(encoding="utf-8") if arguments.config or path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", "give another file with --config") from None
    settings = parse(text, str(path))
    allowed = networks(getattr(arguments, "allow_address", []))
    return replace(settings, allow_addresses=(*settings.allow_addresses, *allowed))


def _world(arguments: argparse.Namespace) -> World:
    from stapleguard.disk import StateDirectory
    from stapleguard.engine.world import World
    from stapleguard.host import SystemClock
    from stapleguard.wire.trust import anchors_from_file, system_anchors

    settings = _settings(arguments)
    anchors_path = getattr(arguments, "ca_file", None) or settings.anchors
    anchors = anchors_from_file(anchors_path) if anchors_path else system_anchors()
    clock = SystemClock()
    state = StateDirectory(Path(os.path.abspath(arguments.state_dir)))  # noqa: PTH100 - links in it are the user's choice
    listener = _listener(arguments)
    return World(clock, settings, state, anchors, listener, clock.monotonic())


def _listener(arguments: argparse.Namespace) -> Callable[..., None]:
    from stapleguard.engine.world import Step
    from stapleguard.report import colour

    def tell(step: Step) -> None:
        if not arguments.quiet:
            mark = colour(escape(step.text, 500), step.tone.value, sys.stderr)
            sys.stderr.write(f"{step.seconds:7.2f} s  {mark}\n")

    return tell


def _budget(arguments: argparse.Namespace, world: World) -> Budget:
    from stapleguard.engine.run import Budget

    settings = world.config
    if arguments.timeout:
        return Budget(
            arguments.timeout, arguments.timeout, min(arguments.timeout / 2, settings.responder_patience)
        )
    return Budget(settings.prove_timeout, settings.responder_wait, settings.responder_patience)


def _locked(world: World) -> AbstractContextManager[None]:
    world.state.prepare()
    return world.state.lock()


def _end(arguments: argparse.Namespace, result: Result) -> int:
    from stapleguard import report

    if arguments.command in ("hook", "deploy", "retry", "recover", "rollback"):
        report.to_journal(result, uuid.uuid4().hex)
    if arguments.json:
        report.print_json(report.as_json(result))
    else:
        sys.stdout.write(report.as_text(result, sys.stdout) + "\n")
    return int(result.status)


# --- commands --------------------------------------------------------------------------------------------


def _deploy_named(arguments: argparse.Namespace, name: str, sources: Sequence[str], command: str) -> int:
    from stapleguard.diagnosis import Result
    from stapleguard.disk import DiskFault
    from stapleguard.engine.deploy import deploy
    from stapleguard.engine.undo import recover
    from stapleguard.model import Verdict

    world = _world(arguments)
    budget = _budget(arguments, world)
    try:
        with _locked(world):
            recover(world, budget)
            result = deploy(world, name, sources, budget)
    except DiskFault as fault:
        _say(f"error: {fault.message}")
        _say(f"hint: {fault.hint}")
        result = Result("deploy", Verdict.REFUSED, fault.code, (fault.finding,), (), {"lineage": name})
    return _end(arguments, replace(result, command=command))


def _hook(arguments: argparse.Namespace) -> int:
    from stapleguard.clients import certbot

    renewal = certbot.renewal(os.environ)
    name, sources = _sources(arguments, renewal.directory)
    return _deploy_named(arguments, name, sources, "hook")


def _deploy(arguments: argparse.Namespace) -> int:
    name, sources = _sources(arguments, arguments.lineage)
    return _deploy_named(arguments, name, sources, "deploy")


def _sources(arguments: argparse.Namespace, what: str) -> tuple[str, tuple[str, ...]]:
    """Find the lineage that a name or a directory means, and where its files come from."""
    from stapleguard.config import NAME

    settings = _settings(arguments)
    if "/" not in what and what in settings.lineages:
        if not settings.lineage(what).sources:
            raise UsageError(
                f"{what} has no sources", f'add sources = ["/etc/letsencrypt/live/{what}"] to its table'
            )
        return what, settings.lineage(what).sources
    directory = os.path.abspath(what)  # noqa: PTH100 - the links of live/ must not be followed
    owner = settings.owner_of(directory)
    if owner is not None:
        return owner, settings.lineage(owner).sources
    if not Path(directory).is_dir():
        raise UsageError(
            f"neither a configured lineage nor a directory: {escape(what)}",
            "give a directory such as /etc/letsencrypt/live/example.org",
        )
    name = Path(directory).name
    if NAME.fullmatch(name) is None:
        raise UsageError(
            f"a lineage cannot be called {escape(name)}",
            "configure a name for it: [lineage.NAME] sources = [...]",
        )
    return name, settings.lineage(name).sources or (directory,)


def _check(arguments: argparse.Namespace) -> int:
    from stapleguard import diagnosis
    from stapleguard.diagnosis import Result
    from stapleguard.engine.check import check_address, check_lineage

    world = _world(arguments)
    timeout = arguments.timeout or 20.0
    results: list[Result] = []
    known = {*world.state.lineages(), *world.config.lineages}
    for what in arguments.what or sorted(known):
        if what in known:
            results.append(check_lineage(world, what, world.config.lineage(what).sources, timeout))
        elif ":" in what:
            results.append(check_address(world, what, arguments.sni, arguments.address, timeout))
        else:
            raise UsageError(
                f"neither a deployed lineage nor HOST:PORT: {escape(what)}",
                "run `stapleguard status` to see what is deployed",
            )
    if not results:
        raise UsageError(
            "nothing to check: no lineage is deployed or configured",
            "name an endpoint, such as example.org:443",
        )
    worst = max(results, key=lambda one: one.status)
    findings = diagnosis.unique(found for one in results for found in one.findings)
    strands = tuple(strand for one in results for strand in one.strands)
    return _end(arguments, Result("check", worst.verdict, worst.cause, findings, strands))


def _status(arguments: argparse.Namespace) -> int:
    from stapleguard.engine.status import status
    from stapleguard.report import print_json

    told = status(_world(arguments))
    if arguments.json:
        print_json(told.json)
    else:
        sys.stdout.write(told.text + "\n")
    return int(ExitStatus.OK)


def _retry(arguments: argparse.Namespace) -> int:
    from stapleguard.diagnosis import Result
    from stapleguard.engine.deploy import deploy
    from stapleguard.engine.undo import recover
    from stapleguard.model import Verdict

    world = _world(arguments)
    budget = _budget(arguments, world)
    results: list[Result] = []
    with _locked(world):
        recover(world, budget)
        for name, entry in world.state.queue().items():
            listed = entry.get("sources")
            found = tuple(str(one) for one in listed) if isinstance(listed, list) else ()
            sources = world.config.lineage(name).sources or found
            results.append(deploy(world, name, sources, budget))
    if not results:
        return _end(arguments, Result("retry", Verdict.VERIFIED, extra={"retried": []}))
    worst = max(results, key=lambda one: one.status)
    return _end(arguments, replace(worst, command="retry"))


def _recover(arguments: argparse.Namespace) -> int:
    from stapleguard.engine.undo import recover

    world = _world(arguments)
    with _locked(world):
        result = recover(world, _budget(arguments, world))
    return _end(arguments, result)


def _rollback(arguments: argparse.Namespace) -> int:
    from stapleguard.engine.undo import recover, rollback

    world = _world(arguments)
    budget = _budget(arguments, world)
    with _locked(world):
        recover(world, budget)
        result = rollback(world, arguments.lineage, budget)
    return _end(arguments, result)


def _rehearse(arguments: argparse.Namespace) -> int:
    from stapleguard.rehearsal.acts import rehearse

    return rehearse(
        sys.stderr if arguments.json else sys.stdout, as_json=arguments.json, quiet=arguments.quiet
    )


def _explain(arguments: argparse.Namespace) -> int:
    from stapleguard.finding import CATALOGUE, Code
    from stapleguard.report import print_json

    if arguments.code is None:
        for code, entry in CATALOGUE.items():
            sys.stdout.write(f"{code.value:<42} {entry.title}\n")
        return int(ExitStatus.OK)
    import difflib

    try:
        code = Code(arguments.code)
    except ValueError:
        near = difflib.get_close_matches(arguments.code, [one.value for one in Code], n=1, cutoff=0)
        raise UsageError(f"no such finding: {escape(arguments.code)}", f"did you mean {near[0]}?") from None
    entry = CATALOGUE[code]
    if arguments.json:
        print_json(
            {
                "schema": "stapleguard.explain/1",
                "code": code.value,
                "severity": entry.severity.value,
                "title": entry.title,
                "recognised": entry.recognised,
                "remedy": entry.remedy,
                "reference": entry.reference,
            }
        )
    else:
        from stapleguard.report import steps

        what_to_do = "\n".join(f"  {step}" for step in steps(entry.remedy))
        sys.stdout.write(f"{code.value}  ({entry.severity.value})\n{entry.title}\n\n")
        sys.stdout.write(f"recognised\n  {entry.recognised}\n")
        sys.stdout.write(f"\nwhat to do\n{what_to_do}\n\nsource\n  {entry.reference}\n")
    return int(ExitStatus.OK)


def _ocsp(arguments: argparse.Namespace) -> int:
    from cryptography import x509

    from stapleguard import ocsp
    from stapleguard.disk import read_bounded
    from stapleguard.finding import Finding
    from stapleguard.report import finding_json, print_json

    def certificate(path: str) -> x509.Certificate:
        data = read_bounded(Path(path))
        if isinstance(data, Finding):
            raise UsageError(data.message, "give a PEM certificate")
        try:
            return x509.load_pem_x509_certificate(data)
        except ValueError:
            raise UsageError(
                f"{escape(path)} holds no PEM certificate", "convert DER with `openssl x509 -inform der`"
            ) from None

    leaf, issuer = certificate(arguments.cert), certificate(arguments.issuer)
    if arguments.max_age is not None and not 0 <= arguments.max_age <= 315_360_000:
        raise UsageError("--max-age must be a number of seconds from 0 to ten years")
    rules = ocsp.Rules(arguments.max_age, ocsp.Sha1.ALLOWED if arguments.allow_sha1 else ocsp.Sha1.REFUSED)
    now = arguments.at or datetime.now(UTC)
    findings: tuple[Finding, ...] = ()
    judgement = None
    if arguments.ocsp == "verify":
        try:
            with Path(arguments.response).open("rb") as file:
                der = file.read(ocsp.MAX_RESPONSE + 1)
        except OSError as error:
            raise UsageError(f"cannot read {escape(arguments.response)}: {error.strerror}") from None
    else:
        from stapleguard.material import leaf_facts
        from stapleguard.wire.fetch import ocsp_exchange

        world = _world(arguments)
        policy = world.fetch_policy
        policy = replace(policy, timeout=arguments.timeout or policy.timeout)
        urls = (arguments.url,) if arguments.url else leaf_facts(leaf).ocsp_urls
        if not urls:
            raise UsageError(
                "the certificate names no OCSP responder",
                "give one with --url; since 2025 many certificates have none",
            )
        fetched = ocsp_exchange(urls[0], ocsp.request(leaf, issuer), policy)
        findings, der = fetched.findings, fetched.body or b""
    if arguments.ocsp == "verify" or der:
        judgement = ocsp.judge(der, leaf, issuer, now, rules)
        findings = (*findings, *judgement.findings)
    accepted = judgement is not None and judgement.acceptance is ocsp.Acceptance.ACCEPTED
    if accepted and arguments.ocsp == "fetch" and arguments.out:
        from stapleguard.disk import replace_file

        replace_file(Path(os.path.abspath(arguments.out)), der)  # noqa: PTH100 - a link stays the user's
    status = judgement.status.value if judgement is not None and judgement.status else None
    if arguments.json:
        times = {
            "this_update": judgement.this_update.isoformat() if judgement and judgement.this_update else None,
            "next_update": judgement.next_update.isoformat() if judgement and judgement.next_update else None,
        }
        print_json(
            {
                "schema": f"stapleguard.ocsp-{arguments.ocsp}/1",
                "status": status,
                "acceptable": accepted,
                "exit": 0 if accepted else 3,
                **times,
                "findings": [finding_json(one) for one in findings],
            }
        )
    else:
        sys.stdout.write(f"{status or 'no status'}, {'acceptable' if accepted else 'not acceptable'}\n")
        for one in findings:
            sys.stdout.write(f"  {one.severity.value:<8} {one.code.value}: {one.message}\n")
    return int(ExitStatus.OK if accepted else ExitStatus.DEGRADED)


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "hook": _hook,
    "deploy": _deploy,
    "check": _check,
    "status": _status,
    "retry": _retry,
    "recover": _recover,
    "rollback": _rollback,
    "rehearse": _rehearse,
    "ocsp": _ocsp,
    "explain": _explain,
}
