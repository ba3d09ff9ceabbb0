"""A fleet 50 to 100 ms away: ours beside Go, xargs and sslyze, over the link of slow.py."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import ours, programs, slow, tools
from bench.figures import Ratio, Report, Row, Samples, Variant, interleave, quotients
from bench.options import Options
from bench.stapled import NAME, StapledSite

_ROUND_TRIPS = 2
"""One for TCP and one for TLS 1.3."""
_OURS = "stapleguard"
_GO = "Go crypto/tls, staple and chain verified every time"
_GO_CACHED = "Go crypto/tls, verified once by bytes"
_XARGS = "openssl s_client -status, xargs -P64"
_SSLYZE = "sslyze API, as it comes"
_SSLYZE_64 = "sslyze API, 64 at once"
_MARK = "OCSP Response Status: successful"
# $1 how many, $2 the name, $3 the anchors, $4 the program, $5 a file of endpoints
_SCRIPT = 'xargs -P64 -I@ "$4" s_client -status -connect @ -servername "$2" -CAfile "$3" <"$5"'


def run(options: Options) -> Report:
    """Measure; without root or TUN devices there is nothing to measure."""
    tools.install(("gcc", "ip", "openssl", "xargs", "go"))
    report = Report("latency", f"{options.fleet} endpoints at round trips of 50 to 100 ms, TLS 1.3")
    binary = slow.available()
    if binary is None:
        report.notes.append("left out: this needs root, /dev/net/tun, ip, nsenter and a C compiler")
        return report
    with (
        tempfile.TemporaryDirectory(prefix="stapleguard-bench-") as directory,
        slow.SlowLink(binary) as link,
        StapledSite(Path(directory), enter=link.far) as site,
    ):
        fleet = [f"{slow.place(number)}:{site.port}" for number in range(options.fleet)]
        taken = interleave(list(_variants(site, link.near, fleet)), options.fleet_rounds)
    _fill(report, taken, fleet)
    return report


def _ideal(fleet: Sequence[str], at_once: float) -> float:
    """The wall seconds for one endpoint of the fleet, were there nothing but round trips."""
    trips = (_ROUND_TRIPS * slow.round_trip(place.partition(":")[0]) for place in fleet)
    return sum(trips) / len(fleet) / at_once


def _fill(report: Report, taken: Samples, fleet: Sequence[str]) -> None:
    for label, samples in taken.items():
        report.rows.append(Row(f"{label}: rate", "1/s", [1 / one.each for one in samples]))
        report.rows.append(Row(f"{label}: CPU", "us", [one.cpu_each * 1e6 for one in samples], 0))
        if all(one.memory for one in samples):
            report.rows.append(Row(f"{label}: memory", "MiB", [one.memory for one in samples]))
    mine = taken[_OURS]
    each = [one.each for one in mine]
    report.rows.append(Row(f"{_OURS}: under way at once, mean", "", [one.at_once for one in mine], 0))
    report.notes.append(f"ideal: {_ROUND_TRIPS} round trips each, as many at once as ours had on average")
    ratio = [one.each / _ideal(fleet, one.at_once) for one in mine]
    report.ratios.append(Ratio("wall / ideal", "<=", 1.2, ratio))
    report.ratios.append(Ratio("memory", "<=", 64, [one.memory for one in mine], "MiB"))
    for label, goal in ((_XARGS, 10), (_SSLYZE, 20), (_SSLYZE_64, 20)):
        if taken.get(label):
            faster = quotients([one.each for one in taken[label]], each)
            report.ratios.append(Ratio(f"rate / {label}", ">=", goal, faster))
    for label in (_GO, _GO_CACHED):
        if taken.get(label):
            slower = quotients(each, [one.each for one in taken[label]])
            report.ratios.append(Ratio(f"wall / {label}", "<=", 1.1, slower))


def _variants(site: StapledSite, near: Sequence[str], fleet: Sequence[str]) -> Iterator[Variant]:
    root = str(site.anchors)
    mine = [*near, sys.executable, "-m", "bench.ours"]
    job = programs.Job(fleet, NAME, root)
    yield Variant(_OURS, lambda: programs.work(mine, job, tools.TESTS))
    client = tools.go_client()
    if client is not None:
        for label, cached in ((_GO, False), (_GO_CACHED, True)):
            work = programs.Job(fleet, NAME, root, ours.CONCURRENCY, cached)
            yield Variant(label, lambda work=work: programs.work([*near, str(client)], work))
    openssl = tools.find("openssl")
    if openssl is not None and tools.find("xargs") is not None:
        sample = fleet[:512]
        listed = site.directory / "fleet"
        listed.write_text("".join(f"{place}\n" for place in sample))
        words = (NAME, root, openssl, str(listed))
        yield Variant(_XARGS, lambda: programs.shell(_SCRIPT, words, len(sample), _MARK, near))
    python = tools.sslyze_python()
    if python is not None:
        scan = [*near, str(python), str(tools.HERE / "sslyze_client.py")]
        for label, at_once, size in ((_SSLYZE, 0, 60), (_SSLYZE_64, 64, 192)):
            part = programs.Job(fleet[:size], NAME, root, at_once)
            yield Variant(label, lambda part=part: programs.work(scan, part))
