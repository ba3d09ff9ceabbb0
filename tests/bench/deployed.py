"""A site that is deployed to: its nginx, its renewals, and what a run's timeline says of the proof."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from site_lab import NAME, Site

from bench.stapled import nginx_binary

_STEP = re.compile(r"^\s*(\d+\.\d+) s\s+(reloaded nginx|proved: .*)$", re.MULTILINE)


class BenchSite(Site):
    """A site with the waiting times that a user has (the tests shorten one)."""

    reuseport = False

    def configure(self, policy: str = "", more: str = "") -> None:
        super().configure(policy, more)
        config = self.directory / "c.toml"
        config.write_text(config.read_text().replace("quiet = 1.5\n", ""))

    def block(self) -> str:
        block = super().block()
        return block.replace(" ssl;", " ssl reuseport;", 1) if self.reuseport else block

    def proof(self) -> float | None:
        """Deploy the renewal that is there; the seconds from the reload to the proof, to 10 ms.

        None when it ended without a proof.
        """
        ended = self.run("deploy", str(self.lineage))
        steps: dict[str, float] = {}
        for at, text in _STEP.findall(ended.err):
            # Of two reloads the first: what a second one costs belongs to the proof.
            steps.setdefault(text.partition(":")[0], float(at))
        if ended.status == 0 and len(steps) == 2:
            return steps["proved"] - steps["reloaded nginx"]
        print(f"bench: no proof, status {ended.status}\n{ended.err}{ended.out}", file=sys.stderr)
        return None


@contextmanager
def opened(workers: int, *, reuseport: bool = False, policy: str = "") -> Iterator[BenchSite]:
    """A site that serves its first certificate; `policy` are lines of the [policy] table."""
    with (
        tempfile.TemporaryDirectory(prefix="stapleguard-bench-") as directory,
        closing(BenchSite(nginx_binary(), Path(directory), workers)) as site,
    ):
        site.reuseport = reuseport
        site.configure(policy)
        site.open()
        yield site


__all__ = ["NAME", "BenchSite", "opened"]
