"""What Apache, HAProxy and lighttpd say of a fault, read from their own words on the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from real_nginx import until
from real_servers import APACHE, HAPROXY, LIGHTTPD, Guarded, guarded
from site_lab import NAME
from stapleguard import ocsp
from stapleguard.model import Ask, Endpoint
from stapleguard.rehearsal.authority import AnswerOptions
from stapleguard.rehearsal.responder import Mode
from stapleguard.servers import SERVERS, Instance, Server
from stapleguard.wire.handshake import Limits, observe

pytestmark = pytest.mark.server


def handshake(on: Guarded) -> None:
    ask = Ask(Endpoint(NAME, on.server.port, NAME, "127.0.0.1"))
    observe([ask], Limits(), now=lambda: datetime.now(UTC))


def found(on: Guarded) -> tuple[Server, Instance]:
    server = SERVERS[on.server.recipe.kind]
    (instance,) = server.instances(on.server.binary, str(on.server.config))
    return server, instance


def codes(server: Server, text: str) -> list[str]:
    return [one.code.value for one in server.log_findings(text)]


@pytest.fixture(scope="module")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(APACHE, tmp_path_factory.mktemp("log")) as made:
        made.open()
        yield made


@pytest.mark.parametrize(
    ("mode", "code", "because"),
    [
        (Mode.HTTP_500, "responder.http-error", None),
        (Mode.GARBAGE, "responder.not-ocsp", None),
        (Mode.OTHER_CERTIFICATE, "server.serves-bad-staple", "ocsp.wrong-certificate"),
        (Mode.EXPIRED, "server.serves-bad-staple", "ocsp.expired"),
        (Mode.REVOKED, "server.serves-bad-staple", "ocsp.revoked"),
        (Mode.UNKNOWN, "server.serves-bad-staple", "ocsp.unknown"),
        (Mode.GOOD, None, None),
    ],
)
def test_apache_says_what_came_back(
    apache: Guarded, mode: Mode, code: str | None, because: str | None
) -> None:
    server, instance = found(apache)
    assert server.error_log(instance) == str(apache.server.log)
    apache.site.responder.set_mode(mode)
    before = apache.server.log.stat().st_size
    asked = len(apache.site.responder.hits)
    apache.server.reload()  # it forgets what it has cached

    def asks() -> bool:
        handshake(apache)
        return len(apache.site.responder.hits) > asked

    until(asks)
    said = server.log_findings(apache.server.log.read_text()[before:])
    assert (code in [one.code.value for one in said]) if code else said == ()
    if because:
        assert because in [one.evidence.get("because") for one in said]


@pytest.mark.parametrize(
    ("staple", "because"),
    [
        (AnswerOptions(serial_offset=1), "ocsp.wrong-certificate"),
        (b"no DER at all", "ocsp.malformed"),
        (None, None),
    ],
)
def test_haproxy_says_why_it_leaves_a_staple_aside(
    tmp_path: Path, staple: AnswerOptions | bytes | None, because: str | None
) -> None:
    with guarded(HAPROXY, tmp_path) as on:
        issued = on.open()
        server, instance = found(on)
        if staple is not None:
            request = ocsp.request(issued.certificate, on.site.authority.intermediate)
            now = datetime.now(UTC)
            der = staple if isinstance(staple, bytes) else on.site.authority.answer(request, now, staple)
            (on.live / "bundle.pem.ocsp").write_bytes(der)
        tested = server.test(instance, 30)
        said = server.log_findings(tested.text)
        wanted = [("server.staple-file-bad", because)] if because else []
        assert [(one.code.value, one.evidence["because"]) for one in said] == wanted, tested.text


def test_a_key_of_another_certificate_is_named(tmp_path: Path) -> None:
    for recipe in (HAPROXY, LIGHTTPD):
        home = tmp_path / recipe.kind[0]  # the path of a socket may not be long
        home.mkdir()
        with guarded(recipe, home) as on:
            on.open()
            server, instance = found(on)
            assert codes(server, server.test(instance, 30).text) == []
            on.site.renew()
            other = (on.site.lineage / "privkey.pem").read_bytes()
            chain = (on.live / "fullchain.pem").read_bytes()
            (on.live / "privkey.pem").write_bytes(other)
            (on.live / "bundle.pem").write_bytes(other + chain)
            assert "material.key-mismatch" in codes(server, server.test(instance, 30).text)


def test_lighttpd_says_that_a_must_staple_certificate_has_no_file(tmp_path: Path) -> None:
    with guarded(LIGHTTPD, tmp_path) as on:
        on.open(must_staple=True)
        server, instance = found(on)
        assert server.error_log(instance) == str(on.server.log)
        assert codes(server, on.server.log.read_text()) == []
        include = on.live / "lighttpd.conf"
        bare = [line for line in include.read_text().splitlines() if "stapling-file" not in line]
        include.write_text("\n".join(bare) + "\n")
        on.server.reload()
        until(lambda: "server.stapling-disabled" in codes(server, on.server.said()))
