"""Measure on a real nginx: the proof beside the floor that nginx itself sets, and cold starts.

Everything is interleaved, so that a slow minute of the machine falls on all alike; medians are printed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic

HERE = Path(__file__).resolve().parent
for wanted, directory in (("stapleguard", HERE.parent / "hook"), ("site_lab", HERE / "server")):
    if importlib.util.find_spec(wanted) is None:
        sys.path.insert(0, str(directory))
        # The programs that are measured need it too.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(directory), os.getenv("PYTHONPATH"))))

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import serialization  # noqa: E402
from site_lab import NAME, Site  # noqa: E402
from stapleguard import host, ocsp  # noqa: E402
from stapleguard.model import Ask, Endpoint, Observation  # noqa: E402
from stapleguard.rehearsal.authority import Issued  # noqa: E402
from stapleguard.rehearsal.webserver import find_nginx  # noqa: E402
from stapleguard.servers import Instance, nginx  # noqa: E402
from stapleguard.wire.handshake import Limits, observe  # noqa: E402

ROUNDS = 7
WORKERS = 4
BURST = 2 * WORKERS
GIVE_UP = 10.0
STEP = re.compile(r"^\s*(\d+\.\d+) s\s+(reloaded nginx|proved: .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Floor:
    """Seconds: for the command, and from its end until each new worker was seen to staple."""

    command: float
    seen: float


def main() -> int:
    binary = find_nginx()
    if binary is None:
        print("bench: there is no nginx on this host", file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory(prefix="stapleguard-bench-") as directory,
        closing(Site(binary, Path(directory), WORKERS)) as site,
    ):
        measure(site)
    return 0


def measure(site: Site) -> None:
    # The tests shorten how long a proof waits for news; what is measured is what a user gets.
    config = site.directory / "c.toml"
    config.write_text(config.read_text().replace("quiet = 1.5\n", ""))
    site.open()
    (instance,) = nginx.instances(site.binary, str(site.nginx.config))
    floors: list[Floor] = []
    proofs: list[float] = []
    starts: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        issued = site.renew()
        took = proof(site)
        if took is not None:
            proofs.append(took)
        floors.append(floor(site, instance, issued))
        for label, run in cold_starts(site).items():
            starts.setdefault(label, []).append(run())
    if not proofs:
        raise SystemExit("bench: no deployment was proved")
    commands, seen = [one.command for one in floors], [one.seen for one in floors]
    rows = [
        ("`nginx -s reload`, the command", commands),
        ("floor: from its end to a good staple from every worker", seen),
        ('deploy: from "reloaded nginx" to "proved"', proofs),
        *starts.items(),
    ]
    print(f"CPUs {os.cpu_count()}, Python {platform.python_version()}, nginx {instance.version}", end="")
    print(f" with {WORKERS} workers; {ROUNDS} interleaved rounds, milliseconds\n")
    print(table(rows))
    print(f"\nproved: {len(proofs)} of {ROUNDS} deployments; the others are not in the figures")
    print(f"deploy / floor: {median(proofs) / median(seen):.2f}")


def table(rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    width = max(len(label) for label, _ in rows)
    lines = [f"{'':{width}}  {'median':>7}  {'min':>7}  {'max':>7}"]
    for label, seconds in rows:
        figures = (median(seconds), min(seconds), max(seconds))
        lines.append("  ".join([f"{label:{width}}", *(f"{one * 1000:7.0f}" for one in figures)]))
    return "\n".join(lines)


def floor(site: Site, instance: Instance, issued: Issued) -> Floor:
    """Reload without us, and look as often as we can until each new worker has stapled."""
    before = set(nginx.workers(instance))
    asks = [Ask(Endpoint(NAME, site.port, NAME, "127.0.0.1"))] * BURST
    begun = monotonic()
    reload = [instance.binary, *instance.arguments, "-s", "reload"]
    subprocess.run(reload, check=True, capture_output=True)
    asked = monotonic()
    good: set[int | None] = set()
    while monotonic() < asked + GIVE_UP:
        fresh = set(nginx.workers(instance)) - before
        looked = observe(
            asks,
            Limits(),
            now=lambda: datetime.now(UTC),
            owners=lambda pairs, fresh=fresh: host.owners(pairs, tuple(fresh)),
        )
        good |= {one.worker for one in looked if one.worker in fresh and stapled(one, site, issued)}
        if len(good) == WORKERS:
            return Floor(asked - begun, monotonic() - asked)
    raise SystemExit(f"bench: only {len(good)} of {WORKERS} workers stapled within {GIVE_UP:g} s")


def stapled(seen: Observation, site: Site, issued: Issued) -> bool:
    der = issued.certificate.public_bytes(serialization.Encoding.DER)
    if seen.staple is None or len(seen.chain) < 2 or seen.chain[0] != der:
        return False
    issuer = x509.load_der_x509_certificate(seen.chain[1])
    judgement = ocsp.judge(seen.staple, issued.certificate, issuer, datetime.now(UTC))
    return judgement.acceptance is ocsp.Acceptance.ACCEPTED


def proof(site: Site) -> float | None:
    """Deploy a renewal; from its timeline the seconds of the proof, to 10 ms; None when it ended without."""
    ended = site.run("deploy", str(site.lineage))
    steps: dict[str, float] = {}
    for at, text in STEP.findall(ended.err):
        # Of two reloads the first: what a second one costs belongs to the proof.
        steps.setdefault(text.partition(":")[0], float(at))
    if ended.status == 0 and len(steps) == 2:
        return steps["proved"] - steps["reloaded nginx"]
    print(f"bench: no proof, status {ended.status}\n{ended.err}{ended.out}", file=sys.stderr)
    return None


def cold_starts(site: Site) -> Mapping[str, Callable[[], float]]:
    where, root = f"127.0.0.1:{site.port}", str(site.directory / "root.pem")
    check = site.argv("check", where, "--sni", NAME, "--ca-file", root, "--allow-address", "127.0.0.0/8")
    found: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: wall([sys.executable, "-c", "pass"], 0),
        "stapleguard --version": lambda: wall([sys.executable, "-m", "stapleguard", "--version"], 0),
        "stapleguard hook, without RENEWED_LINEAGE": lambda: wall(site.argv("hook"), 2),
        "stapleguard check, one endpoint, one verdict": lambda: wall(check, 0),
    }
    openssl = shutil.which("openssl")
    if openssl is not None:
        words = ["s_client", "-status", "-connect", where, "-servername", NAME, "-CAfile", root]
        found["openssl s_client -status, no verdict"] = lambda: wall([openssl, *words], 0)
    return found


def wall(argv: Sequence[str], status: int) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "RENEWED_LINEAGE"}
    begun = monotonic()
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    seconds = monotonic() - begun
    if done.returncode != status:
        raise SystemExit(f"bench: {argv} ended with {done.returncode}, not {status}\n{done.stderr}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
