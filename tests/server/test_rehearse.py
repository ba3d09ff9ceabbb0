"""The fire drill ends as it should, as data, without touching anything but a temporary directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lab.tools import require

pytestmark = pytest.mark.server


def test_three_acts_end_as_they_should(tmp_path: Path) -> None:
    require("nginx")
    words = [
        sys.executable,
        "-m",
        "stapleguard",
        "--state-dir",
        str(tmp_path / "untouched"),
        "rehearse",
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [act["verdict"] for act in told["acts"]] == ["verified", "rolled-back", "not-applicable"]
    assert [act["before"] == act["after"] for act in told["acts"]] == [False, True, False]
    assert told["acts"][1]["cause"] == "ocsp.unauthorized"
    assert done.stderr.count("understudy nginx: a good staple after") == 1
    assert not (tmp_path / "untouched").exists()
