"""Prometheus's multi-target exporter: `/probe?target=HOST:PORT&module=NAME`, and `/metrics` of itself.

Prometheus is the engine that spreads many endpoints over many probers; this answers for one at a time.
Whoever may speak to it can make it connect anywhere, so it listens on loopback unless told otherwise; what
one peer may send, how long that may take, and how many are served at once is bounded here.
"""

from __future__ import annotations

import io
import math
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from stapleguard import __version__, inventory
from stapleguard.config import Module
from stapleguard.diagnosis import Result
from stapleguard.host import Clock
from stapleguard.inventory import Place
from stapleguard.model import UsageError, escape
from stapleguard.report.metrics import exposition
from stapleguard.report.readings import readings

Probe: TypeAlias = Callable[[Place, float], Result]
MAX_PROBES: Final = 64
MAX_CONNECTIONS: Final = 128
MAX_HEAD: Final = 8192
MAX_TARGET: Final = 300
HEAD_SECONDS: Final = 5.0
OFFSET: Final = 0.5
"""Seconds of Prometheus's own timeout that are left for the answer's way back, as in blackbox_exporter."""
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OWN_LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "stapleguard_exporter_build_info": ("version",),
    "stapleguard_exporter_probes": ("module", "verdict"),
    "stapleguard_exporter_refused_requests": ("reason",),
}
_SCRAPE_TIMEOUT: Final = "X-Prometheus-Scrape-Timeout-Seconds"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the one who asks."""

    status: int
    body: bytes


class Exporter:
    """What is asked in, what is answered out; one `Probe` for each module, by its name."""

    def __init__(self, modules: Mapping[str, tuple[Module, Probe]], clock: Clock) -> None:
        self.modules = modules
        self.clock = clock
        self.slots = threading.BoundedSemaphore(MAX_PROBES)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        name = "stapleguard_exporter"
        build = Gauge(
            f"{name}_build_info",
            "1 for the version.",
            OWN_LABELS[f"{name}_build_info"],
            registry=self.registry,
        )
        build.labels(__version__).set(1)
        self.probes = Counter(
            f"{name}_probes", "Looks that were made.", OWN_LABELS[f"{name}_probes"], registry=self.registry
        )
        self.refused = Counter(
            f"{name}_refused_requests",
            "Requests without a look.",
            OWN_LABELS[f"{name}_refused_requests"],
            registry=self.registry,
        )
        self.running = Gauge(f"{name}_probes_in_flight", "Looks being made.", registry=self.registry)
        self.seconds = Histogram(
            f"{name}_probe_duration_seconds", "How long the looks took.", registry=self.registry
        )

    def answer(self, url: str, scrape_timeout: str | None) -> Answer:
        """Answer one GET."""
        path, query = urlsplit(url)[2:4]
        match path:
            case "/probe":
                try:
                    place, probe, module, seconds = self._asked(query, scrape_timeout)
                except UsageError as error:
                    self.refused.labels("bad-request").inc()
                    return Answer(400, f"{error.message}\n{error.hint}\n".encode())
                return self._probe(place, probe, module, seconds)
            case "/metrics":
                return Answer(200, generate_latest(self.registry))
            case "/":
                known = "".join(f"/probe?target=HOST:PORT&module={name}\n" for name in self.modules)
                return Answer(200, f"stapleguard {__version__}\n{known}/metrics\n".encode())
            case _:
                self.refused.labels("bad-request").inc()
                return Answer(404, b"not found; known are /probe, /metrics and /\n")

    def _probe(self, place: Place, probe: Probe, module: Module, seconds: float) -> Answer:
        if not self.slots.acquire(blocking=False):
            self.refused.labels("busy").inc()
            return Answer(503, b"too many looks at once\n")
        begun = self.clock.monotonic()
        try:
            with self.running.track_inprogress():
                result = probe(place, seconds)
        finally:
            self.slots.release()
        took = self.clock.monotonic() - begun
        self.seconds.observe(took)
        self.probes.labels(module.name, result.verdict.value).inc()
        return Answer(200, exposition(readings(result, place), took))

    def _asked(self, query: str, scrape_timeout: str | None) -> tuple[Place, Probe, Module, float]:
        try:
            fields = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=16)
        except ValueError:
            raise UsageError("the query cannot be read", "/probe?target=HOST:PORT&module=NAME") from None
        targets, names = fields.get("target", []), fields.get("module", ["default"])
        if len(targets) != 1 or len(names) != 1 or len(targets[0]) > MAX_TARGET:
            raise UsageError("one target is asked for", "/probe?target=HOST:PORT&module=NAME")
        if names[0] not in self.modules:
            raise UsageError(f"no such module: {escape(names[0], 80)}", "see [exporter.modules.NAME]")
        module, probe = self.modules[names[0]]
        return place_for(targets[0], module), probe, module, budget(module.timeout, scrape_timeout)


def place_for(target: str, module: Module) -> Place:
    """Read a target as a module looks at it; UsageError when it is no endpoint."""
    scheme = f"{module.starttls}://" if module.starttls and "://" not in target else ""
    found = inventory.place(scheme + target)
    return replace(found, server_name=module.server_name, key_types=module.key_types)


def budget(timeout: float, scrape_timeout: str | None) -> float:
    """Return the seconds for one look: the module's, or less where Prometheus would be gone by then."""
    if scrape_timeout is None:
        return timeout
    try:
        allowed = float(scrape_timeout)
    except ValueError:
        allowed = math.nan
    if not 0 < allowed < math.inf:
        raise UsageError(f"{_SCRAPE_TIMEOUT} is no number of seconds", "it is Prometheus's scrape_timeout")
    return min(timeout, max(allowed - OFFSET, allowed / 2))


class Server(ThreadingHTTPServer):
    """A thread for each of a bounded number of connections, one request on each."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS
    head_seconds = HEAD_SECONDS

    def __init__(self, exporter: Exporter, host: str, port: int) -> None:
        self.exporter = exporter
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Take a connection, or close it at once where too many are open."""
        if not self.connections.acquire(blocking=False):
            self.exporter.refused.labels("busy").inc()
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Serve it in its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Say nothing of a peer that has gone; anything else is a bug of ours."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()

    def drain(self, seconds: float) -> None:
        """Let the requests that are being answered come to their end, for so long at most."""
        clock = self.exporter.clock
        until = clock.monotonic() + seconds
        for _ in range(MAX_CONNECTIONS):
            if not self.connections.acquire(timeout=max(0.0, until - clock.monotonic())):
                return


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stapleguard"
    sys_version = ""
    server: Server

    def handle(self) -> None:
        """Read the head within bounds of size and time; the parser of the standard library does the rest."""
        head = _head(self.connection, self.server.exporter.clock, self.server.head_seconds)
        self.connection.settimeout(self.server.head_seconds)
        if head is None:
            self.server.exporter.refused.labels("bad-request").inc()
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            return
        self.rfile = io.BufferedReader(io.BytesIO(head))
        self.handle_one_request()

    def do_GET(self) -> None:
        answer = self.server.exporter.answer(self.path, self.headers.get(_SCRAPE_TIMEOUT))
        self.send_response(answer.status)
        self.send_header("Content-Type", TEXT)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *_words: object) -> None:  # noqa: A002 - the name is the base's
        """Every scrape is counted in /metrics; a line for each would bury what matters."""


def _head(connection: socket.socket, clock: Clock, seconds: float) -> bytes | None:
    """Read up to the empty line; None when it does not come in time or in size."""
    until, head = clock.monotonic() + seconds, b""
    while b"\r\n\r\n" not in head:
        left = until - clock.monotonic()
        if left <= 0 or len(head) >= MAX_HEAD:
            return None
        connection.settimeout(left)
        try:
            piece = connection.recv(MAX_HEAD - len(head))
        except TimeoutError:
            return None
        if not piece:
            return None
        head += piece
    return head
