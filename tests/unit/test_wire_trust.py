"""Trust paths: found where there is one, at the time that is asked about, to the anchor that was given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from ssl import DER_cert_to_PEM_cert

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from stapleguard.model import KeyType, UsageError
from stapleguard.rehearsal.authority import Authority, LeafOptions
from stapleguard.wire.trust import Anchors, anchors_from_file, system_anchors, verify_path

pytestmark = pytest.mark.unit

NOW = datetime.now(UTC).replace(microsecond=0)
OURS = Authority.create(NOW)
THEIRS = Authority.create(NOW)
"""Another authority under the very same names."""
LEAF = OURS.issue(["example.test"], NOW, LeafOptions(days=10))
ROOT = Anchors("ours", (OURS.root,))


def test_a_path_from_leaf_to_anchor() -> None:
    path = verify_path(LEAF.certificate, LEAF.chain, ROOT, NOW)
    assert path.certificates == (LEAF.certificate, OURS.intermediate, OURS.root)
    assert (path.anchor, path.error) == (OURS.root, "")


def test_our_anchor_is_found_beside_a_foreign_one_of_the_same_name() -> None:
    both = Anchors("both", (THEIRS.root, OURS.root))
    assert verify_path(LEAF.certificate, LEAF.chain, both, NOW).anchor == OURS.root


def test_the_order_and_surplus_of_the_chain_do_not_matter() -> None:
    chain = (THEIRS.intermediate, OURS.root, OURS.intermediate)
    assert verify_path(LEAF.certificate, chain, ROOT, NOW).anchor == OURS.root


def test_an_anchor_need_not_sign_itself() -> None:
    anchors = Anchors("intermediate", (OURS.intermediate,))
    assert verify_path(LEAF.certificate, (), anchors, NOW).certificates == (
        LEAF.certificate,
        OURS.intermediate,
    )


def test_one_unreadable_root_does_not_cost_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    der = bytearray(THEIRS.root.public_bytes(Encoding.DER))
    der[der.index(b"\xa0\x03\x02\x01\x02") + 4] = (
        3  # X.509 version 4: OpenSSL reads it, cryptography does not
    )
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(DER_cert_to_PEM_cert(bytes(der)).encode() + OURS.root.public_bytes(Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert system_anchors() == Anchors(str(bundle), (OURS.root,))
    with pytest.raises(UsageError):
        anchors_from_file(str(bundle))


def test_a_missing_intermediate() -> None:
    path = verify_path(LEAF.certificate, (), ROOT, NOW)
    assert (path.certificates, path.anchor) == ((), None)
    assert "issuer" in path.error


@pytest.mark.parametrize(
    "anchors", [Anchors("none", ()), Anchors("theirs", (THEIRS.root, THEIRS.intermediate))]
)
def test_a_foreign_anchor(anchors: Anchors) -> None:
    path = verify_path(LEAF.certificate, LEAF.chain, anchors, NOW)
    assert path.anchor is None
    assert path.error


def test_an_intermediate_of_the_same_name_that_did_not_sign() -> None:
    assert verify_path(LEAF.certificate, THEIRS.issue(["a.test"], NOW).chain, ROOT, NOW).anchor is None


@pytest.mark.parametrize(
    ("at", "error"),
    [
        (LEAF.certificate.not_valid_after_utc + timedelta(seconds=2), "expired"),
        (LEAF.certificate.not_valid_before_utc - timedelta(seconds=2), "not yet valid"),
    ],
)
def test_the_time_is_the_one_asked_about(at: datetime, error: str) -> None:
    path = verify_path(LEAF.certificate, LEAF.chain, ROOT, at)
    assert path.anchor is None
    assert error in path.error


@pytest.mark.parametrize("hours", [-12, 0, 14])
def test_an_instant_is_the_same_in_every_zone(hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    last = LEAF.certificate.not_valid_after_utc
    inside, outside = (
        (last - timedelta(minutes=1)).astimezone(zone),
        (last + timedelta(minutes=1)).astimezone(zone),
    )
    assert verify_path(LEAF.certificate, LEAF.chain, ROOT, inside).anchor == OURS.root
    assert verify_path(LEAF.certificate, LEAF.chain, ROOT, outside).anchor is None


@pytest.mark.parametrize("key_type", KeyType)
def test_every_key_type(key_type: KeyType) -> None:
    authority = Authority.create(NOW, key_type)
    leaf = authority.issue(["example.test"], NOW, LeafOptions(key_type=key_type))
    anchors = Anchors("", (authority.root,))
    assert verify_path(leaf.certificate, leaf.chain, anchors, NOW).anchor == authority.root


def test_anchors_come_from_a_pem_file(tmp_path: Path) -> None:
    file = tmp_path / "anchors.pem"
    file.write_bytes(OURS.root.public_bytes(Encoding.PEM) + THEIRS.root.public_bytes(Encoding.PEM))
    assert anchors_from_file(str(file)) == Anchors(str(file), (OURS.root, THEIRS.root))


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_anchors(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "anchors.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match="cannot read trust anchors"):
        anchors_from_file(str(file))
