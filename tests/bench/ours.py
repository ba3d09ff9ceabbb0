"""Our prober, as the benchmark calls it: the one place to change when the prober does.

As a program it does a job from standard input, in a process and a memory of its own (programs.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from stapleguard.config import Config
from stapleguard.disk import StateDirectory
from stapleguard.engine.look import check_quickly
from stapleguard.engine.world import World
from stapleguard.host import SystemClock
from stapleguard.inventory import Place
from stapleguard.model import Endpoint, Verdict
from stapleguard.wire.handshake import Limits
from stapleguard.wire.trust import anchors_from_file

from bench.usage import cpu, peak

PYTHON = sys.executable
PROGRAM = [str(Path(sys.executable).with_name("stapleguard"))]
"""The command as it is installed beside this Python."""
CONCURRENCY = Limits().concurrency
"""How many handshakes run at once at most where nobody says otherwise."""


def world(anchors: Path) -> World:
    """Make the world that a `check` sees with these anchors."""
    clock = SystemClock()
    # The state directory is named and never made: nothing here deploys.
    state = StateDirectory(anchors.parent / "no-state")
    return World(clock, Config(), state, anchors_from_file(str(anchors)), lambda _: None, clock.monotonic())


class Ours:
    """One sweep over these endpoints, as `check --quick` makes it."""

    def __init__(self, anchors: Path, endpoints: Sequence[Endpoint]) -> None:
        self._world = world(anchors)
        self.waited = 0.0
        self._places = [Place(one.host, one.port, one.server_name, (one.address,)) for one in endpoints]

    def verify(self) -> int:
        """Make one handshake with each endpoint and judge it in full; how many were good."""
        good, self.waited = 0, 0.0
        for _, result in check_quickly(self._world, self._places):
            good += result.verdict is Verdict.VERIFIED
            self.waited += sum(
                one.observation.seconds for strand in result.strands for one in strand.sightings
            )
        return good


def endpoints_of(places: Sequence[str], name: str) -> list[Endpoint]:
    """Turn ADDRESS:PORT into endpoints."""
    split = (place.rpartition(":") for place in places)
    return [Endpoint(name, int(port), name, address) for address, _, port in split]


def main() -> None:
    """Do the job on standard input."""
    job = json.load(sys.stdin)
    ours = Ours(Path(job["anchors"]), endpoints_of(job["endpoints"], job["name"]))
    before, begun = cpu(), perf_counter()
    good = ours.verify()
    seconds = perf_counter() - begun
    took = {"seconds": seconds, "cpu": cpu() - before, "good": good, "memory": peak()}
    took["at_once"] = ours.waited / seconds
    json.dump(took, sys.stdout)


if __name__ == "__main__":
    main()
