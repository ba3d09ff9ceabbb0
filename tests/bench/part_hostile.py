"""Thirty hostile peers among a thousand good endpoints: how much longer the good ones take."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stapleguard.engine.look import check_quickly
from stapleguard.inventory import Place
from stapleguard.model import Verdict

from bench import ours
from bench.figures import BenchError, Ratio, Report, Row, Sample, Variant, interleave, quotients
from bench.options import Options
from bench.stapled import NAME, StapledSite
from bench.usage import cpu

GOOD = 1000
HOSTILE = 30
_ALONE = f"{GOOD} good endpoints"
_AMONG = f"the same with {HOSTILE} hostile ones among them"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_HELLO_REQUESTS = b"\x16\x03\x03\x40\x00" + b"\x00\x00\x00\x00" * 4096
_WARNINGS = b"\x15\x03\x03\x00\x02\x01\x5a" * 512
_HALF_SERVER_HELLO = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(20)


async def _silent(streams: Streams) -> None:
    await streams[0].read()


async def _trickling(streams: Streams) -> None:
    streams[1].write(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03")
    while True:
        streams[1].write(b"\0")
        await streams[1].drain()
        await asyncio.sleep(0.02)


def _flooding(record: bytes) -> Callable[[Streams], Awaitable[None]]:
    async def flood(streams: Streams) -> None:
        await streams[0].read(4096)
        while not streams[1].is_closing():
            streams[1].write(record)
            await streams[1].drain()

    return flood


async def _half(streams: Streams) -> None:
    await streams[0].read(4096)
    streams[1].write(_HALF_SERVER_HELLO)
    await streams[0].read()


async def _plain(streams: Streams) -> None:
    streams[1].write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


_KINDS: Sequence[Callable[[Streams], Awaitable[None]]] = (
    _silent,
    _trickling,
    _half,
    _plain,
    _flooding(_HELLO_REQUESTS),
    _flooding(_WARNINGS),
)


async def _serve() -> None:
    """Serve each kind on a port of its own until standard input ends; say the ports."""

    async def open_(kind: Callable[[Streams], Awaitable[None]]) -> asyncio.Server:
        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                await kind((reader, writer))
            writer.close()

        return await asyncio.start_server(one, "127.0.0.1", 0)

    servers = [await open_(kind) for kind in _KINDS]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def _hostile() -> Iterator[Sequence[int]]:
    """Have the peers in a process of their own: in ours they would slow us down by their work, too."""
    argv = [sys.executable, str(Path(__file__).resolve())]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield json.loads(child.stdout.readline())
        finally:
            child.stdin.close()
            child.terminate()


def run(options: Options) -> Report:
    """Measure the time until the last good result came."""
    with (
        tempfile.TemporaryDirectory(prefix="stapleguard-bench-") as directory,
        StapledSite(Path(directory)) as site,
        _hostile() as ports,
    ):
        good = [Place("127.0.0.1", site.port, NAME)] * GOOD
        bad = [Place("127.0.0.1", ports[number % len(ports)], NAME) for number in range(HOSTILE)]
        among = [*good, *bad]
        random.Random(1).shuffle(among)
        world = ours.world(site.anchors)

        def look(places: Sequence[Place]) -> Sample:
            before, begun, seen, last = cpu(), perf_counter(), 0, 0.0
            for _, result in check_quickly(world, places):
                if result.verdict is Verdict.VERIFIED:
                    seen, last = seen + 1, perf_counter() - begun
            if seen != GOOD:
                raise BenchError(f"{seen} of {GOOD} good endpoints were found good")
            return Sample(last, GOOD, cpu() - before)

        variants = [Variant(_ALONE, lambda: look(good)), Variant(_AMONG, lambda: look(among))]
        taken = interleave(variants, options.rounds)
    report = Report("hostile", "peers that stall, trickle, flood or speak something else, on loopback")
    for label, samples in taken.items():
        report.rows.append(Row(f"{label}: the last good result", "s", [one.seconds for one in samples], 2))
    ratio = quotients([one.seconds for one in taken[_AMONG]], [one.seconds for one in taken[_ALONE]])
    report.ratios.append(Ratio("time of the good ones among hostile ones / alone", "<=", 1.1, ratio))
    return report


if __name__ == "__main__":
    asyncio.run(_serve())
