"""Renewals that cannot work, each in its own way, and what becomes of them before they are published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dns.rcode
from cryptography.x509 import ocsp
from lab.faults import OTHER, PAGE, Said, unsuccessful
from lab.theatre import APACHE, HAPROXY, HAPROXY_28, NGINX, URL, USER, Theatre, Troupe
from stapleguard import ocsp as judge
from stapleguard.rehearsal.authority import AnswerOptions, Signer

FETCHING = (NGINX, APACHE, HAPROXY_28)


def _nothing(at: Theatre) -> None:
    del at


@dataclass(frozen=True)
class Case:
    """One fault that is made between two deployments.

    `opening` is what the configuration has from the beginning; `status` and `cause` are those of the second
    one. With `held` the first certificate is served all the time, with its staple, and nothing is published;
    without, the fault is said before it is published. `quick` are the servers on which it is always played.
    """

    name: str
    make: Callable[[Theatre], object]
    status: int
    cause: str | None
    held: bool = True
    of: tuple[Troupe, ...] = FETCHING
    apart: bool = False
    quick: tuple[Troupe, ...] = ()
    opening: Callable[[Theatre], object] = _nothing


def _says(said: Said) -> Callable[[Theatre], object]:
    return lambda at: setattr(at.responder, "said", said)


def _answers(options: AnswerOptions) -> Callable[[Theatre], object]:
    return _says(Said(answer=options))


def _refuses(status: ocsp.OCSPResponseStatus) -> Callable[[Theatre], object]:
    return _says(unsuccessful(status))


def _dead_resolver(at: Theatre) -> None:
    at.name_server = "127.0.0.55"


def _resolver(**how: object) -> Callable[[Theatre], object]:
    def make(at: Theatre) -> None:
        other = at.another_resolver()
        for name, value in how.items():
            setattr(other, name, value)

    return make


def _shut(rule: str) -> Callable[[Theatre], object]:
    return lambda at: at.firewall(rule)


def _own(line: str) -> Callable[[Theatre], object]:
    return lambda at: setattr(at, "own", line.format(home=at.home, url=URL, other=OTHER))


def _main(line: str) -> Callable[[Theatre], object]:
    return lambda at: setattr(at, "main", line.format(home=at.home))


def _no_cache(at: Theatre) -> None:
    at.cached = False


def _client_certificates(at: Theatre) -> None:
    """The block asks for client certificates, so the include may not give it anchors of its own."""
    (at.home / "clients.pem").write_bytes(at.authority.create(datetime.now(UTC)).trusted_pem())
    at.own = f'ssl_verify_client optional; ssl_client_certificate "{at.home}/clients.pem";\n'


def _delegate(at: Theatre) -> None:
    """Answers are to be verified, and one signs them whom the block's anchors do not lead to."""
    at.own += "ssl_stapling_verify on;\n"
    at.responder.said = Said(answer=AnswerOptions(signer=Signer.DELEGATE))


def _old_staple_file(at: Theatre) -> None:
    """A person has put a staple file beside our line; it is about the certificate of today."""
    from cryptography import x509

    leaf = x509.load_pem_x509_certificate((at.live / "cert.pem").read_bytes())
    request = judge.request(leaf, at.authority.intermediate)
    answer = at.authority.answer(request, datetime.now(UTC), AnswerOptions())
    (at.home / "old.der").write_bytes(answer)
    at.own = f'ssl_stapling_file "{at.home}/old.der";\n'


def _dropped(user: str = USER) -> str:
    return f"meta skuid {user} tcp dport 80 drop"


EXPIRED = AnswerOptions(this_update=timedelta(days=-8), next_update=timedelta(days=-1))
STATUS = ocsp.OCSPResponseStatus
CERT = ocsp.OCSPCertStatus

CASES: tuple[Case, ...] = (
    Case("healthy", _nothing, 0, None, held=False, of=(NGINX, APACHE, HAPROXY, HAPROXY_28)),
    Case(
        "a responder that takes two seconds", _says(Said(delay=2.0)), 0, None, held=False, of=(NGINX, APACHE)
    ),
    # The server's way to the responder.
    Case(
        "nobody is the resolver",
        _dead_resolver,
        5,
        "server.resolver-broken",
        of=(NGINX, HAPROXY_28),
    ),
    Case("a resolver is silent", _resolver(silent=True), 5, "server.resolver-broken", of=(NGINX, HAPROXY_28)),
    Case("a resolver knows no name", _resolver(zone={}), 5, "server.resolver-broken", of=(NGINX, HAPROXY_28)),
    Case(
        "a resolver fails",
        _resolver(rcode=dns.rcode.SERVFAIL),
        5,
        "server.resolver-broken",
        of=(NGINX, HAPROXY_28),
    ),
    Case(
        "a resolver refuses",
        _resolver(rcode=dns.rcode.REFUSED),
        5,
        "server.resolver-broken",
        of=(NGINX, HAPROXY_28),
    ),
    Case(
        "a resolver names another host",
        _resolver(zone={"ocsp.theatre.test": (OTHER,)}),
        5,
        "server.resolver-broken",
        of=(NGINX, HAPROXY_28),
    ),
    Case("the port is dropped for the server's user", _shut(_dropped()), 5, "server.blocked-only"),
    Case(
        "the port is rejected for the server's user",
        _shut(f"meta skuid {USER} tcp dport 80 reject with tcp reset"),
        5,
        "server.blocked-only",
        quick=(NGINX,),
    ),
    Case(
        "the port is dropped in the server's namespace",
        _shut("tcp dport 80 drop"),
        5,
        "server.blocked-only",
        of=(NGINX, APACHE),
        apart=True,
    ),
    Case(
        "the port is rejected in the server's namespace",
        _shut("tcp dport 80 reject with tcp reset"),
        5,
        "server.blocked-only",
        of=(NGINX, APACHE),
        apart=True,
    ),
    # The generation, with the configuration around it.
    Case(
        "a delegate's anchors are missing",
        _delegate,
        4,
        "server.trust-missing",
        of=(NGINX,),
        opening=_client_certificates,
    ),
    Case("a staple file of another certificate", _old_staple_file, 4, "server.staple-file-bad", of=(NGINX,)),
    Case("no stapling cache", _no_cache, 4, "server.cache-missing", of=(APACHE,)),
    Case(
        "stapling is off below our line",
        _own("SSLUseStapling off\n"),
        5,
        "server.stapling-disabled",
        of=(APACHE,),
    ),
    Case(
        "no extra files are loaded",
        _main("  ssl-load-extra-files none"),
        5,
        "server.stapling-disabled",
        of=(HAPROXY,),
        quick=(HAPROXY,),
    ),
    # The responder's answer: nothing that waiting mends.
    Case("an expired answer", _answers(EXPIRED), 5, "ocsp.expired", of=(NGINX, HAPROXY_28)),
    Case(
        "an answer about another certificate",
        _answers(AnswerOptions(serial_offset=1)),
        5,
        "ocsp.wrong-certificate",
    ),
    Case(
        "an answer of another key",
        _answers(AnswerOptions(signer=Signer.IMPOSTOR)),
        5,
        "ocsp.bad-signature",
        of=(NGINX, HAPROXY_28),
    ),
    Case(
        "an answer of no responder",
        _answers(AnswerOptions(signer=Signer.UNAUTHORIZED)),
        5,
        "ocsp.unauthorized-responder",
        of=(NGINX, HAPROXY_28),
    ),
    Case("revoked", _answers(AnswerOptions(status=CERT.REVOKED)), 4, "ocsp.revoked"),
    # Apache passes on what others keep back.
    Case(
        "another key's, passed on",
        _answers(AnswerOptions(signer=Signer.IMPOSTOR)),
        5,
        "server.serves-bad-staple",
        of=(APACHE,),
        quick=(APACHE,),
    ),
    Case(
        "unknown, passed on",
        _answers(AnswerOptions(status=CERT.UNKNOWN)),
        5,
        "server.serves-bad-staple",
        of=(APACHE,),
    ),
    # The responder's fault that may pass: said, and published by policy.
    Case("try later", _refuses(STATUS.TRY_LATER), 3, "ocsp.try-later", held=False),
    Case("unauthorized", _refuses(STATUS.UNAUTHORIZED), 3, "ocsp.unauthorized", held=False),
    Case("internal error", _refuses(STATUS.INTERNAL_ERROR), 3, "ocsp.internal-error", held=False),
    Case(
        "unknown",
        _answers(AnswerOptions(status=CERT.UNKNOWN)),
        3,
        "ocsp.unknown",
        held=False,
        of=(NGINX, HAPROXY_28),
    ),
    Case("HTTP 500", _says(Said(500, "text/plain", b"no")), 3, "responder.http-error", held=False),
    Case("a page", _says(PAGE), 3, "responder.not-ocsp", held=False),
    Case("it hangs up", _says(Said(closes=True)), 3, "net.reset", held=False),
    Case("refused for everybody", _shut("tcp dport 80 reject with tcp reset"), 3, "net.refused", held=False),
    Case(
        "it never answers",
        _says(Said(silent=True)),
        3,
        "responder.slow",
        held=False,
        of=(NGINX, HAPROXY_28),
    ),
    # Apache's handshakes would wait for it.
    Case("it never answers anybody", _says(Said(silent=True)), 5, "responder.slow", of=(APACHE,)),
)


def of_each() -> list[tuple[Case, Troupe]]:
    """Each case on each server that it is about."""
    return [(case, troupe) for case in CASES for troupe in case.of]
