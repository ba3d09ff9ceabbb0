"""Commands that answer a question from what they are given: `explain`, `ocsp fetch`, `ocsp verify`."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from stapleguard import ocsp
from stapleguard.cli.arguments import settings
from stapleguard.disk import read_bounded, replace_file
from stapleguard.finding import CATALOGUE, Code, Finding
from stapleguard.material import leaf_facts
from stapleguard.model import ExitStatus, UsageError, Verdict, escape
from stapleguard.report import finding_json, print_json, rfc3339, steps
from stapleguard.wire.fetch import ocsp_exchange
from stapleguard.wire.policy import FetchPolicy


def explain(arguments: argparse.Namespace) -> int:
    """Print a finding's page, or the list of all."""
    if arguments.code is None:
        for code, entry in CATALOGUE.items():
            sys.stdout.write(f"{code.value:<42} {entry.title}\n")
        return int(ExitStatus.OK)
    try:
        code = Code(arguments.code)
    except ValueError:
        near = difflib.get_close_matches(arguments.code, [one.value for one in Code], n=1, cutoff=0)
        raise UsageError(f"no such finding: {escape(arguments.code)}", f"did you mean {near[0]}?") from None
    entry = CATALOGUE[code]
    if arguments.json:
        print_json(
            {
                "schema": "stapleguard.explain/1",
                "code": code.value,
                "severity": entry.severity.value,
                "title": entry.title,
                "recognised": entry.recognised,
                "remedy": entry.remedy,
                "reference": entry.reference,
            }
        )
    else:
        what_to_do = "\n".join(f"  {step}" for step in steps(entry.remedy))
        sys.stdout.write(f"{code.value}  ({entry.severity.value})\n{entry.title}\n\n")
        sys.stdout.write(f"recognised\n  {entry.recognised}\n")
        sys.stdout.write(f"\nwhat to do\n{what_to_do}\n\nsource\n  {entry.reference}\n")
    return int(ExitStatus.OK)


@dataclass(frozen=True, slots=True)
class _Received:
    """A response as it came from a file or a responder, and what went wrong on the way."""

    der: bytes | None
    findings: tuple[Finding, ...] = ()


def ocsp_command(arguments: argparse.Namespace) -> int:
    """Judge a response from a file or from the responder; 0 when acceptable, 3 when not."""
    leaf, issuer = _certificate(arguments.cert), _certificate(arguments.issuer)
    if arguments.max_age is not None and not 0 <= arguments.max_age <= 315_360_000:
        raise UsageError("--max-age must be a number of seconds from 0 to ten years")
    rules = ocsp.Rules(arguments.max_age, ocsp.Sha1.ALLOWED if arguments.allow_sha1 else ocsp.Sha1.REFUSED)
    fetching = arguments.ocsp == "fetch"
    received = _fetched(arguments, leaf, issuer) if fetching else _from_file(arguments.response)
    judgement = None
    if received.der is not None:
        judgement = ocsp.judge(received.der, leaf, issuer, arguments.at or datetime.now(UTC), rules)
    accepted = judgement is not None and judgement.acceptance is ocsp.Acceptance.ACCEPTED
    if fetching and accepted and arguments.out and received.der is not None:
        replace_file(Path(os.path.abspath(arguments.out)), received.der)  # noqa: PTH100 - a link stays the user's
    findings = (*received.findings, *(judgement.findings if judgement else ()))
    status = judgement.status.value if judgement and judgement.status else None
    ended = ExitStatus.OK if accepted else ExitStatus.DEGRADED
    if arguments.json:
        print_json(
            {
                "schema": f"stapleguard.ocsp-{arguments.ocsp}/1",
                "verdict": (Verdict.VERIFIED if accepted else Verdict.DEGRADED).value,
                "status": status,
                "acceptable": accepted,
                "exit": int(ended),
                "cause": next((one.code.value for one in findings if one.critical and not accepted), None),
                "this_update": rfc3339(judgement.this_update) if judgement else None,
                "next_update": rfc3339(judgement.next_update) if judgement else None,
                "findings": [finding_json(one) for one in findings],
            }
        )
    else:
        sys.stdout.write(f"{status or 'no status'}, {'acceptable' if accepted else 'not acceptable'}\n")
        for one in findings:
            sys.stdout.write(f"  {one.severity.value:<8} {one.code.value}: {one.message}\n")
    return int(ended)


def _certificate(path: str) -> x509.Certificate:
    data = read_bounded(Path(path))
    if isinstance(data, Finding):
        raise UsageError(data.message, "give a PEM certificate")
    try:
        return x509.load_pem_x509_certificate(data)
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise UsageError(
            f"{escape(path)} holds no PEM certificate", "convert DER with `openssl x509 -inform der`"
        ) from None


def _from_file(path: str) -> _Received:
    """Read one byte more than the judge takes, so that it refuses what is too large."""
    try:
        with Path(path).open("rb") as file:
            return _Received(file.read(ocsp.MAX_RESPONSE + 1))
    except OSError as error:
        raise UsageError(f"cannot read {escape(path)}: {error.strerror}", "give a DER file") from None


def _fetched(arguments: argparse.Namespace, leaf: x509.Certificate, issuer: x509.Certificate) -> _Received:
    urls = (arguments.url,) if arguments.url else leaf_facts(leaf).ocsp_urls
    if not urls:
        raise UsageError(
            "the certificate names no OCSP responder",
            "give one with --url; since 2025 many certificates have none",
        )
    read = settings(arguments)
    timeout, only = arguments.timeout or read.fetch_timeout, tuple(arguments.address)
    policy = FetchPolicy(timeout, read.allow_addresses, read.proxy, only, arguments.sni)
    fetched = ocsp_exchange(urls[0], ocsp.request(leaf, issuer), policy)
    return _Received(fetched.body, fetched.findings)
