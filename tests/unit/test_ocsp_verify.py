"""`ocsp verify` as a user meets it: arguments and files in, exit status and one JSON object out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any  # the published JSON is read as any JSON is

import asn1
import pki
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from ocsp_answers import DAY, GOOD, NOW, P256, RSA, SECOND, THEN, entry
from pki import Answer, Pki
from stapleguard.cli import main

pytestmark = pytest.mark.unit

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Write the files, run the command, give the exit status and what it printed."""

    def verify(
        response: bytes | None, *more: str, of: Pki = P256, at: str = NOW.isoformat()
    ) -> tuple[int, dict[str, Any]]:
        for name, signer in (("leaf", of.leaf), ("issuer", of.issuer)):
            (tmp_path / f"{name}.pem").write_bytes(signer.certificate.public_bytes(Encoding.PEM))
        if response is not None:
            (tmp_path / "r.der").write_bytes(response)
        files = [
            argument
            for option, file in (("--cert", "leaf.pem"), ("--issuer", "issuer.pem"), ("--response", "r.der"))
            for argument in (option, str(tmp_path / file))
        ]
        with pytest.raises(SystemExit) as ended:
            main(["ocsp", "verify", "--json", *files, "--at", at, *more])
        printed = capsys.readouterr().out
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(printed) if printed else {}

    return verify


def test_a_good_answer_is_acceptable(run: Run) -> None:
    status, said = run(GOOD.der())
    assert status == said["exit"] == 0
    assert (said["schema"], said["verdict"]) == ("stapleguard.ocsp-verify/1", "verified")
    assert (said["status"], said["acceptable"], said["findings"], said["cause"]) == ("good", True, [], None)
    assert said["this_update"] == "2026-06-01T11:00:00Z"


@pytest.mark.parametrize(
    ("response", "status", "code"),
    [
        (entry(status=pki.revoked(THEN)).der(), "revoked", "ocsp.revoked"),
        (entry(status=pki.UNKNOWN).der(), "unknown", "ocsp.unknown"),
        (entry(next_update=NOW).der(), "good", "ocsp.expired"),
        (replace(GOOD, empty=True).der(), None, "ocsp.wrong-certificate"),
        (replace(GOOD, status=asn1.enumerated(3)).der(), None, "ocsp.try-later"),
        (b"", None, "ocsp.malformed"),
        (b"<html>captive portal</html>", None, "ocsp.malformed"),
        (b"\x30" * 65537, None, "responder.too-large"),
    ],
)
def test_any_other_is_not_and_is_no_error(run: Run, response: bytes, status: str | None, code: str) -> None:
    ended, said = run(response)
    assert ended == said["exit"] == 3
    assert (said["status"], said["acceptable"], said["verdict"]) == (status, False, "degraded")
    assert said["cause"] == code
    assert code in {found["code"] for found in said["findings"]}
    assert all(found["evidence"] is not None for found in said["findings"])


def test_at_sets_the_time_of_judgement(run: Run) -> None:
    late = (NOW + 6 * DAY).isoformat()
    assert run(GOOD.der(), at=late)[0] == 3
    assert run(GOOD.der(), at=(NOW + 6 * DAY - SECOND).isoformat())[0] == 0
    assert run(GOOD.der(), at="2026-06-01T12:00:00Z")[0] == 0
    assert run(GOOD.der(), at="9999-12-31T23:59:59Z")[0] == 3


def test_max_age_and_allow_sha1(run: Run) -> None:
    assert run(GOOD.der(), "--max-age", "3600")[0] == 0
    ended, said = run(GOOD.der(), "--max-age", "3599")
    assert (ended, said["cause"]) == (3, "ocsp.too-old")
    old = replace(Answer.good(RSA, NOW), algorithm=pki.RSA_SHA1).der()
    assert run(old, "--allow-sha1", of=RSA)[0] == 0
    assert run(old, of=RSA)[1]["cause"] == "ocsp.weak-signature"


@pytest.mark.parametrize(
    "more",
    [("--max-age", "-1"), ("--max-age", "nan"), ("--at", "yesterday"), ("--at", "0001-01-01T00:00:00+14:00")],
)
def test_wrong_usage_ends_with_two(run: Run, more: tuple[str, ...]) -> None:
    assert run(GOOD.der(), *more) == (2, {})


def test_input_that_cannot_be_read_ends_with_two(run: Run, tmp_path: Path) -> None:
    assert run(None) == (2, {})  # there is no response
    (tmp_path / "odd.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for option in ("--cert", "--issuer"):
        assert run(GOOD.der(), option, str(tmp_path / "odd.pem")) == (2, {})
        assert run(GOOD.der(), option, str(tmp_path / "nowhere.pem")) == (2, {})
    assert run(GOOD.der(), "--response", str(tmp_path)) == (2, {})
