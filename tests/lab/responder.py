"""An OCSP responder with the issuer's own key (RFC 6960 section 4.2.2.2) that can be told what it knows.

It is independent of the product: what the product sends is read, and what it gets is made, by `cryptography`.
"""

from __future__ import annotations

import base64
import datetime as dt
import socketserver
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp


class Responder:
    """Answers `good` for every serial until told otherwise. `asked` has the serial of each request so far."""

    def __init__(self, address: str, port: int, certificate: Path, key: Path) -> None:
        self._issuer = x509.load_pem_x509_certificate(certificate.read_bytes())
        self._key = serialization.load_pem_private_key(key.read_bytes(), None)
        self._lock = threading.Lock()
        self._known: frozenset[int] | None = None
        self._asked: list[int] = []
        self._server = _Server((address, port), self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="ocsp responder"
        )
        self._thread.start()

    def __enter__(self) -> Responder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def know_only(self, *serials: int) -> None:
        """From now on every other certificate gets `unauthorized`, as from a CA that does not know it yet."""
        with self._lock:
            self._known = frozenset(serials)

    def know_all(self) -> None:
        """Answer `good` for everything again."""
        with self._lock:
            self._known = None

    @property
    def asked(self) -> tuple[int, ...]:
        """The serials asked for, in order."""
        with self._lock:
            return tuple(self._asked)

    def answer(self, request_der: bytes) -> bytes:
        """The response (DER) to one request (DER)."""
        request = ocsp.load_der_ocsp_request(request_der)
        with self._lock:
            self._asked.append(request.serial_number)
            known = self._known is None or request.serial_number in self._known
        if not known:
            refused = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)
            return refused.public_bytes(serialization.Encoding.DER)
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            issuer_name_hash=request.issuer_name_hash,
            issuer_key_hash=request.issuer_key_hash,
            serial_number=request.serial_number,
            algorithm=request.hash_algorithm,
            cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=now - dt.timedelta(minutes=1),
            next_update=now + dt.timedelta(days=7),
            revocation_time=None,
            revocation_reason=None,
        )
        signed = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self._issuer).sign(
            self._key, hashes.SHA256()
        )
        return signed.public_bytes(serialization.Encoding.DER)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing: `asked` is the log."""

    def do_GET(self) -> None:
        self._send(base64.b64decode(urllib.parse.unquote(self.path.lstrip("/"))))

    def do_POST(self) -> None:
        self._send(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _send(self, request: bytes) -> None:
        body = self.server.responder.answer(request)
        self.send_response(200)
        self.send_header("Content-Type", "application/ocsp-response")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    # False would keep every handler's thread until close; ours end with their connection.
    daemon_threads = True

    def __init__(self, address: tuple[str, int], responder: Responder) -> None:
        self.responder = responder
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the DNS for our host name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
