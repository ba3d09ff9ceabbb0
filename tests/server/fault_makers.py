"""How each fault of the laboratory is made, on any server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography.x509 import ocsp
from lab.faults import (
    DNS,
    DNS2,
    GOOD,
    OCSP,
    OCSP6,
    OCSP_NAME,
    OTHER,
    PAGE,
    PORTAL,
    URL,
    Lab,
    Resolver,
    Said,
)
from lab.process import until
from stapleguard.rehearsal.authority import AnswerOptions, LeafOptions, Signer, refuse

Make = Callable[[Lab], None]
STATUS = ocsp.OCSPResponseStatus


def says(said: Said) -> Make:
    def make(lab: Lab) -> None:
        lab.responder.said = said

    return make


def answers(**options: object) -> Make:
    return says(replace(GOOD, answer=AnswerOptions(**options)))  # type: ignore[arg-type]


def directive(name: str, value: str | None) -> Make:
    def make(lab: Lab) -> None:
        if value is None:
            lab.directives.pop(name, None)
        else:
            lab.directives[name] = value.replace("DIR", str(lab.directory))

    return make


def main(name: str, value: str | None) -> Make:
    """Set a directive outside of the site, or take it away."""

    def make(lab: Lab) -> None:
        if value is None:
            lab.main.pop(name, None)
        else:
            lab.main[name] = value.replace("DIR", str(lab.directory))

    return make


def modules(*names: str) -> Make:
    def make(lab: Lab) -> None:
        lab.modules = names

    return make


def leaf(**options: object) -> Make:
    def make(lab: Lab) -> None:
        lab.leaf = LeafOptions(**{"ocsp_url": URL, **options})  # type: ignore[arg-type]

    return make


def firewall(*rules: str) -> Make:
    return lambda lab: lab.firewall(*rules)


def closed(lab: Lab) -> None:
    lab.close_one(lab.responder)


def resolver_closed(lab: Lab) -> None:
    lab.close_one(lab.resolver)


def resolver(**values: object) -> Make:
    def make(lab: Lab) -> None:
        for name, value in values.items():
            setattr(lab.resolver, name, value)

    return make


def hosts(**values: tuple[str, ...]) -> Make:
    def make(lab: Lab) -> None:
        lab.hosts = {OCSP_NAME: values["ocsp"]} if values else {}

    return make


def leaf_only(lab: Lab) -> None:
    lab.chain = False


def both_families(lab: Lab) -> None:
    lab.hosts = {OCSP_NAME: (OCSP6, OCSP)}
    lab.resolver.zone = {OCSP_NAME: (OCSP6, OCSP)}
    lab.directives["resolver"] = f"{DNS} valid=1s"


def staple_file(other: bool = False, **options: object) -> Make:
    def make(lab: Lab) -> None:
        lab.issue()
        about = lab.authority.issue(["www.lab.test"], _now(), lab.leaf) if other else None
        lab.staple(AnswerOptions(**options), about)  # type: ignore[arg-type]

    return make


def staple_text(text: bytes) -> Make:
    """Write something else in the place of an answer."""

    def make(lab: Lab) -> None:
        lab.issue()
        lab.server.staple(lab, text)

    return make


def refused_file(status: ocsp.OCSPResponseStatus) -> Make:
    return staple_text(refuse(status))


def _now() -> datetime:
    return datetime.now(UTC)


def broken_staple_file(lab: Lab) -> None:
    """It is broken after nginx has read a good one: the next reload will be refused."""
    lab.issue()
    lab.staple()
    lab.after.append(lambda: (lab.directory / "staple.der").write_bytes(b"garbage") and None)


def renewed_staple_file(lab: Lab) -> None:
    lab.issue()
    lab.staple(AnswerOptions(this_update=timedelta(days=-8), next_update=timedelta(days=-1)))
    lab.after.append(lab.staple)


def key_of_another(lab: Lab) -> None:
    def swap() -> None:
        other = lab.authority.issue(["www.lab.test"], _now(), lab.leaf)
        (lab.directory / "key.pem").write_bytes(other.key_pem)

    lab.after.append(swap)


def broken_config(lab: Lab) -> None:
    lab.after.append(
        lambda: lab.server.config.write_text(lab.server.config.read_text() + "nonsense on;\n") and None
    )


def stopped(lab: Lab) -> None:
    lab.configured = True
    lab.after.append(lab.stop)


def unknown_at_load(lab: Lab) -> None:
    """By now it resolves."""
    lab.hosts = {}
    resolver_zone = dict(lab.resolver.zone)
    lab.resolver.zone = {}

    def comes_back() -> None:
        lab.resolver.zone = resolver_zone
        (lab.directory / "hosts").write_text(f"127.0.0.1 localhost\n{OCSP} {OCSP_NAME}\n")

    lab.after.append(comes_back)


def only_configured_knows(lab: Lab) -> None:
    """The system's resolver is another one, which does not know the name."""
    lab.hosts = {}
    lab.directives["resolver"] = DNS2
    second = lab.host.do(lambda: lab.opened(Resolver(DNS2)))
    second.zone = {OCSP_NAME: (OCSP,)}
    lab.resolver.zone = {}


def name_unknown_everywhere(lab: Lab) -> None:
    lab.hosts = {}
    lab.resolver.zone = {}


def wrong_address(lab: Lab) -> None:
    lab.resolver.zone = {OCSP_NAME: (OTHER,)}


def portal(lab: Lab) -> None:
    lab.another(OTHER).said = PAGE
    lab.responder.said = PORTAL


def redirect_to_good(lab: Lab) -> None:
    lab.another(OTHER)
    lab.responder.said = Said(302, "text/plain", b"moved", {"Location": f"http://{OTHER}/"})


def six_dropped(lab: Lab) -> None:
    both_families(lab)
    lab.another(OCSP6)
    lab.firewall(f"ip6 daddr {OCSP6} tcp dport 80 drop")


def only_six(lab: Lab) -> None:
    lab.hosts = {OCSP_NAME: (OCSP6,)}
    lab.resolver.zone = {OCSP_NAME: (OCSP6,)}
    lab.firewall(f"ip6 daddr {OCSP6} tcp dport 80 drop")


def six_refused(lab: Lab) -> None:
    both_families(lab)


def only_user_blocked(rule: str) -> Make:
    def make(lab: Lab) -> None:
        lab.user = {"nginx": "nobody nogroup"}.get(lab.server.kind, "nobody")
        lab.firewall(f"meta skuid nobody {rule}")

    return make


def recovered(lab: Lab) -> None:
    """The responder was closed when nginx asked; now it is open, and nginx waits for 300 seconds."""
    lab.close_one(lab.responder)

    def later() -> None:
        ask(lab)
        lab.responder = lab.another(OCSP)

    lab.after.append(later)


def ask(lab: Lab) -> None:
    """Make handshakes until both workers have tried."""
    lab.doctor()


def not_reloaded(lab: Lab) -> None:
    lab.directives["ssl_stapling"] = "off"

    def later() -> None:
        lab.directives["ssl_stapling"] = "on"
        lab.write()
        soon = time.time() + 5
        os.utime(lab.server.config, (soon, soon))

    lab.after.append(later)


def moved(lab: Lab) -> None:
    """No resolver, and the responder is elsewhere by now."""
    lab.directives.pop("resolver")
    lab.hosts = {OCSP_NAME: (OTHER,)}

    def later() -> None:
        (lab.directory / "hosts").write_text(f"127.0.0.1 localhost\n{OCSP} {OCSP_NAME}\n")

    lab.after.append(later)


def proxied(lab: Lab) -> None:
    lab.another(OTHER, 3128)
    lab.proxy = f"http://{OTHER}:3128"


def proxy_closed(lab: Lab) -> None:
    lab.proxy = f"http://{OTHER}:3128"


def both(*makes: Make) -> Make:
    def make(lab: Lab) -> None:
        for one in makes:
            one(lab)

    return make


def short_lived(lab: Lab) -> None:
    """Nginx drops each of them when it ends, and asks again 300 seconds after it has fetched."""
    lab.responder.said = replace(GOOD, answer=AnswerOptions(next_update=timedelta(seconds=3)))

    lab.after.append(lambda: until(lambda: lab.doctor().status == 3, "the staple ended"))


EXPIRED = {"this_update": timedelta(days=-8), "next_update": timedelta(days=-1)}
FUTURE = {"this_update": timedelta(days=1), "next_update": timedelta(days=8)}
REVOKED = {"status": ocsp.OCSPCertStatus.REVOKED}
UNKNOWN = {"status": ocsp.OCSPCertStatus.UNKNOWN}
DELEGATE = {"signer": Signer.DELEGATE}
IMPOSTOR = {"signer": Signer.IMPOSTOR}
ALL_NAMES = both(resolver(zone={}), hosts())
BLOCK = firewall(f"ip daddr {OCSP} tcp dport 80 drop")
NO_STAPLING = directive("ssl_stapling", "off")
VARIABLE = "/nowhere/$ssl_server_name.pem"


def variable(lab: Lab) -> None:
    lab.issue()
    (lab.directory / "www.lab.test.pem").write_bytes((lab.directory / "cert.pem").read_bytes())
    lab.certificate = f"{lab.directory}/$ssl_server_name.pem"
