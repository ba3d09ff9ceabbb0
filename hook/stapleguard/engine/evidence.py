"""Why is a staple missing? What tells: the responder asked from here, the server's resolver, its log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stapleguard.diagnosis import Need
from stapleguard.engine import intake
from stapleguard.engine.intake import Certificate
from stapleguard.engine.survey import Survey
from stapleguard.engine.world import World
from stapleguard.finding import Code, Finding, find
from stapleguard.model import escape
from stapleguard.wire import dns

_TAIL: Final = 65536


def gather(world: World, found: Survey, certificates: Sequence[Certificate]) -> list[Finding]:
    """Look at everything that can be looked at from here; only facts, ranked by `diagnosis.cause_of`."""
    findings: list[Finding] = []
    for one in certificates:
        if one.expected.need is Need.STAPLE:
            findings += intake.ask_responder(world, one).findings
    if found.instance is None or not any(one.expected.need is Need.STAPLE for one in certificates):
        return findings
    hosts = {urlsplit(url).hostname or "" for one in certificates for url in one.material.facts.ocsp_urls}
    findings += _resolvers(world, found, hosts - {""})
    for use in found.uses:
        findings += use.server.log_findings(use.server.test(use.instance, world.config.test_timeout).text)
        log = use.server.error_log(use.instance)
        if log:
            names = [f'certificate: "{world.state.root}']
            lines = [line for line in _tail(log).splitlines() if any(name in line for name in names)]
            findings += use.server.log_findings("\n".join(lines[-20:]))
    return findings


def _resolvers(world: World, found: Survey, hosts: set[str]) -> list[Finding]:
    """Ask each resolver that the server is configured with, as the server would."""
    findings = []
    for resolver in dict.fromkeys(
        value for site in found.sites for value in site.resolvers if "=" not in value
    ):
        for name in sorted(hosts):
            answer = dns.ask(resolver, name, min(3.0, world.config.fetch_timeout))
            if answer.finding is not None:
                text = f"the resolver {escape(resolver)} of nginx's configuration fails for {escape(name)}: "
                evidence = {"resolver": resolver, "dns": answer.finding.code.value}
                where = found.sites[0].where
                findings.append(
                    find(Code.SERVER_RESOLVER_BROKEN, where, text + answer.finding.message, evidence=evidence)
                )
    return findings


def _tail(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read(_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""
