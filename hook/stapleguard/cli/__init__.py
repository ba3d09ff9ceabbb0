"""Arguments, wiring, and the one place that turns an error into words and an exit status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from stapleguard.cli.arguments import parser, settings
from stapleguard.model import ExitStatus, Interrupted, StapleguardError, UsageError, escape

if TYPE_CHECKING:
    from stapleguard.diagnosis import Result
    from stapleguard.engine.run import Budget
    from stapleguard.engine.world import World

# What only one command needs is imported when it runs: a hook must start fast, and `explain` needs no
# OpenSSL.


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
            traceback.print_exc()
        status = _told(error, sys.argv if argv is None else argv)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = int(ExitStatus.BUG)
    sys.exit(status)


def _told(error: StapleguardError, argv: Sequence[str]) -> int:
    """Say what went wrong; return the exit status for it."""
    _say(f"error: {error.message}")
    if error.hint:
        _say(f"hint: {error.hint}")
    if "--nagios" not in argv:
        return int(error.exit_status)
    # To a monitoring system 2 would be an alarm about the site, and it reads stdout only.
    from stapleguard.report import nagios

    sys.stdout.write(nagios.unknown(error.message) + "\n")
    return int(nagios.State.UNKNOWN)


def _interrupted(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(
        f"interrupted by {signal.Signals(number).name}",
        "run `stapleguard recover` to finish or undo what was begun",
    )


def _say(text: str) -> None:
    sys.stderr.write(f"stapleguard: {text}\n")


# --- wiring ----------------------------------------------------------------------------------------------


def _world(arguments: argparse.Namespace) -> World:
    from stapleguard.disk import StateDirectory
    from stapleguard.engine.world import Narrowed, World
    from stapleguard.host import SystemClock
    from stapleguard.wire.trust import anchors_from_file, system_anchors

    config = settings(arguments)
    anchors_path = getattr(arguments, "ca_file", None) or config.anchors
    anchors = anchors_from_file(anchors_path) if anchors_path else system_anchors()
    clock = SystemClock()
    state = StateDirectory(Path(os.path.abspath(arguments.state_dir)))  # noqa: PTH100 - links in it are the user's choice
    listener = _listener(arguments)
    narrowed = Narrowed(getattr(arguments, "sni", None) or "", tuple(getattr(arguments, "address", ())))
    return World(clock, config, state, anchors, listener, clock.monotonic(), narrowed)


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
    if getattr(arguments, "timeout", None):
        return Budget(
            arguments.timeout, arguments.timeout, min(arguments.timeout / 2, settings.responder_patience)
        )
    return Budget(settings.prove_timeout, settings.responder_wait, settings.responder_patience)


def _locked(world: World) -> AbstractContextManager[None]:
    world.state.prepare()
    return world.state.lock()


def _end(arguments: argparse.Namespace, result: Result, world: World | None = None) -> int:
    """Print a result; with the `world` that it changed the journal is told, too."""
    from stapleguard import report

    if world is not None:
        from stapleguard.cli.telling import Teller, deliver, tell

        tell(world, result)
        deliver(Teller(world.state, world.config, world.clock))
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
            world.state.take(name)
            result = deploy(world, name, sources, budget)
    except DiskFault as fault:
        _say(f"error: {fault.message}")
        _say(f"hint: {fault.hint}")
        result = Result("deploy", Verdict.REFUSED, fault.code, (fault.finding,), (), {"lineage": name})
    return _end(arguments, replace(result, command=command), world)


def _hook(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.hook import hook

    return hook(arguments)


def _deploy(arguments: argparse.Namespace) -> int:
    name, sources = _sources(arguments, arguments.lineage)
    return _deploy_named(arguments, name, sources, "deploy")


def _sources(arguments: argparse.Namespace, what: str) -> tuple[str, tuple[str, ...]]:
    """Find the lineage that a name or a directory means, and where its files come from."""
    from stapleguard.config import NAME

    known = settings(arguments)
    if "/" not in what and what in known.lineages:
        if not known.lineage(what).sources:
            raise UsageError(
                f"{what} has no sources", f'add sources = ["/etc/letsencrypt/live/{what}"] to its table'
            )
        return what, known.lineage(what).sources
    directory = os.path.abspath(what)  # noqa: PTH100 - the links of live/ must not be followed
    owner = known.owner_of(directory)
    if owner is not None:
        return owner, known.lineage(owner).sources
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
    return name, known.lineage(name).sources or (directory,)


def _check(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.fleet import check

    return check(arguments, _world(arguments))


def _doctor(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.doctor import doctor

    return doctor(arguments, _world(arguments))


def _status(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.overview import status_command

    return status_command(arguments, _world(arguments))


def _retry(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.service import retry

    return retry(arguments)


def _refresh(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.service import refresh_command

    return refresh_command(arguments)


def _recover(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.service import recover_command

    return recover_command(arguments)


def _alert(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.alert import alert

    return alert(arguments)


def _install(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.install import install

    return install(arguments)


def _uninstall(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.install import uninstall

    return uninstall(arguments)


def _setup(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.setup import setup_command

    return setup_command(arguments)


def _rollback(arguments: argparse.Namespace) -> int:
    from stapleguard.engine.undo import recover, rollback

    world = _world(arguments)
    budget = _budget(arguments, world)
    with _locked(world):
        recover(world, budget)
        result = rollback(world, arguments.lineage, budget)
    return _end(arguments, result, world)


def _rehearse(arguments: argparse.Namespace) -> int:
    from stapleguard.rehearsal.acts import rehearse

    return rehearse(
        sys.stderr if arguments.json else sys.stdout, as_json=arguments.json, quiet=arguments.quiet
    )


def _explain(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.answers import explain

    return explain(arguments)


def _ocsp(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.answers import ocsp_command

    return ocsp_command(arguments)


def _exporter(arguments: argparse.Namespace) -> int:
    from stapleguard.cli.exporter import run

    return run(arguments, _world(arguments))


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "hook": _hook,
    "deploy": _deploy,
    "check": _check,
    "doctor": _doctor,
    "status": _status,
    "retry": _retry,
    "refresh": _refresh,
    "recover": _recover,
    "rollback": _rollback,
    "rehearse": _rehearse,
    "alert": _alert,
    "setup": _setup,
    "install": _install,
    "uninstall": _uninstall,
    "ocsp": _ocsp,
    "explain": _explain,
    "exporter": _exporter,
}
