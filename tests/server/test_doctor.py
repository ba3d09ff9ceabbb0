"""`doctor` of a lineage, as somebody who may see little, and where a program is only looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from lab.tools import executable, require
from real_nginx import free_port, until
from real_servers import APACHE, HAPROXY, LIGHTTPD, Guarded, Recipe, guarded
from site_lab import NAME, Site
from stapleguard.rehearsal.responder import Mode
from stapleguard.rehearsal.webserver import find_nginx

pytestmark = pytest.mark.server

slow = pytest.mark.skipif(
    os.environ.get("STAPLEGUARD_FAULTS") != "all", reason="played by `make faults`: it takes some seconds"
)


@pytest.fixture
def wide() -> Iterator[Path]:
    """A directory that everybody can enter, which pytest's are not."""
    with TemporaryDirectory(prefix="stapleguard-doctor-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def site(wide: Path) -> Iterator[Site]:
    require("nginx")
    binary = find_nginx()
    assert binary is not None
    made = Site(binary, wide, 1)
    yield made
    made.close()


def told(site: Site, *words: str) -> Any:
    return site.run("doctor", *words, "--json").json


# --- a lineage -------------------------------------------------------------------------------------------


@slow
def test_a_deployed_lineage_on_apache_is_well_until_its_responder_is_not(tmp_path: Path) -> None:
    with guarded(APACHE, tmp_path) as on:
        on.open()
        well = told(on.site, NAME)
        assert (well["verdict"], well["cause"], well["lineage"]) == ("verified", None, NAME)
        assert well["server"]["kind"] == "apache"
        on.site.responder.set_mode(Mode.HTTP_500)
        restarted(on)
        sick = told(on.site, NAME)
        assert (sick["exit"], sick["cause"]) == (3, "responder.http-error"), sick["findings"]
        assert "apachectl graceful" in sick["findings"][0]["remedy"]


@pytest.mark.parametrize("recipe", [pytest.param(HAPROXY, marks=slow, id="haproxy"), LIGHTTPD])
def test_a_deployed_lineage_whose_staple_is_gone(tmp_path: Path, recipe: Recipe) -> None:
    with guarded(recipe, tmp_path) as on:
        on.open()
        assert told(on.site, NAME)["verdict"] == "verified"
        for path in (on.live / "bundle.pem.ocsp", on.live / "ocsp.der"):
            path.unlink(missing_ok=True)
        restarted(on)
        sick = told(on.site, NAME)
        wanted = "server.stapling-disabled" if recipe is HAPROXY else "server.staple-file-bad"
        assert (sick["exit"], sick["cause"]) == (3, wanted), sick["findings"]


@slow
@pytest.mark.parametrize(
    ("mode", "cause"),
    [
        (Mode.HTTP_500, "responder.http-error"),
        (Mode.TRY_LATER, "ocsp.try-later"),
        (Mode.EXPIRED, "ocsp.expired"),
        (Mode.WRONG_KEY, "server.serves-bad-staple"),
    ],
)
def test_a_deploy_that_fails_names_the_cause_that_doctor_names(
    tmp_path: Path, mode: Mode, cause: str
) -> None:
    with guarded(APACHE, tmp_path) as on:
        on.open()
        on.site.responder.set_mode(mode)
        on.site.renew()
        ended = on.deploy()
        assert ended.json["cause"] == cause, ended.json["findings"]
        if ended.json["verdict"] in ("degraded", "pending"):  # otherwise the old generation is back
            assert told(on.site, NAME)["cause"] == cause


def restarted(on: Guarded) -> None:
    on.server.stop()
    on.server.start()


# --- what is hidden --------------------------------------------------------------------------------------

_AS_NOBODY = """
import encodings.idna, importlib, os, pkgutil, sys, tomllib, stapleguard
for one in pkgutil.walk_packages(stapleguard.__path__, "stapleguard."):
    if not one.name.endswith("__main__") and "apprise" not in one.name:
        importlib.import_module(one.name)
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
from stapleguard.cli import main
main(sys.argv[1:])
"""


def as_nobody(site: Site, *words: str) -> str:
    """Run the program as a user who owns nothing; all of it is imported before, from wherever it lies."""
    argv = [sys.executable, "-c", _AS_NOBODY, *site.argv(*words)[3:]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, (done.returncode, done.stderr)
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_is_told_what_was_not_seen_and_what_it_takes(site: Site) -> None:
    site.open()
    site.responder.set_mode(Mode.TRY_LATER)
    site.nginx.stop()
    site.nginx.start(site.port)
    (site.directory / "nginx").chmod(0o755)
    place = f"127.0.0.1:{site.port}"
    document = json.loads(as_nobody(site, "doctor", place, "--sni", NAME, "--json"))
    assert (document["exit"], document["cause"]) == (3, "ocsp.try-later")
    takes = {one["what"]: one["takes"] for one in document["unseen"]}
    assert any("root" in one for one in takes.values()), takes
    people = as_nobody(site, "doctor", place, "--sni", NAME)
    assert "not looked at" in people
    assert "root" in people.partition("not looked at")[2]
    everything = told(site, place, "--sni", NAME)
    assert everything["cause"] == "ocsp.try-later"
    assert len(everything["unseen"]) < len(document["unseen"])


@slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("recipe", [APACHE, HAPROXY, LIGHTTPD])
def test_what_may_not_be_read_is_not_held_to_be_missing(wide: Path, recipe: Recipe) -> None:
    with guarded(recipe, wide) as on:
        on.open()
        # The main file can be read; what it includes stays ours.
        on.server.directory.chmod(0o755)
        place = (f"127.0.0.1:{on.server.port}", "--sni", NAME, "--json")
        well = json.loads(as_nobody(on.site, "doctor", *place))
        assert (well["verdict"], well["cause"]) == ("verified", None), well["findings"]
        on.site.responder.set_mode(Mode.TRY_LATER)
        for path in on.live.glob("*oc*"):
            path.unlink()  # the staple file, where it has one
        restarted(on)
        sick = json.loads(as_nobody(on.site, "doctor", *place))
        assert sick["cause"] == "ocsp.try-later", sick["findings"]
        assert [one for one in sick["unseen"] if "root" in one["takes"]]
        critical = {one["code"] for one in sick["findings"] if one["severity"] == "critical"}
        assert not [one for one in critical if one.startswith("server.")]


@slow
def test_an_nginx_that_logs_to_its_standard_error_only_is_listened_to_where_that_is_a_file(
    site: Site,
) -> None:
    site.open()
    site.responder.set_mode(Mode.TRY_LATER)
    config = site.nginx.config
    site.nginx.stop()
    config.write_text(
        config.read_text().replace(f'error_log "{site.nginx.log}" info;', "error_log stderr info;")
    )
    site.nginx.start(site.port)
    document = told(site, f"127.0.0.1:{site.port}", "--sni", NAME)
    assert document["cause"] == "ocsp.try-later", document["findings"]
    assert not [one for one in document["unseen"] if "log" in one["what"]]


@slow
def test_an_nginx_that_logs_to_nowhere_that_we_know_is_said_to(site: Site) -> None:
    site.open()
    site.responder.set_mode(Mode.TRY_LATER)
    config = site.nginx.config
    site.nginx.stop()
    quiet = config.read_text().replace(
        f'error_log "{site.nginx.log}" info;', "error_log syslog:server=127.0.0.1:9 info;"
    )
    config.write_text(quiet.replace("daemon off;", "daemon on;"))
    argv = [site.binary, *site.nginx.arguments]
    subprocess.run(
        argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        document = told(site, f"127.0.0.1:{site.port}", "--sni", NAME)
        assert document["cause"] == "ocsp.try-later", document["findings"]
        (log,) = [one for one in document["unseen"] if "log" in one["what"]]
        assert log["takes"]
    finally:
        subprocess.run([*argv, "-s", "stop"], check=True, stderr=subprocess.DEVNULL)


# --- programs that are only looked at --------------------------------------------------------------------


@contextmanager
def tls_server(site: Site, program: str) -> Iterator[int]:
    """stunnel, which sends no staple, under the name of another program."""
    port, config = free_port(), site.directory / "stunnel.conf"
    config.write_text(
        f"foreground = yes\npid =\n[site]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:9\n"
        f"cert = {site.lineage}/fullchain.pem\nkey = {site.lineage}/privkey.pem\n"
    )
    binary = site.directory / program
    binary.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(executable("stunnel4"), binary)
    with (site.directory / "stunnel.log").open("wb") as log:
        argv = ["setpriv", "--pdeathsig", "TERM", str(binary), str(config)]
        child = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        until(lambda: "Configuration successful" in (site.directory / "stunnel.log").read_text())
        yield port
    finally:
        child.terminate()
        child.wait(10)


@pytest.mark.parametrize(
    ("program", "name", "cause"),
    [
        pytest.param(
            "caddy", "Caddy", "ocsp.try-later", marks=slow
        ),  # it would fetch, so what the responder says is why
        pytest.param("exim4", "Exim", "server.stapling-disabled", marks=slow),  # it takes a file
        pytest.param("lib/postfix/sbin/master", "Postfix", "server.unsupported", marks=slow),
        ("dovecot", "Dovecot", "server.unsupported"),
        pytest.param("stunnel4", "stunnel", "server.unsupported", marks=slow),
    ],
)
def test_what_is_known_of_a_program_is_said_and_nobody_else_is_blamed(
    site: Site, program: str, name: str, cause: str
) -> None:
    require("stunnel4")
    site.renew()
    site.responder.set_mode(Mode.TRY_LATER)
    with tls_server(site, program) as port:
        document = told(site, f"127.0.0.1:{port}", "--sni", NAME)
    assert (document["exit"], document["cause"]) == (3, cause), document["findings"]
    assert document["server"]["kind"] == name
    assert any(name in one["what"] for one in document["unseen"])
    critical = {one["code"] for one in document["findings"] if one["severity"] == "critical"}
    assert critical <= {cause}


def test_a_program_that_cannot_staple_is_no_trouble_where_none_is_owed(site: Site) -> None:
    require("stunnel4")
    site.renew(ocsp_url=None)
    with tls_server(site, "dovecot") as port:
        document = told(site, f"127.0.0.1:{port}", "--sni", NAME)
    assert (document["exit"], document["verdict"]) == (0, "not-applicable")
