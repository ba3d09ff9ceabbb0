"""What certbot says to its deploy hook, and what it can never have said."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from stapleguard.clients.certbot import renewal
from stapleguard.model import Renewal, UsageError
from stapleguard.rehearsal.authority import Authority

pytestmark = pytest.mark.unit

NAME = "example.test"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    now = datetime.now(UTC)
    return Authority.create(now).issue([NAME], now).write_lineage(tmp_path / "le", NAME, 1)


@pytest.mark.parametrize("tail", ["", "/"])
def test_a_renewal_is_read(live: Path, tail: str) -> None:
    said = {"RENEWED_LINEAGE": f"{live}{tail}", "RENEWED_DOMAINS": f"{NAME} www.{NAME}"}
    assert renewal(said) == Renewal(NAME, str(live), (NAME, f"www.{NAME}"), "certbot")
    assert renewal({"RENEWED_LINEAGE": str(live)}).domains == ()


@pytest.mark.parametrize("said", [{}, {"RENEWED_LINEAGE": ""}, {"RENEWED_DOMAINS": NAME}])
def test_unset(said: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="RENEWED_LINEAGE is not set"):
        renewal(said)


@pytest.mark.parametrize(
    "path", ["live/a.test", "./live/a.test", "/x/archive/a.test", "/x/live/../live/a.test", "/", "/live"]
)
def test_outside_of_live(path: str) -> None:
    with pytest.raises(UsageError, match="outside of certbot's live directory"):
        renewal({"RENEWED_LINEAGE": path})


@pytest.mark.parametrize("name", [".hidden", "-option", "a b", "a\nb"])
def test_an_unusable_name(live: Path, name: str) -> None:
    path = live.with_name(name)
    path.mkdir()
    with pytest.raises(UsageError, match="unusable name") as caught:
        renewal({"RENEWED_LINEAGE": str(path)})
    assert "\n" not in caught.value.message


def test_a_lineage_that_is_not_there(live: Path) -> None:
    with pytest.raises(UsageError, match="not a directory"):
        renewal({"RENEWED_LINEAGE": str(live.with_name("other.test"))})


@pytest.mark.parametrize("kind", ["privkey", "cert", "chain", "fullchain"])
def test_a_link_that_leads_out_of_the_archive(live: Path, tmp_path: Path, kind: str) -> None:
    link = live / f"{kind}.pem"
    outside = tmp_path / "outside.pem"
    outside.write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises(UsageError, match=f"{kind}.pem leads outside"):
        renewal({"RENEWED_LINEAGE": str(live)})


def test_a_link_to_another_lineages_archive(live: Path) -> None:
    other = live.parent.parent / "archive" / "other.test"
    other.mkdir()
    (other / "privkey1.pem").write_bytes(b"")
    (live / "privkey.pem").unlink()
    (live / "privkey.pem").symlink_to(other / "privkey1.pem")
    with pytest.raises(UsageError, match="leads outside"):
        renewal({"RENEWED_LINEAGE": str(live)})
