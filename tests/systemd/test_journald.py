"""What a run tells a real journald by its native protocol."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.journald import Journald
from lab.tools import executable, require
from site_lab import NAME, Site
from stapleguard.host import Delivery, journal_send
from stapleguard.model import Verdict
from stapleguard.rehearsal.responder import Mode
from stapleguard.report import FINDING_ID, MESSAGE_IDS

pytestmark = pytest.mark.systemd
OURS = "SYSLOG_IDENTIFIER=stapleguard"


@pytest.fixture(scope="module")
def journal() -> Iterator[Journald]:
    require("journald")
    with Journald() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("nginx")
    made = Site(str(executable("nginx")), tmp_path)
    made.open()
    yield made
    made.close()


def test_a_run_arrives_with_its_fields(journal: Journald, site: Site) -> None:
    site.renew()
    argv = site.argv("deploy", str(site.lineage))
    assert journal.run(*argv).status == 0
    (said,) = journal.entries(OURS, f"LINEAGE={NAME}", "VERDICT=verified")
    assert said["_TRANSPORT"] == "journal"
    assert said["MESSAGE_ID"] == MESSAGE_IDS[Verdict.VERIFIED]
    assert said["MESSAGE"] == f"{NAME}: verified"
    assert said["PRIORITY"] == "5"
    assert "CAUSE" not in said

    site.responder.set_mode(Mode.UNAUTHORIZED)
    site.configure('missing_staple = "rollback"', "[responder]\npatience = 0\n")
    site.renew()
    assert journal.run(*argv).status == 5
    (told,) = journal.entries(OURS, f"MESSAGE_ID={MESSAGE_IDS[Verdict.ROLLED_BACK]}")
    assert (told["LINEAGE"], told["VERDICT"], told["CAUSE"]) == (NAME, "rolled-back", "ocsp.unauthorized")
    assert told["RUN_ID"] != said["RUN_ID"]
    found = journal.entries(f"MESSAGE_ID={FINDING_ID}", f"RUN_ID={told['RUN_ID']}")
    assert {"ocsp.unauthorized", "staple.absent"} <= {one["FINDING"] for one in found}
    assert all(one["LINEAGE"] == NAME and one["ENDPOINT"] for one in found)


def test_text_of_strangers_neither_moves_a_cursor_nor_forges_a_line(journal: Journald, site: Site) -> None:
    site.renew(ocsp_url="http://127.0.0.1:1/\x1b]0;mine\x07\n<0>FORGED=1")
    # No server could ask there: the understudy shows it, and the certificate before stays.
    assert journal.run(*site.argv("deploy", str(site.lineage))).status == 5
    entries = journal.entries(OURS)
    assert any(r"\x1b]0;mine" in entry["MESSAGE"] + entry.get("ENDPOINT", "") for entry in entries)
    for entry in entries:
        assert "FORGED" not in entry
        assert all(str(value).isprintable() for name, value in entry.items() if not name.startswith("_"))


def test_a_large_entry_goes_by_a_sealed_file(journal: Journald) -> None:
    code = "from stapleguard.host import journal_send; import sys; "
    send = "sys.exit(journal_send({'MESSAGE': 'large', 'BLOB': 'x' * 300_000}).value != 'sent')"
    path = ":".join(sys.path)
    assert journal.run(sys.executable, "-c", code + send, env={"PYTHONPATH": path}).status == 0
    (entry,) = journal.entries("MESSAGE=large")
    assert len(entry["BLOB"]) == 300_000


def test_without_a_journal_nothing_is_held_to_be_told(tmp_path: Path) -> None:
    assert journal_send({"MESSAGE": "nobody"}, str(tmp_path / "socket")) is Delivery.NO_SOCKET
