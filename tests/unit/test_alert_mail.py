"""Mail to a real SMTP server with STARTTLS and a login, and to a local sendmail."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography.hazmat.primitives import serialization
from stapleguard.alerts import send
from stapleguard.channels import Channel, Kind, Reference, Security, Source
from stapleguard.rehearsal.authority import Authority
from test_notice import NOW, notice

pytestmark = [
    pytest.mark.unit,
    # aiosmtpd 1.4 asks for deprecated parts of the standard library.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:aiosmtpd", "ignore::DeprecationWarning"),
]
PASSWORD = "correct horse battery"


class OnAnyPort(Controller):
    """Asked for port 0; it connects to itself once it listens, and only its socket knows where."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class Server:
    """What it took, and what it is."""

    def __init__(self, controller: Controller, handler: Any, root: Path) -> None:
        self.controller, self.taken, self.root = controller, handler.taken, root
        self.context: ssl.SSLContext | None = None

    @property
    def place(self) -> str:
        return f"localhost:{self.controller.port}"


class Keep:
    def __init__(self) -> None:
        self.taken: list[tuple[Any, list[str], bool]] = []

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, to: str, _: Any) -> str:  # noqa: N802 - its name
        if to.startswith("nobody@"):
            return f"550 no such user {PASSWORD}"
        envelope.rcpt_tos.append(to)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - its name
        message = message_from_bytes(envelope.content, policy=default)
        self.taken.append((message, envelope.rcpt_tos, session.ssl is not None))
        return "250 OK"


def authenticate(_server: Any, session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"alerts", PASSWORD.encode())
    return AuthResult(success=good and session.ssl is not None, handled=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("smtp")
    authority = Authority.create(NOW)
    issued = authority.issue(["localhost"], NOW)
    lineage = issued.write_lineage(folder, "localhost", 1)
    (folder / "root.pem").write_bytes(authority.root.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(lineage / "fullchain.pem", lineage / "privkey.pem")
    handler = Keep()
    controller = OnAnyPort(
        handler, "localhost", 0, tls_context=context, require_starttls=True, auth_required=True,
        auth_require_tls=True, authenticator=authenticate,
    )  # fmt: skip
    controller.start()
    made = Server(controller, handler, folder / "root.pem")
    made.context = context
    yield made
    controller.stop()


def channel(to_server: Server, /, **changes: Any) -> Channel:
    made = Channel(
        "mail", Kind.MAIL, to=("ops@example.org", "second@example.org"), sender="cert@example.org",
        server=to_server.place, user="alerts", password=Reference(Source.ENV, "PASSWORD"),
        ca_file=str(to_server.root), timeout=5,
    )  # fmt: skip
    return replace(made, **changes)


ENVIRONMENT = {"PASSWORD": PASSWORD}


def test_starttls_and_login(server: Server) -> None:
    assert send(channel(server), notice(), ENVIRONMENT).taken
    message, recipients, encrypted = server.taken[-1]
    assert encrypted
    assert recipients == ["ops@example.org", "second@example.org"]
    assert message["Subject"] == "www.a.test: degraded, ocsp.unauthorized (web1)"
    text, facts = message.iter_parts()
    assert "What to do:" in text.get_content()
    assert facts.get_content_type() == "application/json"
    assert PASSWORD not in message.as_string()


@pytest.mark.parametrize(
    ("changes", "environment", "said"),
    [
        ({}, {"PASSWORD": "wrong one"}, "535"),
        ({}, {}, "PASSWORD"),
        ({"ca_file": ""}, ENVIRONMENT, "certificate verify failed"),
        ({"security": Security.TLS}, ENVIRONMENT, ""),
        ({"security": Security.NONE, "user": "", "password": None}, ENVIRONMENT, "530"),
        ({"to": ("nobody@example.org",)}, ENVIRONMENT, "no such user [hidden]"),
        ({"to": ("ops@example.org", "nobody@example.org")}, ENVIRONMENT, "the server refused nobody@"),
        ({"server": "localhost:1"}, ENVIRONMENT, "Connection refused"),
    ],
)
def test_what_is_not_taken_says_why_and_no_secret(
    server: Server, changes: dict[str, Any], environment: dict[str, str], said: str
) -> None:
    sent = send(channel(server, **changes), notice(), environment)
    assert not sent.taken
    assert said in sent.problem
    assert PASSWORD not in sent.problem
    assert "wrong one" not in sent.problem


def test_a_server_without_starttls_never_sees_the_password(server: Server) -> None:
    plain = OnAnyPort(Keep(), "localhost", 0, auth_require_tls=False, authenticator=authenticate)
    plain.start()
    try:
        sent = send(channel(server, server=f"localhost:{plain.port}"), notice(), ENVIRONMENT)
        assert "STARTTLS" in sent.problem
    finally:
        plain.stop()


def test_tls_from_the_first_byte(server: Server) -> None:
    handler = Keep()
    always = OnAnyPort(handler, "localhost", 0, ssl_context=server.context)
    always.start()
    try:
        place = {"server": f"localhost:{always.port}", "user": "", "password": None}
        assert send(channel(server, security=Security.TLS, **place), notice(), {}).taken
        assert len(handler.taken) == 1
        assert not send(channel(server, **place, timeout=1.0), notice(), {}).taken, "it speaks no plain SMTP"
    finally:
        always.stop()


def test_the_local_sendmail(tmp_path: Path) -> None:
    program, out = tmp_path / "sendmail", tmp_path / "out"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-t -i" ] || exit 64\ncat >{out}\n')
    program.chmod(0o755)
    made = Channel("mail", Kind.MAIL, to=("ops@example.org",), sendmail=str(program))
    assert send(made, notice(), {}).taken
    raw = out.read_bytes()
    assert b"\r" not in raw
    message = message_from_bytes(raw, policy=default)
    assert (message["To"], message["From"]) == ("ops@example.org", "root@web1")
    program.write_text("#!/bin/sh\necho queue is full >&2\nexit 75\n")
    assert "ended with 75: queue is full" in send(made, notice(), {}).problem
