"""`check`: where the endpoints come from, and in which of its forms the outcome is told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stapleguard import inventory, report
from stapleguard.cli.progress import bar
from stapleguard.diagnosis import Result
from stapleguard.disk import replace_file
from stapleguard.engine.fleet import each
from stapleguard.engine.look import check_quickly, look
from stapleguard.engine.world import World
from stapleguard.inventory import MAX_TEXT, Place
from stapleguard.model import Depth, UsageError, escape

if TYPE_CHECKING:
    from stapleguard.report.readings import Reading

TIMEOUT: Final = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing to look at: a place, or a lineage by its name."""

    number: int
    what: Place | str

    def __str__(self) -> str:
        return str(self.what)

    @property
    def place(self) -> Place:
        """What stands for it where nothing could be looked at."""
        return Place(self.what, 0) if isinstance(self.what, str) else self.what


def check(arguments: argparse.Namespace, world: World) -> int:
    """Look at everything that was asked for and tell of it; return the exit status."""
    _one_form(arguments)
    asked = _asked(arguments, world)
    target = _metrics_file(arguments)
    if arguments.watch is not None:
        from stapleguard.cli.watch import watch
        from stapleguard.report.readings import readings

        quiet = replace(world, listener=lambda _step: None)

        def rounds() -> Iterator[tuple[int, tuple[Reading, ...]]]:
            for one, result in _looks(arguments, quiet, asked):
                yield one.number, readings(result, one.place)

        return watch(
            rounds, len(asked), arguments.watch, world.clock, lambda seen: _write_metrics(target, seen)
        )
    if len(asked) == 1 and not (arguments.jsonl or arguments.nagios):
        return _one(arguments, world, asked[0], target)
    return _many(arguments, world, asked, target)


def _one_form(arguments: argparse.Namespace) -> None:
    forms = [name for name in ("json", "jsonl", "nagios") if getattr(arguments, name)]
    forms += ["watch"] if arguments.watch is not None else []
    if arguments.sni and arguments.no_sni:
        raise UsageError("--sni and --no-sni exclude each other", "choose one")
    if len(forms) > 1:
        raise UsageError(f"--{forms[0]} and --{forms[1]} exclude each other", "choose one")


# --- what to look at -------------------------------------------------------------------------------------


def _asked(arguments: argparse.Namespace, world: World) -> list[Asked]:
    known = {*world.state.lineages(), *world.config.lineages}
    what: list[Place | str] = []
    for text in arguments.what or ([] if arguments.file else sorted(known)):
        if text not in known and ":" not in text:
            raise UsageError(
                f"neither a deployed lineage nor HOST:PORT: {escape(text)}",
                "run `stapleguard status` to see what is deployed",
            )
        what.append(text if text in known else _argument(arguments, text))
    if arguments.file and arguments.address:
        raise UsageError("--address does not go with --file", "name the endpoint as an argument")
    for file in arguments.file:
        places = inventory.parse(_read(file), file, arguments.format)
        if not places:
            raise UsageError(f"{escape(file)} names no endpoint", "write HOST[:PORT], one a line")
        what += [
            replace(one, server_name=None if arguments.no_sni else one.server_name or arguments.sni)
            for one in places
        ]
    if not what:
        raise UsageError(
            "nothing to check: no lineage is deployed or configured",
            "name an endpoint, such as example.org:443",
        )
    return [Asked(number, one) for number, one in enumerate(what)]


def _argument(arguments: argparse.Namespace, text: str) -> Place:
    found = inventory.place(text)
    name = inventory.server_name(arguments.sni) if arguments.sni else ""
    asked = None if arguments.no_sni else name
    return replace(found, server_name=asked, addresses=tuple(arguments.address))


def _read(file: str) -> str:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(4 * MAX_TEXT + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(4 * MAX_TEXT + 1)
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{escape(file)} is not UTF-8 (byte {error.start})", "convert it with iconv"
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot read {escape(file)}: {error.strerror}", "give a file, or - for stdin"
        ) from None


def _depth(arguments: argparse.Namespace) -> Depth:
    """Choose how much is looked at: of a list, one handshake for each address, unless said otherwise."""
    if arguments.depth is not None:
        return Depth(arguments.depth)
    return Depth.QUICK if arguments.file else Depth.THOROUGH


def _looker(arguments: argparse.Namespace, world: World) -> Callable[[Asked], Result]:
    timeout, depth = arguments.timeout or TIMEOUT, _depth(arguments)

    def look_at(asked: Asked) -> Result:
        if isinstance(asked.what, str):
            from stapleguard.engine.check import check_lineage
            from stapleguard.engine.upkeep import standing_sources_of

            return check_lineage(world, asked.what, standing_sources_of(world, asked.what), timeout)
        return look(world, asked.what, timeout, depth)

    return look_at


def _looks(
    arguments: argparse.Namespace, world: World, asked: Sequence[Asked]
) -> Iterator[tuple[Asked, Result]]:
    """Look at everything: what is thorough side by side, what is quick in one sweep of many handshakes."""
    quick = [one for one in asked if isinstance(one.what, Place)] if _depth(arguments) is Depth.QUICK else []
    swept = {one.number for one in quick}
    yield from each([one for one in asked if one.number not in swept], _looker(arguments, world))
    places = (one.what for one in quick if isinstance(one.what, Place))
    for number, result in check_quickly(world, places, arguments.timeout):
        yield quick[number], result


# --- how it is told --------------------------------------------------------------------------------------


def _one(arguments: argparse.Namespace, world: World, asked: Asked, target: Path | None) -> int:
    result = _looker(arguments, world)(asked)
    if not arguments.json:
        sys.stdout.write(report.as_text(result, sys.stdout) + "\n")
    if arguments.json or target is not None:
        # Apart from the text, for which a person waits, and which needs none of it.
        from stapleguard.report import fleet
        from stapleguard.report.readings import readings

        seen = readings(result, asked.place)
        if arguments.json:
            report.print_json(fleet.as_json(seen, result))
        _write_metrics(target, seen)
    return int(result.status)


def _many(arguments: argparse.Namespace, world: World, asked: Sequence[Asked], target: Path | None) -> int:
    from stapleguard.report import fleet, nagios
    from stapleguard.report.readings import readings, summary

    begun = world.clock.monotonic()
    kept: dict[int, tuple[Reading, ...]] = {}
    verdicts = []
    worst: Result | None = None
    quiet = replace(world, listener=lambda _step: None)
    with ExitStack() as stack:
        advance = stack.enter_context(bar(len(asked), sys.stderr)) if _bar_wanted(arguments, asked) else None
        for one, result in _looks(arguments, quiet, asked):
            seen = readings(result, one.place)
            if worst is None or result.status > worst.status:
                worst = replace(result, strands=())
            verdicts += [reading.verdict for reading in seen]
            if arguments.jsonl:
                for reading in seen:
                    sys.stdout.write(fleet.json_line(reading))
                    sys.stdout.flush()
            if target is not None or not arguments.jsonl:
                kept[one.number] = seen
            if advance is not None:
                advance()
    assert worst is not None  # noqa: S101 - _asked() refuses to look at nothing
    in_order = [reading for number in sorted(kept) for reading in kept[number]]
    if arguments.nagios:
        _write_metrics(target, in_order)  # first: should that fail, there is one line all the same
        limits = nagios.Thresholds(timedelta(days=arguments.warning), timedelta(days=arguments.critical))
        state, text = nagios.line(in_order, limits, world.clock.now())
        sys.stdout.write(text + "\n")
        return int(state)
    if arguments.json:
        report.print_json(fleet.as_json(in_order, worst))
    elif not arguments.jsonl:
        sys.stdout.write(fleet.as_text(in_order, sys.stdout) + "\n")
    elif not arguments.quiet:
        took = world.clock.monotonic() - begun
        sys.stderr.write(f"stapleguard: {summary(verdicts)}; {took:.1f} s\n")
    _write_metrics(target, in_order)
    return int(worst.status)


def _bar_wanted(arguments: argparse.Namespace, asked: Sequence[Asked]) -> bool:
    if arguments.quiet or len(asked) < 2 or not sys.stderr.isatty():
        return False
    return not (arguments.jsonl and sys.stdout.isatty())  # the lines themselves are the progress there


def _metrics_file(arguments: argparse.Namespace) -> Path | None:
    if arguments.metrics is None:
        return None
    path = Path(os.path.abspath(arguments.metrics))  # noqa: PTH100 - a link stays the user's
    if path.suffix != ".prom" or not path.parent.is_dir():
        raise UsageError(
            f"cannot write metrics to {escape(arguments.metrics)}",
            "give a file that ends in .prom, in a directory that exists: node_exporter reads no other",
        )
    return path


def _write_metrics(target: Path | None, seen: Sequence[Reading]) -> None:
    if target is not None:
        from stapleguard.report.metrics import exposition

        replace_file(target, exposition(seen), mode=0o644)
