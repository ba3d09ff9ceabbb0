"""The proof of 64 nginx workers: of a deployment after its reload, and of a `check` as a whole process."""

from __future__ import annotations

from contextlib import ExitStack

from bench import programs
from bench.deployed import NAME, BenchSite, opened
from bench.figures import BenchError, Ratio, Report, Row, Sample, Variant, interleave
from bench.options import Options
from bench.ours import PROGRAM

_WORKERS = 64
_GOAL = 1.0
_KINDS = (("one listening socket", False), ("reuseport", True))


def run(options: Options) -> Report:
    """Measure."""
    variants: list[Variant] = []
    with ExitStack() as stack:
        for kind, reuseport in _KINDS:
            site = stack.enter_context(opened(_WORKERS, reuseport=reuseport))
            variants += [
                Variant(f"{kind}: deploy, from the reload to the proof", lambda site=site: _deploy(site)),
                Variant(f"{kind}: check, the whole process", lambda site=site: _check(site)),
            ]
        taken = interleave(variants, options.fleet_rounds)
    report = Report("workers", f"every one of {_WORKERS} nginx workers seen to staple")
    for label, samples in taken.items():
        seconds = [one.seconds for one in samples]
        report.rows.append(Row(label, "ms", [one * 1000 for one in seconds], 0))
        report.ratios.append(Ratio(label, "<=", _GOAL, seconds, "s"))
    return report


def _deploy(site: BenchSite) -> Sample:
    site.renew()
    took = site.proof()
    if took is None:
        raise BenchError("the deployment was not proved")
    return Sample(took)


def _check(site: BenchSite) -> Sample:
    options = ["--config", str(site.directory / "c.toml"), "--state-dir", str(site.state)]
    return programs.command([*PROGRAM, *options, "check", NAME])
