"""A deployment's proof beside the floor that nginx itself sets."""

from __future__ import annotations

from stapleguard.servers import nginx

from bench.deployed import opened
from bench.figures import BenchError, Report, Row, quotients, say
from bench.floor import Floor, floor
from bench.options import Options

_WORKERS = 4


def run(options: Options) -> Report:
    """Measure."""
    floors: list[Floor] = []
    proofs: list[float] = []
    with opened(_WORKERS) as site:
        (instance,) = nginx.instances(site.binary, str(site.nginx.config))
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            issued = site.renew()
            took = site.proof()
            least = floor(site, instance, issued.certificate, _WORKERS)
            if took is not None:
                proofs.append(took)
                floors.append(least)
    if not proofs:
        raise BenchError("no deployment was proved")
    seen = [one.seen for one in floors]
    report = Report("proof", f"a reload and its proof, nginx with {_WORKERS} workers that ask the responder")
    report.rows = [
        Row("`nginx -s reload`, the command", "ms", [one.command * 1000 for one in floors], 0),
        Row("floor: from its end to a good staple from every worker", "ms", [one * 1000 for one in seen], 0),
        Row('deploy: from "reloaded nginx" to "proved"', "ms", [one * 1000 for one in proofs], 0),
        Row("deploy / floor", "times", quotients(proofs, seen), 2),
    ]
    report.notes.append(
        f"proved: {len(proofs)} of {options.rounds} deployments; only they are in the figures"
    )
    return report
