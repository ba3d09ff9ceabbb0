"""The proof of 64 nginx workers: of a deployment after its reload, and of a `check` as a whole process."""

from __future__ import annotations

from contextlib import ExitStack

from cryptography import x509
from stapleguard.servers import nginx

from bench import programs
from bench.deployed import NAME, BenchSite, opened
from bench.figures import BenchError, Ratio, Report, Row, Sample, Variant, interleave, quotients
from bench.floor import floor
from bench.options import Options
from bench.ours import PROGRAM

_WORKERS = 64
_GOAL = 1.0
_FETCH, _FILE = "nginx asks the responder", "a staple file"
_KINDS = (
    (f"one listening socket, {_FETCH}", False, ""),
    (f"reuseport, {_FETCH}", True, ""),
    (f"one listening socket, {_FILE}", False, 'prime = "file"'),
    (f"reuseport, {_FILE}", True, 'prime = "file"'),
)
_DEPLOY = "deploy, from the reload to the proof"
_FLOOR = "a bare reload, until every worker was seen to staple"
_CHECK = "check, the whole process"


def run(options: Options) -> Report:
    """Measure."""
    variants: list[Variant] = []
    with ExitStack() as stack:
        for kind, reuseport, policy in _KINDS:
            site = stack.enter_context(opened(_WORKERS, reuseport=reuseport, policy=policy))
            variants.append(Variant(f"{kind}: {_DEPLOY}", lambda site=site: _deploy(site)))
            if not policy:
                variants.append(Variant(f"{kind}: {_FLOOR}", lambda site=site: _floor(site)))
                variants.append(Variant(f"{kind}: {_CHECK}", lambda site=site: _check(site)))
        taken = interleave(variants, options.fleet_rounds)
    report = Report("workers", f"every one of {_WORKERS} nginx workers seen to staple")
    seconds = {label: [one.seconds for one in samples] for label, samples in taken.items()}
    for label, measured in seconds.items():
        report.rows.append(Row(label, "ms", [one * 1000 for one in measured], 0))
        if _FLOOR not in label:
            report.ratios.append(Ratio(label, "<=", _GOAL, measured, "s"))
    for kind, _, policy in _KINDS:
        if not policy:
            ratio = quotients(seconds[f"{kind}: {_DEPLOY}"], seconds[f"{kind}: {_FLOOR}"])
            report.rows.append(Row(f"{kind}: deploy / bare reload", "times", ratio, 2))
    return report


def _deploy(site: BenchSite) -> Sample:
    site.renew()
    took = site.proof()
    if took is None:
        raise BenchError("the deployment was not proved")
    return Sample(took)


def _floor(site: BenchSite) -> Sample:
    (instance,) = nginx.instances(site.binary, str(site.nginx.config))
    leaf = x509.load_pem_x509_certificate((site.state / "live" / NAME / "fullchain.pem").read_bytes())
    return Sample(floor(site, instance, leaf, _WORKERS).seen)


def _check(site: BenchSite) -> Sample:
    options = ["--config", str(site.directory / "c.toml"), "--state-dir", str(site.state)]
    return programs.command([*PROGRAM, *options, "check", NAME])
