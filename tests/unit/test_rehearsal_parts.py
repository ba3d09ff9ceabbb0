"""The parts of the fire drill over real sockets: a responder, a resolver, a child process, an nginx."""

from __future__ import annotations

import base64
import os
import select
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from stapleguard.host import Child
from stapleguard.model import StapleguardError
from stapleguard.rehearsal.authority import Authority, Issued
from stapleguard.rehearsal.resolver import Resolver
from stapleguard.rehearsal.responder import Mode, Responder
from stapleguard.rehearsal.webserver import Nginx, find_nginx, free_port

pytestmark = pytest.mark.unit

NOW = datetime(2031, 3, 4, 5, 6, 7, tzinfo=UTC)
AUTHORITY = Authority.create(NOW)
LEAF = AUTHORITY.issue(["a.test"], NOW)


def request_for(leaf: Issued = LEAF) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        leaf.certificate, AUTHORITY.intermediate, hashes.SHA1()
    )
    return builder.build().public_bytes(serialization.Encoding.DER)


@pytest.fixture
def responder() -> Iterator[Responder]:
    with Responder(AUTHORITY, lambda: NOW) as one:
        yield one


def post(responder: Responder, body: bytes, timeout: float = 10) -> tuple[str, bytes]:
    url = f"http://127.0.0.1:{responder.port}/"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=timeout) as reply:
        return reply.headers["Content-Type"], reply.read()


def answer(responder: Responder, leaf: Issued = LEAF) -> ocsp.OCSPResponse:
    media_type, body = post(responder, request_for(leaf))
    assert media_type == "application/ocsp-response"
    return ocsp.load_der_ocsp_response(body)


class TestResponder:
    def test_get_and_post_give_a_good_answer_about_the_certificate(self, responder: Responder) -> None:
        encoded = "".join(f"%{byte:02X}" for byte in base64.b64encode(request_for()))
        with urllib.request.urlopen(f"http://127.0.0.1:{responder.port}/{encoded}", timeout=10) as reply:
            got = ocsp.load_der_ocsp_response(reply.read())
        for one in (got, answer(responder)):
            assert one.certificate_status is ocsp.OCSPCertStatus.GOOD
            assert one.serial_number == LEAF.certificate.serial_number
            assert one.this_update_utc <= NOW < (one.next_update_utc or NOW)
        assert [(hit.method, hit.serial, hit.mode) for hit in responder.hits] == [
            ("GET", LEAF.certificate.serial_number, Mode.GOOD),
            ("POST", LEAF.certificate.serial_number, Mode.GOOD),
        ]
        assert responder.hits[0].at <= responder.hits[1].at

    def test_what_is_no_request_is_malformed(self, responder: Responder) -> None:
        body = post(responder, b"nonsense")[1]
        status = ocsp.load_der_ocsp_response(body).response_status
        assert status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST
        assert responder.hits[0].serial is None

    @pytest.mark.parametrize(
        ("mode", "status"),
        [
            (Mode.TRY_LATER, ocsp.OCSPResponseStatus.TRY_LATER),
            (Mode.UNAUTHORIZED, ocsp.OCSPResponseStatus.UNAUTHORIZED),
            (Mode.INTERNAL_ERROR, ocsp.OCSPResponseStatus.INTERNAL_ERROR),
        ],
    )
    def test_refusals(self, responder: Responder, mode: Mode, status: ocsp.OCSPResponseStatus) -> None:
        responder.set_mode(mode)
        assert answer(responder).response_status is status

    def test_wrong_answers_are_wrong_in_one_way(self, responder: Responder) -> None:
        def verifies(one: ocsp.OCSPResponse) -> bool:
            key, digest = AUTHORITY.intermediate.public_key(), one.signature_hash_algorithm
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert digest is not None
            try:
                key.verify(one.signature, one.tbs_response_bytes, ec.ECDSA(digest))
            except InvalidSignature:
                return False
            return True

        seen = {}
        for mode in (
            Mode.GOOD,
            Mode.REVOKED,
            Mode.UNKNOWN,
            Mode.EXPIRED,
            Mode.WRONG_KEY,
            Mode.OTHER_CERTIFICATE,
        ):
            responder.set_mode(mode)
            one = answer(responder)
            fresh = (one.next_update_utc or NOW) > NOW
            ours = one.serial_number == LEAF.certificate.serial_number
            seen[mode] = (one.certificate_status.name, fresh, verifies(one), ours)
        assert seen == {
            Mode.GOOD: ("GOOD", True, True, True),
            Mode.REVOKED: ("REVOKED", True, True, True),
            Mode.UNKNOWN: ("UNKNOWN", True, True, True),
            Mode.EXPIRED: ("GOOD", False, True, True),
            Mode.WRONG_KEY: ("GOOD", True, False, True),
            Mode.OTHER_CERTIFICATE: ("GOOD", True, True, False),
        }

    def test_http_troubles(self, responder: Responder) -> None:
        responder.set_mode(Mode.HTTP_500)
        with pytest.raises(urllib.error.HTTPError, match="500") as raised:
            post(responder, request_for())
        raised.value.close()
        responder.set_mode(Mode.WRONG_TYPE)
        media_type, body = post(responder, request_for())
        assert media_type == "text/html"
        assert ocsp.load_der_ocsp_response(body).response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
        responder.set_mode(Mode.GARBAGE)
        with pytest.raises(ValueError, match="pars"):
            ocsp.load_der_ocsp_response(post(responder, request_for())[1])
        responder.set_mode(Mode.SILENT)
        with pytest.raises(TimeoutError):
            post(responder, request_for(), timeout=0.2)

    def test_a_mode_for_one_certificate_leaves_the_others(self, responder: Responder) -> None:
        other = AUTHORITY.issue(["b.test"], NOW)
        responder.set_mode_for(LEAF.certificate.serial_number, Mode.TRY_LATER)
        assert answer(responder).response_status is ocsp.OCSPResponseStatus.TRY_LATER
        assert answer(responder, other).response_status is ocsp.OCSPResponseStatus.SUCCESSFUL

    def test_waits_for_hits(self, responder: Responder) -> None:
        assert not responder.wait_hits(1, 0.01)
        answer(responder)
        assert responder.wait_hits(1, 5)


class TestResolver:
    def test_answers_from_the_zone_and_denies_the_rest(self) -> None:
        with Resolver({"Responder.test.": ["127.0.0.1", "127.0.0.2", "::1"]}) as resolver:

            def ask(name: str, kind: str) -> tuple[str, list[str]]:
                address, port = resolver.address.split(":")
                got = dns.query.udp(dns.message.make_query(name, kind), address, port=int(port), timeout=10)
                return dns.rcode.to_text(got.rcode()), sorted(
                    str(one) for rrset in got.answer for one in rrset
                )

            assert ask("responder.TEST", "A") == ("NOERROR", ["127.0.0.1", "127.0.0.2"])
            assert ask("responder.test", "AAAA") == ("NOERROR", ["::1"])
            assert ask("responder.test", "MX") == ("NOERROR", [])
            assert ask("other.test", "A") == ("NXDOMAIN", [])
            resolver.zone = {"other.test": ["127.0.0.3"]}
            assert ask("other.test", "A") == ("NOERROR", ["127.0.0.3"])
            assert ask("responder.test", "A") == ("NXDOMAIN", [])
            assert resolver.queries == (*["responder.test"] * 3, *["other.test"] * 2, "responder.test")
            assert resolver.answer(b"nonsense") is None


def fifo_of(tmp_path: Path) -> tuple[Path, int]:
    """Make a pipe that a process keeps open while it lives, and our end of it."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    return fifo, os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)


def said(reader: int) -> bytes:
    assert select.select([reader], [], [], 10)[0], "nothing came"
    return os.read(reader, 100)


@pytest.fixture
def heeds_quit() -> Iterator[None]:
    """A test run in the background of a script was told to ignore it, and so would be its children."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGQUIT, before)


class TestChild:
    @pytest.mark.usefixtures("heeds_quit")
    @pytest.mark.parametrize(
        ("ignored", "patience", "status"), [("", 10.0, 131), ("QUIT", 0.2, 143), ("QUIT TERM", 0.2, 137)]
    )
    def test_stops_what_does_not_want_to(
        self, tmp_path: Path, ignored: str, patience: float, status: int
    ) -> None:
        """The grandchild holds the pipe, too: it reads as closed only when the whole group is dead."""
        fifo, reader = fifo_of(tmp_path)
        trap = f"trap '' {ignored}; " if ignored else ""
        script = f"exec >{fifo}; {trap}sleep 60 & echo up $WORD; while :; do sleep 0.05; done"
        child = Child.spawn(["sh", "-c", script], tmp_path, tmp_path / "log", {"WORD": "there"})
        assert said(reader) == b"up there\n"
        assert child.poll() is None
        assert child.stop(patience) == status
        assert (child.poll(), child.stop(0.2)) == (status, status)
        assert said(reader) == b""
        os.close(reader)

    def test_tells_how_it_ended_and_logs(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        for argv, status in ((["sh", "-c", "pwd; exit 3"], 3), ([str(tmp_path / "none")], 127)):
            child = Child.spawn(argv, tmp_path, log)
            descriptor = os.pidfd_open(child.pid)
            assert select.select([descriptor], [], [], 10)[0]
            os.close(descriptor)
            assert child.poll() == status
            assert child.stop(0) == status
        assert log.read_text() == f"{tmp_path}\n{tmp_path}/none: No such file or directory\n"

    def test_dies_with_its_parent(self, tmp_path: Path) -> None:
        fifo, reader = fifo_of(tmp_path)
        program = (
            "import sys, time; from pathlib import Path; from stapleguard.host import Child\n"
            f"script = 'exec >{fifo}; echo up; exec sleep 60'\n"
            "Child.spawn(['sh', '-c', script], Path('/'), Path('/dev/null'))\n"
            "time.sleep(60)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen([sys.executable, "-c", program], env=environment) as parent:
            try:
                assert said(reader) == b"up\n"
                assert not select.select([reader], [], [], 0)[0]
            finally:
                parent.send_signal(signal.SIGKILL)
        assert said(reader) == b""
        os.close(reader)


@pytest.mark.skipif(find_nginx() is None, reason="no nginx on this host")
class TestNginx:
    def test_starts_accepts_and_stops(self, tmp_path: Path) -> None:
        port = free_port()
        with Nginx(find_nginx() or "", tmp_path, workers=1) as nginx:
            nginx.write_config(f"server {{ listen 127.0.0.1:{port}; return 204; }}")
            nginx.start(port)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as reply:
                assert reply.status == 204
            pid = nginx.pid
            assert (tmp_path / "nginx.pid").read_text().strip() == str(pid)
        assert not Path(f"/proc/{pid}").exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with pytest.raises(StapleguardError, match="not running"):
            _ = nginx.pid

    def test_a_refused_configuration_is_told_in_the_words_of_nginx(self, tmp_path: Path) -> None:
        with Nginx(find_nginx() or "", tmp_path, workers=1) as nginx:
            nginx.write_config("no_such_directive on;")
            with pytest.raises(StapleguardError, match=r"ended with status 1: .*no_such_directive"):
                nginx.start(free_port())
