"""An OCSP responder over HTTP (RFC 6960 appendix A) that answers well, or wrongly in a chosen way."""

from __future__ import annotations

import base64
import socketserver
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self, assert_never
from urllib.parse import unquote

from cryptography.x509 import ocsp

from stapleguard.host import SystemClock
from stapleguard.rehearsal.authority import GOOD_ANSWER, AnswerOptions, Authority, Signer, refuse

_REQUEST_LIMIT: Final = 1 << 16
_SHUTDOWN_POLL_SECONDS: Final = 0.02
_CLIENT_SECONDS: Final = 10.0
_TYPE: Final = "application/ocsp-response"


class Mode(Enum):
    """How the responder behaves."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    TRY_LATER = "try-later"
    UNAUTHORIZED = "unauthorized"
    INTERNAL_ERROR = "internal-error"
    HTTP_500 = "http-500"
    WRONG_TYPE = "wrong-type"
    """A good answer that calls itself text/html."""
    GARBAGE = "garbage"
    """The right media type over bytes that are no DER."""
    SILENT = "silent"
    """The request is taken and nothing ever comes back."""
    EXPIRED = "expired"
    """A good answer whose nextUpdate was a day ago."""
    WRONG_KEY = "wrong-key"
    """A good answer whose signature does not verify."""
    OTHER_CERTIFICATE = "other-certificate"
    """A good answer about another serial."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One request: `at` in seconds of CLOCK_MONOTONIC, `serial` None when it did not parse."""

    at: float
    method: str
    serial: int | None
    mode: Mode


@dataclass(frozen=True, slots=True)
class _Reply:
    status: HTTPStatus
    media_type: str
    body: bytes


class Responder:
    """The responder of `authority`, serving GET and POST between `with` and its end.

    `now` gives the time of its answers (UTC). Any thread may change the mode at any time; a mode
    set for a serial goes before the mode of all.
    """

    def __init__(self, authority: Authority, now: Callable[[], datetime], host: str = "127.0.0.1") -> None:
        self._authority = authority
        self._now = now
        self._clock = SystemClock()
        self._changed = threading.Condition()
        self._mode = Mode.GOOD
        self._modes: dict[int, Mode] = {}
        self._good = GOOD_ANSWER
        self._hits: list[Hit] = []
        self._closing = threading.Event()
        self._server = _Server((host, 0), self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_SHUTDOWN_POLL_SECONDS,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """The TCP port; connections are queued from the construction on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What goes into a certificate; by name, so that a server has to resolve it."""
        return f"http://localhost:{self.port}/"

    @property
    def hits(self) -> tuple[Hit, ...]:
        """Every request so far, in order."""
        with self._changed:
            return tuple(self._hits)

    def set_mode(self, mode: Mode) -> None:
        """Behave so from the next request on."""
        with self._changed:
            self._mode = mode

    def set_good(self, answer: AnswerOptions) -> None:
        """Say this where the mode is GOOD, from the next request on."""
        with self._changed:
            self._good = answer

    def set_mode_for(self, serial: int, mode: Mode) -> None:
        """Behave so towards requests about this certificate, whatever the mode of all is."""
        with self._changed:
            self._modes[serial] = mode

    def wait_hits(self, count: int, timeout: float) -> bool:
        """Wait until there have been `count` requests in all; False when `timeout` seconds were too few."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._hits) >= count, timeout)

    def reply(self, method: str, request_der: bytes) -> _Reply | None:
        """Note the request and decide on the reply; None, when the responder closes, is none at all."""
        try:
            serial = ocsp.load_der_ocsp_request(request_der).serial_number
        except ValueError:
            serial = None
        with self._changed:
            mode = self._mode if serial is None else self._modes.get(serial, self._mode)
            answer = self._good if mode is Mode.GOOD else _ANSWERS.get(mode, GOOD_ANSWER)
            self._hits.append(Hit(self._clock.monotonic(), method, serial, mode))
            self._changed.notify_all()
        match mode:
            case Mode.SILENT:
                self._closing.wait()
                return None
            case Mode.HTTP_500:
                return _Reply(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"out of order\n")
            case Mode.WRONG_TYPE:
                body = self._authority.answer(request_der, self._now())
                return _Reply(HTTPStatus.OK, "text/html", body)
            case Mode.GARBAGE:
                return _Reply(HTTPStatus.OK, _TYPE, b"this is not DER")
            case Mode.TRY_LATER:
                return _Reply(HTTPStatus.OK, _TYPE, refuse(ocsp.OCSPResponseStatus.TRY_LATER))
            case Mode.UNAUTHORIZED:
                return _Reply(HTTPStatus.OK, _TYPE, refuse(ocsp.OCSPResponseStatus.UNAUTHORIZED))
            case Mode.INTERNAL_ERROR:
                return _Reply(HTTPStatus.OK, _TYPE, refuse(ocsp.OCSPResponseStatus.INTERNAL_ERROR))
            case (
                Mode.GOOD
                | Mode.REVOKED
                | Mode.UNKNOWN
                | Mode.EXPIRED
                | Mode.WRONG_KEY
                | Mode.OTHER_CERTIFICATE
            ):
                body = self._authority.answer(request_der, self._now(), answer)
                return _Reply(HTTPStatus.OK, _TYPE, body)
            case never:
                assert_never(never)


_ANSWERS: Final = {
    Mode.REVOKED: AnswerOptions(status=ocsp.OCSPCertStatus.REVOKED),
    Mode.UNKNOWN: AnswerOptions(status=ocsp.OCSPCertStatus.UNKNOWN),
    Mode.EXPIRED: AnswerOptions(this_update=timedelta(days=-8), next_update=timedelta(days=-1)),
    Mode.WRONG_KEY: AnswerOptions(signer=Signer.IMPOSTOR),
    Mode.OTHER_CERTIFICATE: AnswerOptions(serial_offset=1),
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Every worker of a server asks at once after a reload; what does not fit waits for a second SYN.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], responder: Responder) -> None:
        self.responder = responder
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask the resolver of the host for our name here, which may take its time.
        socketserver.TCPServer.server_bind(self)
        self.server_name = "localhost"
        self.server_port = int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that left is no news
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed is narrower than we need


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        """RFC 6960 appendix A.1: the URL-encoded base64 of the DER is the last part of the path."""
        try:
            request = base64.b64decode(unquote(self.path.lstrip("/")), validate=True)
        except ValueError:
            request = b""
        self._answer("GET", request)

    def do_POST(self) -> None:
        """RFC 6960 appendix A.1: the DER is the body."""
        length = self.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else 0
        self._answer("POST", self.rfile.read(min(size, _REQUEST_LIMIT)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the base class's
        """Say nothing: the hits are the log."""

    def _answer(self, method: str, request_der: bytes) -> None:
        reply = self.server.responder.reply(method, request_der)
        if reply is None:
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.media_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)
