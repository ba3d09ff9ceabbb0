"""`install` and `uninstall` on a packager's tree, and what a wheel brings along."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from stapleguard.cli import completion
from stapleguard.cli.install import default_configuration
from stapleguard.cli.manual import page
from stapleguard.config import SCHEMA, Config, parse

pytestmark = pytest.mark.unit

HOOK = "etc/letsencrypt/renewal-hooks/deploy/stapleguard"
WORKER = "usr/lib/systemd/system/stapleguard@.service"


def run(*argv: str, status: int = 0) -> list[str]:
    words = [sys.executable, "-m", "stapleguard", *argv, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return list(json.loads(done.stdout)["done"]) if status == 0 else [done.stderr]


def files(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_mode & 0o777
        for path in root.rglob("*")
        if path.is_file() and "var/lib" not in str(path)
    }


def test_twice_is_once(tmp_path: Path) -> None:
    assert len(run("install", "--root", str(tmp_path))) == 13
    written = files(tmp_path)
    assert written[HOOK] == 0o755
    assert written[WORKER] == 0o644
    assert written["etc/stapleguard/stapleguard.toml"] == 0o600
    assert "ExecStart=/usr/bin/stapleguard retry %I" in (tmp_path / WORKER).read_text()
    assert run("install", "--root", str(tmp_path)) == []
    assert files(tmp_path) == written


def test_the_page_and_the_completion_of_each_shell_are_where_it_looks(tmp_path: Path) -> None:
    run("install", "--root", str(tmp_path))
    share = tmp_path / "usr/share"
    assert (share / "man/man1/stapleguard.1").read_text() == page()
    for place, text in (
        ("bash-completion/completions/stapleguard", completion.bash()),
        ("zsh/vendor-completions/_stapleguard", completion.zsh()),
        ("fish/vendor_completions.d/stapleguard.fish", completion.fish()),
    ):
        assert (share / place).read_text() == text


def test_what_a_person_changed_is_kept(tmp_path: Path) -> None:
    run("install", "--root", str(tmp_path))
    (tmp_path / WORKER).write_text("# mine\n")
    (tmp_path / HOOK).write_text("#!/bin/sh\n# mine too\n")
    (tmp_path / "etc/stapleguard/stapleguard.toml").write_text("generations = 7\n")
    said = run("install", "--root", str(tmp_path))
    assert len([one for one in said if "was changed" in one]) == 2
    assert (tmp_path / f"{WORKER}.stapleguard-saved1").read_text() == "# mine\n"
    # certbot runs whatever is executable there.
    assert (tmp_path / f"{HOOK}.stapleguard-saved1").stat().st_mode & 0o111 == 0
    assert (tmp_path / "etc/stapleguard/stapleguard.toml").read_text() == "generations = 7\n"
    assert "ExecStart" in (tmp_path / WORKER).read_text()


def test_uninstall_leaves_what_is_not_ours(tmp_path: Path) -> None:
    run("install", "--root", str(tmp_path), "--program", "/opt/it/bin/stapleguard")
    assert "exec /opt/it/bin/stapleguard hook" in (tmp_path / HOOK).read_text()
    (tmp_path / "usr/lib/systemd/system/other.service").write_text("")
    run("uninstall", "--root", str(tmp_path))
    left = {path for path in files(tmp_path) if not path.endswith("saved1")}
    assert left == {"usr/lib/systemd/system/other.service", "etc/stapleguard/stapleguard.toml"}


def test_a_program_that_a_unit_cannot_start_is_refused(tmp_path: Path) -> None:
    (said,) = run("install", "--root", str(tmp_path), "--program", "/opt/my programs/x", status=2)
    assert "hint: " in said


def test_the_default_configuration_changes_nothing_and_names_every_key() -> None:
    text = default_configuration()
    assert parse(text, "the.toml") == Config()
    for key in SCHEMA:
        assert f"# {key.rpartition('.')[2]} = " in text
    # Every default that is shown is one that would be taken.
    shown = [one.removeprefix("# ") for one in text.splitlines() if one.startswith(("# [", "# "))]
    toml = "\n".join(one for one in shown if (one.startswith("[") and "lineage" not in one) or " = " in one)
    kept = [one for one in toml.splitlines() if "not set" not in one and "example.org" not in one]
    tomllib.loads("\n".join(kept))
    assert parse("\n".join(kept), "the.toml") == Config()


def test_a_wheel_has_the_units(tmp_path: Path) -> None:
    """Without building one (that needs the network): the list that setuptools takes them from."""
    from configparser import ConfigParser

    from lab.tools import REPOSITORY

    read = ConfigParser()
    read.read(REPOSITORY / "setup.cfg")
    (pattern,) = read["options.data_files"]["share/stapleguard/systemd"].split()
    assert sorted(REPOSITORY.glob(pattern)) == sorted((REPOSITORY / "systemd").iterdir())
