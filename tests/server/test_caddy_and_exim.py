"""Real Caddy and Exim, which are only looked at: what they staple is proved, what they do not is named."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from lab.mail import view
from lab.net import accepts
from lab.tools import executable, require
from real_nginx import free_port, until
from site_lab import NAME, Site
from stapleguard.rehearsal.authority import GOOD_ANSWER, AnswerOptions, Issued
from stapleguard.rehearsal.responder import Mode

pytestmark = pytest.mark.server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("nginx", "caddy", "servers")
    made = Site(str(executable("nginx")), tmp_path)
    made.nginx.write_config("")
    yield made
    made.close()


@contextmanager
def running(
    site: Site, argv: Sequence[str], port: int, more: Mapping[str, str] | None = None
) -> Iterator[None]:
    home = {
        "HOME": str(site.directory),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        **(more or {}),
    }
    with (site.directory / "daemon.log").open("ab") as log:
        child = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *argv], stdout=log, stderr=log, env=home)
    try:
        until(lambda: accepts("127.0.0.1", port))
        yield
    finally:
        child.terminate()
        child.wait(10)


@contextmanager
def caddy(site: Site) -> Iterator[int]:
    port, config = free_port(), site.directory / "Caddyfile"
    config.write_text(
        f"{{\n admin off\n auto_https disable_redirects\n skip_install_trust\n"
        f" storage file_system {site.directory}/caddy\n}}\n"
        f"https://{NAME}:{port} {{\n bind 127.0.0.1\n"
        f" tls {site.lineage}/fullchain.pem {site.lineage}/privkey.pem\n respond ok\n}}\n"
    )
    argv = [
        str(executable("caddy")),
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        str(config),
    ]
    places = {f"XDG_{kind}_HOME": str(site.directory / "xdg") for kind in ("DATA", "CONFIG")}
    with running(site, argv, port, places):
        yield port


@contextmanager
def exim(site: Site, staple: bytes) -> Iterator[int]:
    port, folder = free_port(), site.directory / "exim"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    (folder / "staple.der").write_bytes(staple)
    for kind in ("fullchain", "privkey"):
        (folder / f"{kind}.pem").write_bytes((site.lineage / f"{kind}.pem").read_bytes())
    config = site.directory / "exim.conf"
    config.write_text(
        f"exim_user = root\nexim_group = root\nspool_directory = {folder}\n"
        f"log_file_path = {folder}/%slog\npid_file_path =\nprimary_hostname = {NAME}\n"
        f"local_interfaces = 127.0.0.1\ndaemon_smtp_ports = {port}\ntls_advertise_hosts = *\n"
        f"tls_certificate = {folder}/fullchain.pem\ntls_privatekey = {folder}/privkey.pem\n"
        f"tls_ocsp_file = {folder}/staple.der\nbegin acl\nbegin routers\nbegin transports\n"
    )
    argv = ["/usr/sbin/exim4", "-C", str(config), "-bdf", "-oP", f"{folder}/pid"]
    with ExitStack() as stack:
        stack.enter_context(running(site, [*view(stack, site.directory), *argv], port))
        yield port


def asked(site: Site, command: str, place: str) -> Any:
    return site.run(command, place, "--sni", NAME, "--json", timeout=120).json


def staple(site: Site, issued: Issued, options: AnswerOptions) -> bytes:
    """An answer as the responder of the authority gives it, kept in a file."""
    request = ocsp.OCSPRequestBuilder().add_certificate(issued.certificate, issued.chain[0], hashes.SHA1())
    der = request.build().public_bytes(serialization.Encoding.DER)
    return site.authority.answer(der, datetime.now(UTC), options)


def test_caddy_staples_and_is_proved(site: Site) -> None:
    site.renew()
    with caddy(site) as port:
        told = asked(site, "check", f"127.0.0.1:{port}")
        assert (told["verdict"], told["cause"]) == ("verified", None), told


def test_caddy_without_an_answer_is_told_why(site: Site) -> None:
    site.renew()
    site.responder.set_mode(Mode.HTTP_500)
    with caddy(site) as port:
        told = asked(site, "doctor", f"127.0.0.1:{port}")
        assert (told["verdict"], told["cause"]) == (
            "degraded",
            "responder.http-error",
        ), told
        assert "server.unsupported" not in str(told["findings"])


def test_exim_staples_its_file_and_is_proved_by_starttls(site: Site) -> None:
    issued = site.renew()
    with exim(site, staple(site, issued, GOOD_ANSWER)) as port:
        told = asked(site, "check", f"smtp://127.0.0.1:{port}")
        assert (told["verdict"], told["cause"]) == ("verified", None), told


def test_exim_with_an_expired_file_speaks_no_tls_at_all_and_that_is_said(
    site: Site,
) -> None:
    issued = site.renew()
    past = AnswerOptions(this_update=timedelta(days=-8), next_update=timedelta(days=-1))
    with exim(site, staple(site, issued, past)) as port:
        # To a check it says nothing of the certificate; the doctor knows whose fault it is.
        for command, verdict in (("check", "inconclusive"), ("doctor", "degraded")):
            told = asked(site, command, f"smtp://127.0.0.1:{port}")
            assert told["verdict"] == verdict, told
            assert "454 TLS currently unavailable" in str(told["findings"])
            (about,) = [one for one in told["findings"] if one["code"] == "server.staple-file-bad"]
            assert "Exim: a bad tls_ocsp_file breaks TLS itself" in about["message"]
