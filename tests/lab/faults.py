"""The fault laboratory: one host of its own with a real server, a responder, a resolver and a firewall.

The host is a network namespace; all of its addresses lie on its loopback device, so that the firewall sees
every packet. It has its own /etc/hosts and /etc/resolv.conf. Everything in it can be broken by one call.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp
from stapleguard.rehearsal.authority import GOOD_ANSWER, AnswerOptions, Authority, Issued, LeafOptions, refuse

from lab.cluster import Host
from lab.patients import DNS, NAME, WEB, Patient, Recipe

OCSP_NAME = "ocsp.lab.test"
OCSP, OTHER = "198.18.0.80", "198.18.0.81"
DNS2 = "127.0.0.54"
OCSP6 = "fd00:5746::80"
URL = f"http://{OCSP_NAME}/"
TYPE = "application/ocsp-response"
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Said:
    """What the responder sends back; `body` None is what the authority answers."""

    status: int = 200
    media_type: str = TYPE
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answer: AnswerOptions = GOOD_ANSWER
    delay: float = 0.0
    silent: bool = False
    closes: bool = False
    date_shift: timedelta = timedelta()
    cut: int = 0
    methods: tuple[str, ...] = ("GET", "POST")


GOOD = Said()
PORTAL = Said(302, "text/html", b"go", {"Location": f"http://{OTHER}/login"})
PAGE = Said(200, "text/html", b"<html>please log in</html>")


def unsuccessful(status: ocsp.OCSPResponseStatus) -> Said:
    return Said(body=refuse(status))


class Responder:
    """On every address asked for, port 80 or another; what it says can be changed at any time."""

    def __init__(self, authority: Authority, address: str, port: int = 80) -> None:
        self.authority = authority
        self.said = GOOD
        self.closing = threading.Event()
        self.hits = 0
        self.server = _Server(address, port, self)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, port: int, responder: Responder) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.responder = responder
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "ocsp", int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """The hits are the log."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(datetime.now(UTC) + self.server.responder.said.date_shift, usegmt=True)

    def do_GET(self) -> None:
        try:
            # A proxy is asked by the whole URL.
            path = urllib.parse.urlsplit(self.path).path
            self._send(base64.b64decode(urllib.parse.unquote(path.lstrip("/")), validate=True))
        except ValueError:
            self._send(b"")

    def do_POST(self) -> None:
        self._send(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _send(self, request: bytes) -> None:
        responder, said = self.server.responder, self.server.responder.said
        responder.hits += 1
        if said.silent or said.delay:
            responder.closing.wait(3600 if said.silent else said.delay)
        if said.closes or said.silent:
            self.close_connection = True
            return
        body = said.body
        if body is None:
            body = responder.authority.answer(request, datetime.now(UTC), said.answer)
        body = body[: len(body) - said.cut] if said.cut else body
        self.send_response(said.status if self.command in said.methods else 405)
        wanted = said.media_type if self.command in said.methods else "text/plain"
        if wanted:
            self.send_header("Content-Type", wanted)
        for name, value in said.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Resolver:
    """A name server that answers from a zone, or fails in one way."""

    def __init__(self, address: str) -> None:
        self.zone: dict[str, tuple[str, ...]] = {}
        self.rcode = dns.rcode.NOERROR
        self.silent = False
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                wire, connection = self.request
                reply = outer.answer(wire)
                if reply is not None:
                    connection.sendto(reply, self.client_address)

        class Server(socketserver.UDPServer):
            pass

        self.server = Server((address, 53), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def answer(self, wire: bytes) -> bytes | None:
        if self.silent:
            return None
        query = dns.message.from_wire(wire)
        question = query.question[0]
        response = dns.message.make_response(query, recursion_available=True)
        if self.rcode != dns.rcode.NOERROR:
            response.set_rcode(self.rcode)
            return response.to_wire()
        found = self.zone.get(question.name.to_text(omit_final_dot=True).lower())
        if found is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response.to_wire()
        six = question.rdtype == dns.rdatatype.AAAA
        wanted = [one for one in found if (":" in one) == six]
        if wanted and question.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            response.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", question.rdtype, wanted))
        return response.to_wire()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@dataclass(frozen=True)
class Told:
    """What doctor said."""

    status: int
    document: Any
    seconds: float
    stderr: str

    @property
    def cause(self) -> str | None:
        return self.document["cause"]

    @property
    def critical(self) -> set[str]:
        return {one["code"] for one in self.document["findings"] if one["severity"] == "critical"}

    @property
    def codes(self) -> set[str]:
        return {one["code"] for one in self.document["findings"]}


class Lab:
    """One host; `fresh` makes everything on it well again."""

    def __init__(self, recipe: Recipe, directory: Path) -> None:
        self.stack = ExitStack()
        self.directory = directory
        self.host = Host(1)
        self.stack.callback(self.host.close)
        for one in (WEB, OCSP, OTHER):
            self.host.run("ip", "address", "add", f"{one}/32", "dev", "lo")
        self.host.run("ip", "-6", "address", "add", f"{OCSP6}/128", "dev", "lo", "nodad")
        self.authority = Authority.create(datetime.now(UTC))
        self.strangers = Authority.create(datetime.now(UTC))
        (directory / "root.pem").write_bytes(self.authority.root.public_bytes(PEM))
        (directory / "trusted.pem").write_bytes(self.authority.trusted_pem())
        (directory / "intermediate.pem").write_bytes(self.authority.intermediate.public_bytes(PEM))
        (directory / "strangers.pem").write_bytes(self.strangers.trusted_pem())
        bind = " && ".join(f'mount --bind "{directory}/{one}" /etc/{one}' for one in ("hosts", "resolv.conf"))
        self.inside = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            f'{bind} && exec "$0" "$@"',
        ]
        (directory / "resolv.conf").write_text(f"nameserver {DNS}\noptions timeout:1 attempts:1\n")
        self.server: Patient = recipe(self)
        self.stack.callback(self.stop)
        self.open: list[Responder | Resolver] = []
        self.stack.callback(self.shut)

    def close(self) -> None:
        self.stack.close()

    def shut(self) -> None:
        for one in self.open:
            one.close()
        self.open = []

    def fresh(self) -> None:
        """Everything is well, nothing is started yet."""
        self.stop()
        self.shut()
        with suppress(Exception):
            self.host.run("nft", "flush", "ruleset")
        self.server.runs.clear()
        self.url: str | None = URL
        self.hosts = {OCSP_NAME: (OCSP,)}
        self.leaf = LeafOptions(ocsp_url=URL)
        self.issued: Issued | None = None
        self.chain = True
        self.directives: dict[str, str] = dict(self.server.directives)
        self.main: dict[str, str] = dict(self.server.main)
        self.certificate: str | None = None
        self.user = self.server.user
        self.lines = ""
        self.modules: tuple[str, ...] = ()
        self.proxy = ""
        self.configured = False
        self.before: list[Callable[[], None]] = []
        self.after: list[Callable[[], None]] = []
        self.responder = self.host.do(lambda: self.opened(Responder(self.authority, OCSP)))
        self.resolver = self.host.do(lambda: self.opened(Resolver(DNS)))
        self.resolver.zone = {OCSP_NAME: (OCSP,)}

    def opened(self, one: Any) -> Any:
        self.open.append(one)
        return one

    def another(self, address: str, port: int = 80) -> Responder:
        return self.host.do(lambda: self.opened(Responder(self.authority, address, port)))

    def close_one(self, one: Responder | Resolver) -> None:
        one.close()
        self.open.remove(one)

    def firewall(self, *rules: str) -> None:
        lines = "".join(f" {rule};" for rule in rules)
        text = (
            f"table inet lab {{ chain out {{ type filter hook output priority 0; policy accept;{lines} }}; }}"
        )
        self.host.run("nft", "-f", "-", words=text)

    def issue(self) -> Issued:
        self.issued = issued = self.authority.issue([NAME], datetime.now(UTC), self.leaf)
        (self.directory / "cert.pem").write_bytes(issued.fullchain_pem if self.chain else issued.cert_pem)
        (self.directory / "key.pem").write_bytes(issued.key_pem)
        for beside in self.directory.glob("cert.pem.*"):
            beside.unlink()
        return issued

    def staple(self, answer: AnswerOptions = GOOD_ANSWER, about: Issued | None = None) -> None:
        """Write a staple file, and name it in the configuration."""
        from stapleguard import ocsp as judge

        leaf = (about or self.issued or self.issue()).certificate
        request = judge.request(leaf, self.authority.intermediate)
        self.server.staple(self, self.authority.answer(request, datetime.now(UTC), answer))

    def write(self) -> None:
        (self.directory / "hosts").write_text(
            "127.0.0.1 localhost\n"
            + "".join(f"{one} {name}\n" for name, found in self.hosts.items() for one in found)
        )
        self.server.write(self)
        proxy = f'proxy = "{self.proxy}"\n' if self.proxy else ""
        kind, config = self.server.kind, self.server.config
        (self.directory / "c.toml").write_text(
            f'anchors = "{self.directory}/root.pem"\n'
            f'[fetch]\nallow_addresses = ["198.18.0.0/15", "fd00::/8", "127.0.0.0/8"]\n{proxy}'
            + (f'[{kind}]\nbinary = "{self.server.binary}"\nconfig = "{config}"\n' if self.configured else "")
        )

    def start(self) -> None:
        self.host.do(self.server.runs.start)

    def stop(self) -> None:
        self.host.do(self.server.runs.stop)

    def doctor(self, *words: str) -> Told:
        argv = [*self.inside, sys.executable, "-m", "stapleguard"]
        argv += ["--config", f"{self.directory}/c.toml", "--state-dir", f"{self.directory}/state"]
        argv += ["doctor", "--json", f"{WEB}:443", "--sni", NAME, *words]
        began = monotonic()
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = self.host.do(
            lambda: subprocess.run(
                argv, capture_output=True, text=True, timeout=90, check=False, env=environment
            )
        )
        seconds = monotonic() - began
        assert done.stdout, done.stderr
        return Told(done.returncode, json.loads(done.stdout), seconds, done.stderr)


@dataclass(frozen=True)
class Case:
    """One fault, or several: how it is made, the cause expected, and what must be named beside it."""

    name: str
    cause: str | None
    make: Callable[[Lab], None]
    also: tuple[str, ...] = ()
    quick: bool = False


def play(lab: Lab, case: Case) -> Told:
    """Make a host with this fault and diagnose it."""
    lab.fresh()
    case.make(lab)
    if lab.issued is None:
        lab.issue()
    lab.write()
    for one in lab.before:
        one()
    lab.start()
    for one in lab.after:
        one()
    return lab.doctor()


def wrong(case: Case, told: Told) -> str:
    """Say what is wrong with a diagnosis; '' when it is right."""
    if told.cause != case.cause and not (case.also and told.cause in case.also):
        return f"named {told.cause} instead of {case.cause}"
    missing = {one for one in (case.cause, *case.also) if one} - told.codes
    if missing:
        return f"does not name {', '.join(sorted(missing))}"
    if told.status != (0 if case.cause is None else 3):
        return f"exit {told.status}"
    symptoms = {
        "staple.absent",
        "staple.must-staple-unmet",
        "server.worker-unstapled",
        "served.chain-incomplete",
        # Apache asks within the handshake, and some clients do not wait for it.
        "served.unreachable",
        "served.tls-failure",
    }
    blamed = told.critical - {case.cause, *case.also} - symptoms
    return f"blames {', '.join(sorted(blamed))} too" if blamed else ""
