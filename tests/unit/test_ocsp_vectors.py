"""The judge on public test data of BoringSSL, which lies beside the repository and not in it."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from stapleguard.finding import Code
from stapleguard.model import CertStatus
from stapleguard.ocsp import Acceptance, Judgement, Rules, Sha1, judge

pytestmark = pytest.mark.unit

NAMED = os.environ.get("STAPLEGUARD_VECTORS")
ROOT: Final = Path(NAMED) if NAMED else Path(__file__).resolve().parents[3] / "shared" / "vectors"
VECTORS: Final = ROOT / "boringssl"

# What each rejected vector is rejected for, in our words; the manifest's `upstream` has theirs.
EXPECTED: Final = {
    "bad_ocsp_type": Code.OCSP_MALFORMED,
    "bad_signature": Code.OCSP_BAD_SIGNATURE,
    "bad_status": Code.OCSP_MALFORMED,
    "future_response": Code.OCSP_NOT_YET_VALID,
    "has_critical_response_extension": Code.OCSP_CRITICAL_EXTENSION,
    "has_critical_single_extension": Code.OCSP_CRITICAL_EXTENSION,
    "invalid_response": Code.OCSP_MALFORMED,
    "invalid_response_data": Code.OCSP_MALFORMED,
    "malformed_request": Code.OCSP_MALFORMED_REQUEST,
    "missing_response": Code.OCSP_WRONG_CERTIFICATE,
    "multiple_response": Code.OCSP_UNKNOWN,
    "multiple_response_good_revoked": Code.OCSP_REVOKED,
    "no_response": Code.OCSP_WRONG_CERTIFICATE,
    "ocsp_sign_bad_indirect": Code.OCSP_UNAUTHORIZED_RESPONDER,
    "ocsp_sign_indirect_missing": Code.OCSP_UNAUTHORIZED_RESPONDER,
    "old_response": Code.OCSP_TOO_OLD,
    "other_response": Code.OCSP_WRONG_CERTIFICATE,
    "produced_early_response": Code.OCSP_NOT_YET_VALID,
    "produced_late_response": Code.OCSP_NOT_YET_VALID,
    "revoke_response": Code.OCSP_REVOKED,
    "revoke_response_reason": Code.OCSP_REVOKED,
    "stale_response": Code.OCSP_EXPIRED,
    "unknown_response": Code.OCSP_UNKNOWN,
}
# Their certificate has a serial number that `cryptography` refuses to read: there is nothing to judge.
UNREADABLE: Final = "good_response_invalid_serial"


def manifest() -> list[dict[str, object]]:
    if not VECTORS.is_dir():
        pytest.skip(
            f"the public vectors are not in the repository; {VECTORS} is absent (STAPLEGUARD_VECTORS)"
        )
    read = json.loads((VECTORS / "manifest.json").read_text())
    assert isinstance(read, list)
    return read


def certificate(vector: dict[str, object], which: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((VECTORS / str(vector[which])).read_bytes())


def judged(vector: dict[str, object]) -> Judgement:
    policy = vector["policy"]
    assert isinstance(policy, dict)
    return judge(
        (VECTORS / str(vector["response"])).read_bytes(),
        certificate(vector, "cert"),
        certificate(vector, "issuer"),
        datetime.fromisoformat(str(vector["verify_time"])),
        Rules(max_age=policy["max_age_s"], sha1=Sha1.ALLOWED),
    )


def test_every_vector_gets_the_verdict_of_the_manifest() -> None:
    vectors = manifest()
    assert len(vectors) == 36
    for vector in vectors:
        name, expected = str(vector["id"]), vector["expect"]
        if name == UNREADABLE:
            with pytest.raises(ValueError, match="serial"):
                certificate(vector, "cert")
            continue
        judgement = judged(vector)
        critical = [found.code for found in judgement.findings if found.critical]
        if expected == "ACCEPT":
            assert (name, judgement.acceptance, critical) == (name, Acceptance.ACCEPTED, [])
        elif expected != "EITHER":
            assert (name, judgement.acceptance) == (name, Acceptance.REJECTED)
            assert EXPECTED[name] in critical, name
        if expected == "REVOKED":
            assert judgement.status is CertStatus.REVOKED


def test_the_table_has_every_rejected_vector_and_no_other() -> None:
    rejected = {str(vector["id"]) for vector in manifest() if vector["expect"] in {"REJECT", "REVOKED"}}
    assert rejected == set(EXPECTED)


def test_structural_defects_are_findings_and_not_exceptions() -> None:
    vectors = manifest()
    good = next(vector for vector in vectors if vector["id"] == "good_response")
    leaf, issuer = certificate(good, "cert"), certificate(good, "issuer")
    files = sorted(VECTORS.glob("structural*/*"))
    assert len(files) == 101
    now = datetime.fromisoformat(str(good["verify_time"]))
    for path in files:
        judgement = judge(path.read_bytes(), leaf, issuer, now, Rules(sha1=Sha1.ALLOWED))
        expected = Code.OCSP_TRY_LATER if path.name == "try_later" else Code.OCSP_MALFORMED
        assert (path.name, [found.code for found in judgement.findings]) == (path.name, [expected])
