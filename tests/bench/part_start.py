"""Cold starts: whole processes, from the start to the verdict."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import programs, tools
from bench.figures import Ratio, Report, Row, Variant, interleave, quotients
from bench.options import Options
from bench.ours import PROGRAM, PYTHON
from bench.stapled import NAME, StapledSite

_CHECK = "stapleguard check, one endpoint, one verdict"
_S_CLIENT = "openssl s_client -status, no verdict"
_TYPED = "openssl s_client -status as typed, with the system's store, no verdict"
_CHECK_TYPED = "stapleguard check as typed, with the system's store, one verdict"


def run(options: Options) -> Report:
    """Measure."""
    tools.install(("openssl",))
    with (
        tempfile.TemporaryDirectory(prefix="stapleguard-bench-") as directory,
        StapledSite(Path(directory)) as site,
    ):
        taken = interleave(list(_variants(site)), options.starts)
    report = Report("start", "cold starts of whole processes")
    for label, samples in taken.items():
        report.rows.append(Row(label, "ms", [one.seconds * 1000 for one in samples]))
    if taken.get(_S_CLIENT):
        ratio = quotients([one.seconds for one in taken[_CHECK]], [one.seconds for one in taken[_S_CLIENT]])
        report.ratios.append(Ratio("cold check / s_client -status, both with one anchor", "<=", 10, ratio))
        typed = [[one.seconds for one in taken[label]] for label in (_CHECK_TYPED, _TYPED)]
        label = "cold check / s_client -status, both as typed (the system's store)"
        report.ratios.append(Ratio(label, "<=", 10, quotients(*typed)))
    return report


def _variants(site: StapledSite) -> Iterator[Variant]:
    where, root, state = f"127.0.0.1:{site.port}", str(site.anchors), str(site.directory / "no-state")
    ours = [*PROGRAM, "--state-dir", state]
    check = [*ours, "check", where, "--sni", NAME, "--ca-file", root]
    yield Variant(_CHECK, lambda: programs.command(check))
    # Our own CA is in nobody's store: degraded is the verdict, and it is printed all the same.
    typed = [*ours, "check", where, "--sni", NAME]
    yield Variant(_CHECK_TYPED, lambda: programs.command(typed, 3))
    yield Variant("stapleguard hook, without RENEWED_LINEAGE", lambda: programs.command([*ours, "hook"], 2))
    yield Variant("stapleguard --version", lambda: programs.command([*PROGRAM, "--version"]))
    yield Variant("python -c pass", lambda: programs.command([PYTHON, "-c", "pass"]))
    openssl = tools.find("openssl")
    if openssl is not None:
        words = ["s_client", "-status", "-connect", where, "-servername", NAME, "-CAfile", root]
        yield Variant(_S_CLIENT, lambda: programs.command([openssl, *words]))
        yield Variant(_TYPED, lambda: programs.command([openssl, *words[:-2]]))
