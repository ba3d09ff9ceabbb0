"""Trouble in the middle: a signal, a bad disk, a server that is only watched, a chain that lacks a link."""

from __future__ import annotations

import contextlib
import http.server
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from lab.tools import require
from site_lab import NAME, Site
from stapleguard.rehearsal.responder import Mode
from stapleguard.rehearsal.webserver import find_nginx

Mount = Callable[..., None]
pytestmark = pytest.mark.server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("nginx")
    binary = find_nginx()
    assert binary
    made = Site(binary, tmp_path)
    yield made
    made.close()


def stopped_at(site: Site, words: str, number: int) -> int:
    """Send a signal when the timeline says `words`; return the exit status."""
    argv = site.argv("deploy", str(site.lineage))
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if words in line:
                child.send_signal(number)
                break
        child.stderr.read()
        return child.wait(30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_publishing_leaves_the_old_state(site: Site, number: int) -> None:
    site.open()
    live = site.live()
    site.configure("", "[responder]\nwait = 60\npatience = 60\n")
    new = site.renew(must_staple=True)
    site.responder.set_mode_for(new.certificate.serial_number, Mode.TRY_LATER)
    assert stopped_at(site, "asking again", number) == 130
    assert site.live() == live
    assert site.run("check", NAME).status == 0
    site.responder.set_mode_for(new.certificate.serial_number, Mode.GOOD)
    assert site.deploy().status == 0
    assert site.live() != live


def test_a_signal_after_the_reload_is_finished_by_the_next_run(site: Site) -> None:
    site.open()
    new = site.renew()
    site.responder.set_mode_for(new.certificate.serial_number, Mode.SILENT)
    assert stopped_at(site, "reloaded nginx", signal.SIGTERM) == 130
    site.responder.set_mode_for(new.certificate.serial_number, Mode.GOOD)
    healed = site.run("recover", "--json")
    assert (healed.status, healed.json["recovered"]) == (0, [NAME])
    assert site.run("recover", "--json").json["recovered"] == []


@pytest.fixture
def small_disk(site: Site) -> Iterator[Callable[..., None]]:
    """The state directory on a disk of its own, 512 KiB; call it with mount options to change it."""
    site.state.mkdir(mode=0o700)

    def mount(*words: str) -> None:
        subprocess.run(["mount", *words, str(site.state)], check=True, capture_output=True)

    try:
        mount("-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root")
    yield mount
    site.nginx.stop()
    subprocess.run(["umount", str(site.state)], check=True)


def test_a_full_disk_refuses_and_the_old_serves(site: Site, small_disk: Mount) -> None:
    site.open()
    live = site.live()
    site.renew()
    ballast = site.state / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    full = site.deploy()
    assert (full.status, full.json["verdict"], full.json["cause"]) == (4, "refused", "host.disk-full")
    assert site.live() == live
    assert site.run("check", NAME).status == 0
    ballast.unlink()
    assert site.deploy().status == 0


def test_a_read_only_disk_refuses_and_the_old_serves(site: Site, small_disk: Callable[..., None]) -> None:
    site.open()
    live = site.live()
    site.renew()
    small_disk("-o", "remount,ro")
    frozen = site.deploy()
    assert (frozen.status, frozen.json["cause"]) == (4, "host.permission")
    assert site.live() == live
    small_disk("-o", "remount,rw")
    assert site.deploy().status == 0


def watch(site: Site) -> None:
    """Let the server point at the ACME client's own directory, as most do."""
    site.nginx.write_config(
        f"resolver {site.resolver.address} ipv6=off;"
        f"server {{ listen 127.0.0.1:{site.port} ssl; server_name {NAME}; ssl_stapling on;"
        f'ssl_certificate "{site.lineage}/fullchain.pem";'
        f'ssl_certificate_key "{site.lineage}/privkey.pem"; }}'
    )


def test_a_watched_server_is_proved_and_told_how_to_be_guarded(site: Site) -> None:
    site.renew()
    watch(site)
    site.nginx.start(site.port)
    site.renew()
    ended = site.deploy()
    assert (ended.status, ended.json["verdict"], ended.json["mode"]) == (0, "verified", "watch")
    told = [one for one in ended.json["findings"] if one["code"] == "server.not-guarded"]
    assert len(told) == 1
    assert f"include {site.state}/live/{NAME}/nginx.conf;" in told[0]["remedy"]


def test_a_watched_server_is_found_again_by_its_name_alone(site: Site) -> None:
    site.renew()
    watch(site)
    site.nginx.start(site.port)
    assert site.deploy().status == 0
    assert site.run("check", NAME, "--json").status == 0
    site.responder.set_mode(Mode.HTTP_500)
    site.nginx.start(site.port)
    assert site.run("doctor", NAME, "--json").json["cause"] == "responder.http-error"


def test_a_watched_server_is_never_rolled_back(site: Site) -> None:
    site.configure('missing_staple = "rollback"', "[responder]\npatience = 0\n")
    site.renew()
    watch(site)
    site.nginx.start(site.port)
    assert site.deploy().status == 0
    new = site.renew()
    site.responder.set_mode_for(new.certificate.serial_number, Mode.UNAUTHORIZED)
    ended = site.deploy()
    assert (ended.status, ended.json["cause"]) == (3, "ocsp.unauthorized")


@contextlib.contextmanager
def issuers(body: bytes | None) -> Iterator[str]:
    """Serve an issuer's certificate as a CA does; 404 without one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "application/pkix-cert")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/issuer.cer"
        server.shutdown()


def test_a_missing_intermediate_is_fetched_and_served(site: Site) -> None:
    site.open()
    with issuers(site.authority.intermediate.public_bytes(serialization.Encoding.DER)) as url:
        leaf_only(site, url)
        ended = site.deploy()
    assert (ended.status, ended.json["verdict"]) == (0, "verified")
    assert "fetched it from" in ended.err
    assert len(ended.json["endpoints"][0]["chain_sha256"]) == 2


def test_a_missing_intermediate_that_nobody_has_is_refused(site: Site) -> None:
    site.open()
    live = site.live()
    with issuers(None) as url:
        leaf_only(site, url)
        ended = site.deploy()
    assert (ended.status, ended.json["cause"]) == (4, "material.chain-incomplete")
    assert site.live() == live


def leaf_only(site: Site, url: str) -> None:
    """Renew to a lineage that lacks its chain."""
    site.renew(ca_issuers_url=url)
    (site.lineage / "chain.pem").unlink()
    fullchain = site.lineage / "fullchain.pem"
    fullchain.unlink()
    fullchain.symlink_to((site.lineage / "cert.pem").readlink())
