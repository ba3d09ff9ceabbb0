"""Other shapes of the same faults: the block, the URL, the address and the question that a server takes."""

from __future__ import annotations

from datetime import UTC, datetime

import dns.message
import dns.rdatatype
from cryptography.hazmat.primitives import hashes
from fault_makers import (
    DELEGATE,
    EXPIRED,
    STATUS,
    Make,
    answers,
    both,
    closed,
    directive,
    leaf,
    only_user_blocked,
    says,
    six_dropped,
    staple_file,
)
from lab.faults import DNS, OCSP, OCSP6, OCSP_NAME, OTHER, URL, WEB, Case, Lab, Said, unsuccessful
from lab.patients import NAME
from stapleguard.rehearsal.authority import LeafOptions

NOWHERE, HTTPS = "http://nowhere.lab.test/", f"https://{OCSP_NAME}/"
CLOSED = f"http://{OTHER}:81/"
TRY_LATER = says(unsuccessful(STATUS.TRY_LATER))
OFF = "server.stapling-disabled"


def edited(old: str, new: str) -> Make:
    """Write something else in the configuration before the server starts."""

    def make(lab: Lab) -> None:
        def edit() -> None:
            text, where = lab.server.config.read_text(), str(lab.directory)
            assert old in text, text
            lab.server.config.write_text(text.replace(old, new.replace("DIR", where), 1))

        lab.before.append(edit)

    return make


def another_site(lab: Lab) -> None:
    """A certificate of another name, other.pem with other.key."""
    issued = lab.authority.issue(["other.lab.test"], datetime.now(UTC), lab.leaf)
    (lab.directory / "other.pem").write_bytes(issued.fullchain_pem)
    (lab.directory / "other.key").write_bytes(issued.key_pem)


def urls(first: str, *more: str) -> Make:
    return leaf(ocsp_url=first, more_ocsp_urls=more)


def hosts_say(*addresses: str) -> Make:
    return lambda lab: lab.hosts.__setitem__(OCSP_NAME, addresses)


def six_only(lab: Lab) -> None:
    hosts_say(OCSP6)(lab)
    lab.resolver.zone = {OCSP_NAME: (OCSP6,)}
    lab.another(OCSP6)


def drops_six(lab: Lab) -> None:
    """A resolver that is silent when it is asked for AAAA."""
    answer = lab.resolver.answer

    def answered(wire: bytes) -> bytes | None:
        asked = dns.message.from_wire(wire).question[0].rdtype
        return None if asked == dns.rdatatype.AAAA else answer(wire)

    lab.resolver.answer = answered  # type: ignore[method-assign]


def in_front(name: str, lines: str) -> Make:
    """Another block is the default of the address; ours is chosen by `name`."""
    other = (
        f"server {{ listen {WEB}:443 ssl default_server; server_name other.lab.test;"
        f' ssl_certificate "DIR/other.pem"; ssl_certificate_key "DIR/other.key"; {lines} }}\n'
    )
    ours = f"server {{ listen {WEB}:443 ssl; server_name {name};"
    return both(another_site, edited(f"server {{ listen {WEB}:443 ssl; server_name {NAME};", other + ours))


def neighbour(url: str) -> Make:
    """Another block of the same server, whose certificate nginx cannot staple for."""
    block = (
        f"server {{ listen {WEB}:443 ssl; server_name other.lab.test; ssl_stapling on;"
        ' ssl_certificate "DIR/other.pem"; ssl_certificate_key "DIR/other.key"; }\n'
    )

    def make(lab: Lab) -> None:
        ours, lab.leaf = lab.leaf, LeafOptions(ocsp_url=url)
        another_site(lab)
        lab.leaf = ours

    return both(make, edited("server { listen 127.0.0.1", block + "server { listen 127.0.0.1"))


def staple_file_gone(lab: Lab) -> None:
    staple_file()(lab)
    lab.after.append((lab.directory / "staple.der").unlink)


FOUR_ONLY = directive("resolver", f"{DNS} ipv6=off valid=1s")
ON = "ssl_stapling on; resolver 127.0.0.53;"
NO_STAPLING = directive("ssl_stapling", "off")
NGINX: tuple[Case, ...] = (
    Case(
        "regular expression chooses the block that is off", OFF, both(in_front("~^www[.]", ON), NO_STAPLING)
    ),
    Case("regular expression chooses, closed", "net.refused", both(in_front("'~^(?<a>w+)[.]'", ""), closed)),
    Case("name with the star behind, off", OFF, both(in_front("www.lab.*", ON), NO_STAPLING)),
    Case("default server with another certificate", "served.name-mismatch", in_front("never.lab.test", ON)),
    Case("first of two URLs tryLater, second closed", "ocsp.try-later", both(TRY_LATER, urls(URL, CLOSED))),
    Case("first of two URLs closed, second well", "net.refused", urls(CLOSED, URL)),
    Case("second of two URLs closed", None, urls(URL, CLOSED)),
    Case("scheme in capitals, closed", "net.refused", both(closed, urls(f"HTTP://{OCSP_NAME}/"))),
    Case("scheme in capitals", None, urls(f"HTTP://{OCSP_NAME}/")),
    Case("ipv6=off, IPv6 only", "server.resolver-broken", both(six_only, FOUR_ONLY)),
    Case("ipv6=off, IPv6 dropped, tryLater", "ocsp.try-later", both(six_dropped, FOUR_ONLY, TRY_LATER)),
    Case("ipv6=off, IPv6 dropped", None, both(six_dropped, FOUR_ONLY)),
    Case("resolver silent for AAAA", "server.resolver-broken", drops_six),
    Case("resolver silent for AAAA, ipv6=off", None, both(drops_six, FOUR_ONLY)),
    Case("dead address in hosts, tryLater", "ocsp.try-later", both(hosts_say(OTHER), TRY_LATER)),
    Case("dead address in hosts", None, hosts_say(OTHER)),
    Case("neighbour's name unknown, ours closed", "net.refused", both(neighbour(NOWHERE), closed)),
    Case("neighbour's URL is https, ours tryLater", "ocsp.try-later", both(neighbour(HTTPS), TRY_LATER)),
    Case("neighbour's name unknown, ours well", None, neighbour(NOWHERE)),
    Case("staple file gone since", "server.staple-file-bad", staple_file_gone, ("server.config-invalid",)),
    Case(
        "delegate, anchors for clients only",
        "server.trust-missing",
        both(
            answers(**DELEGATE),
            directive("ssl_trusted_certificate", None),
            directive("ssl_client_certificate", '"DIR/trusted.pem"'),
        ),
    ),
    Case(
        "user blocked + HTTP 500",
        "server.blocked-only",
        both(only_user_blocked(f"ip daddr {OCSP} drop"), says(Said(500, "text/plain", b"no"))),
        ("responder.http-error",),
    ),
)


def no_hosts(lab: Lab) -> None:
    lab.hosts = {}


APACHE: tuple[Case, ...] = (
    Case("first of two URLs tryLater, second closed", "ocsp.try-later", both(TRY_LATER, urls(URL, CLOSED))),
    Case("first of two URLs closed, second well", "net.refused", urls(CLOSED, URL)),
    Case("user's DNS blocked", "server.blocked-only", both(only_user_blocked("udp dport 53 drop"), no_hosts)),
)
BAD_FILE = "server.staple-file-bad"
HAPROXY: tuple[Case, ...] = (
    Case(
        "SHA-256 CertID in .ocsp",
        BAD_FILE,
        staple_file(certid_hash=hashes.SHA256()),
        ("ocsp.certid-unmatched",),
    ),
    Case("no nextUpdate in .ocsp", BAD_FILE, staple_file(next_update=None), ("ocsp.no-next-update",)),
)
UPDATING: tuple[Case, ...] = (
    Case("first of two URLs tryLater, second closed", "ocsp.try-later", both(TRY_LATER, urls(URL, CLOSED))),
)


def two_hosts(condition: str, ours: str, default: str = "") -> Make:
    """A block of its own for our host, within that of the socket."""
    begin = f'$SERVER["socket"] == "{WEB}:443" {{'
    head = f'{begin}\n  ssl.pemfile = "DIR/other.pem"\n  ssl.privkey = "DIR/other.key"\n  {default}\n'
    inner = f'  $HTTP["host"] {condition} {{\n  ssl.pemfile = "DIR/cert.pem"\n  ssl.privkey = "DIR/key.pem"\n'

    def make(lab: Lab) -> None:
        another_site(lab)
        lab.before.append(lambda: cut(lab))
        edited(begin, f'{head}  ssl.engine = "enable"\n{inner}  {ours}\n  }}\n}}\n')(lab)

    def cut(lab: Lab) -> None:
        text = lab.server.config.read_text()
        lab.server.config.write_text(text[: text.index(begin)] + begin)

    return make


FILE = 'ssl.stapling-file = "DIR/staple.der"'
LIGHTTPD: tuple[Case, ...] = (
    Case(
        "staple file of the default host only", OFF, both(staple_file(), two_hosts(f'== "{NAME}"', "", FILE))
    ),
    Case(
        "host by expression, expired",
        BAD_FILE,
        both(staple_file(**EXPIRED), two_hosts('=~ "^www"', FILE)),
        ("ocsp.expired",),
    ),
    Case("host by its end", None, both(staple_file(), two_hosts('=$ ".lab.test"', FILE))),
)
