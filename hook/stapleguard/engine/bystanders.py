"""Who listens where something is amiss, when it is a server that stapleguard only looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from stapleguard import host
from stapleguard.diagnosis import Need, Strand, unique
from stapleguard.diagnosis.observed import Ability, Observed, observed
from stapleguard.finding import Code, Finding, find
from stapleguard.model import Severity
from stapleguard.wire.line import is_local


def bystanders(strands: Sequence[Strand]) -> tuple[Finding, ...]:
    """Say of each endpoint of this host that is not served right what its program can and cannot do."""
    found: list[Finding] = []
    for strand in strands:
        last = strand.last
        if last is None or not is_local(strand.endpoint.address) or strand.good(last):
            continue
        for program in programs(strand.endpoint.port):
            found += _told(strand, program, broken=last.observation.fault is not None)
    return unique(found)


def programs(port: int) -> list[Observed]:
    """List the programs that are only looked at and listen on a port of this host."""
    processes = (host.process(pid) for pid in sorted(host.listeners(port)))
    known = (observed(one.executable) for one in processes if one is not None and one.executable)
    return list(dict.fromkeys(one for one in known if one is not None))


def _told(strand: Strand, program: Observed, *, broken: bool) -> list[Finding]:
    where = str(strand.endpoint)
    match program.ability:
        case Ability.FETCHES:
            return []
        case Ability.FILE:
            if not broken:
                return []
            text = f"{where} is served by {program.name}: {program.advice}"
            return [find(Code.SERVER_STAPLE_FILE_BAD, where, text, severity=Severity.WARNING)]
        case Ability.NOTHING:
            if broken or strand.need is Need.NOT_APPLICABLE:
                return []
            severity = Severity.CRITICAL if strand.must_staple else Severity.WARNING
            text = f"{where} is served by {program.name}, which cannot staple: {program.advice}"
            return [find(Code.SERVER_UNSUPPORTED, where, text, severity=severity)]
        case _ as never:
            assert_never(never)
