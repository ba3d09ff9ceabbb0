"""The way to the responder, tried step by step: the name by every resolver, each address, GET and POST."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509 import ocsp as x509_ocsp

from stapleguard import ocsp
from stapleguard.diagnosis import cause_of
from stapleguard.diagnosis.facts import Door, Lookup, Name, Reply, Signer
from stapleguard.engine.world import World
from stapleguard.finding import Code, find
from stapleguard.model import UsageError, escape
from stapleguard.wire import dns
from stapleguard.wire.fetch import Fetch, ocsp_exchange_at
from stapleguard.wire.line import addresses_of

_RESOLVE_SECONDS: Final = 3.0
_ASK_SECONDS: Final = 6.0
_ADDRESSES: Final = 6
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_T = TypeVar("_T")
_U = TypeVar("_U")
Job: TypeAlias = Callable[[], _T]


@dataclass(frozen=True, slots=True)
class Way:
    """What was found on the way to the responders of one certificate."""

    names: tuple[Name, ...]
    doors: tuple[Door, ...]
    dates: tuple[tuple[str, datetime], ...]


def at_once(jobs: Sequence[Callable[[], _T]]) -> list[_T]:
    """Do several things side by side; each of them keeps its own time."""
    if not jobs:
        return []
    with ThreadPoolExecutor(max_workers=min(16, len(jobs))) as pool:
        return [one.result() for one in [pool.submit(job) for job in jobs]]


def side_by_side(first: Job[_T], second: Job[_U]) -> tuple[_T, _U]:
    """Do two things of different kinds side by side."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        one, other = pool.submit(first), pool.submit(second)
        return one.result(), other.result()


@dataclass(frozen=True, slots=True)
class Route:
    """How a server goes to its responders: their URLs, whom it asks for which addresses, and its method."""

    urls: tuple[str, ...]
    resolvers: tuple[str, ...] = ()
    method: str = "GET"
    families: tuple[int, ...] = (4, 6)

    @property
    def methods(self) -> tuple[str, ...]:
        """Its own request first, then the other one."""
        return (self.method, *(one for one in ("GET", "POST") if one != self.method))


def way(world: World, leaf: x509.Certificate, issuer: x509.Certificate | None, route: Route) -> Way:
    """Ask for every name, then at every address; in about ten seconds, whatever answers or does not."""
    hosts = dict.fromkeys(host for url in route.urls if (host := _host(url)) and not _is_literal(host))
    names = tuple(at_once([_bound(_name, world, host, route) for host in hosts]))
    # Without the issuer the question is a wrong one, but whether somebody answers is told all the same.
    request = ocsp.request(leaf, issuer or leaf)
    plans = [plan for url in route.urls for plan in _plans(world, url, names)]
    asked = [_bound(_ask, world, plan, request, (leaf, issuer), route.methods) for plan in plans]
    doors = tuple(at_once(asked))
    dates = {door.where: one.date for door in doors for one in door.replies if one.date is not None}
    return Way(names, doors, tuple(dates.items()))


def _bound(function: Callable[..., _T], *arguments: object) -> Callable[[], _T]:
    return lambda: function(*arguments)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# --- names -----------------------------------------------------------------------------------------------


def _name(world: World, host: str, route: Route) -> Name:
    limit = min(_RESOLVE_SECONDS, world.config.fetch_timeout)
    asked = [_bound(_configured, one, host, limit, route.families) for one in route.resolvers]
    around = [_bound(_configured, one, host, limit) for one in ([] if asked else _name_servers())]
    system, *others = at_once([_bound(_system, host, limit), *asked, *around])
    servers = tuple(one.resolver for one in others[len(asked) :] if one.code is None)
    return Name(host, system, tuple(others[: len(asked)]), servers)


def _system(host: str, limit: float) -> Lookup:
    """Ask as every program of this host does; where that fails, the name servers themselves say why."""
    found = addresses_of((host,), limit)[host]
    if found:
        return Lookup("", found)
    for server in _name_servers():
        told = _configured(server, host, limit)
        if told.code is not None:
            return Lookup("", (), told.code, told.text)
    return Lookup("", (), Code.DNS_NAME_NOT_FOUND, "no address")


def _name_servers() -> tuple[str, ...]:
    try:
        lines = _RESOLV_CONF.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ()
    servers = [words[1] for line in lines if (words := line.split())[:1] == ["nameserver"] and len(words) > 1]
    return tuple(f"[{one}]" if ":" in one else one for one in servers[:2])


def _configured(server: str, host: str, limit: float, families: Sequence[int] = dns.FAMILIES) -> Lookup:
    try:
        answer = dns.ask(server, host, limit, families)
    except UsageError:
        named, _, port = server.partition(":")
        found = addresses_of((named,), limit)[named]
        if not found:
            return Lookup(server, (), Code.DNS_NAME_NOT_FOUND, f"{escape(server)} is no address and has none")
        return replace(_configured(f"{found[0]}:{port or 53}", host, limit, families), resolver=server)
    if answer.finding is None:
        said = f"no answer when asked for IPv{answer.silent[0]}" if answer.silent else ""
        return Lookup(server, answer.addresses, None, said, answer.silent)
    return Lookup(server, (), answer.finding.code, answer.finding.message)


# --- addresses -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    url: str
    address: str
    port: int
    named_by: tuple[str, ...]
    proxy: str


def _plans(world: World, url: str, names: Sequence[Name]) -> Iterator[_Plan]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        return
    if parts.scheme != "http" or not host:
        return
    given: dict[str, tuple[str, ...]] = {}
    if _is_literal(host):
        given[host] = ("",)
    for name in names:
        for one in (name.system, *name.configured) if name.host == host else ():
            for address in one.addresses:
                given[address] = (*given.get(address, ()), one.resolver)
    for address, by in [*given.items()][:_ADDRESSES]:
        yield _Plan(url, address, port, by, "")
    if world.config.proxy and not _is_literal(host):
        yield _Plan(url, "", port, ("",), world.config.proxy)


def _ask(
    world: World,
    plan: _Plan,
    request: bytes,
    certified: tuple[x509.Certificate, x509.Certificate | None],
    methods: Sequence[str],
) -> Door:
    limit = min(_ASK_SECONDS, world.config.fetch_timeout)
    policy = replace(world.fetch_policy, timeout=limit)

    def once(method: str) -> Reply:
        fetched = ocsp_exchange_at(plan.url, plan.address, request, method, policy)
        return _reply(world, method, fetched, *certified)

    replies = at_once([_bound(once, method) for method in methods])
    portal = next((one for one in replies if one.code is Code.RESPONDER_NOT_OCSP and one.location), None)
    if portal is not None and replies[0].code is Code.RESPONDER_HTTP_ERROR:
        # A POST is not led on, so what is there only the GET shows.
        replies[0] = replace(replies[0], code=portal.code, text=portal.text)
    shown = _host(plan.proxy) if plan.proxy else plan.address
    port = (urlsplit(plan.proxy).port or 80) if plan.proxy else plan.port
    return Door(plan.url, shown, port, tuple(replies), plan.named_by, plan.proxy)


def _reply(
    world: World, method: str, fetched: Fetch, leaf: x509.Certificate, issuer: x509.Certificate | None
) -> Reply:
    now = world.clock.now()
    if fetched.body is None:
        said = fetched.findings[-1] if fetched.findings else find(Code.NET_RESET, "", "no answer")
        status = said.evidence.get("status")
        code, text = said.code, said.message
        if fetched.location and _portal(fetched.location, world):
            code, text = (
                Code.RESPONDER_NOT_OCSP,
                f"{text}: a page of another kind is there (a captive portal?)",
            )
        number = status if isinstance(status, int) else None
        return Reply(method, code, text, fetched.seconds, number, fetched.location, fetched.date)
    if issuer is None:
        text = "an answer, not judged since the issuer is not known"
        return Reply(method, None, text, fetched.seconds, 200, "", fetched.date)
    judgement = ocsp.judge(fetched.body, leaf, issuer, now)
    accepted = judgement.acceptance is ocsp.Acceptance.ACCEPTED
    critical = [one for one in judgement.findings if one.critical]
    rejected = None if accepted else cause_of(critical) or Code.OCSP_MALFORMED
    text = next((one.message for one in critical if one.code is rejected), "a good answer")
    if rejected is Code.OCSP_MALFORMED and not _der(fetched.body):
        rejected, text = Code.RESPONDER_NOT_OCSP, "what came back is no DER at all"
    signer = _signer(fetched.body, issuer) if accepted else None
    return Reply(method, rejected, text, fetched.seconds, 200, "", fetched.date, judgement, signer)


def _portal(location: str, world: World) -> bool:
    """Whether a redirect leads to what answers with a page instead of an OCSP answer."""
    host = _host(location)
    found = addresses_of((host,), 2.0)[host] if host else ()
    if not location.lower().startswith("http://") or not found:
        return False
    policy = replace(world.fetch_policy, timeout=3.0)
    there = ocsp_exchange_at(location, found[0], b"\x30\x00", "GET", policy)
    return bool(there.findings) and there.findings[-1].code is Code.RESPONDER_NOT_OCSP


def _der(body: bytes) -> bool:
    """Whether it begins as one DER SEQUENCE does: broken OCSP then, and not something else."""
    return len(body) > 2 and body[0] == 0x30 and (body[1] < 0x80 or body[1] in (0x81, 0x82))


def _signer(body: bytes, issuer: x509.Certificate) -> Signer:
    answer = x509_ocsp.load_der_ocsp_response(body)
    by_name = answer.responder_name == issuer.subject
    ski = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest
    if by_name or answer.responder_key_hash == ski:
        return Signer.ENCLOSED if issuer in answer.certificates else Signer.ISSUER
    return Signer.DELEGATE
