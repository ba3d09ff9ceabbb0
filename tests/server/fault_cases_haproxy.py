"""HAProxy's rows of the fault matrix: a file beside the bundle (2.6 knows nothing else), or `ocsp-update`."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from fault_makers import (
    BLOCK,
    DELEGATE,
    EXPIRED,
    FUTURE,
    IMPOSTOR,
    REVOKED,
    STATUS,
    UNKNOWN,
    Make,
    answers,
    ask,
    both,
    broken_config,
    closed,
    directive,
    firewall,
    key_of_another,
    leaf,
    leaf_only,
    name_unknown_everywhere,
    only_user_blocked,
    refused_file,
    renewed_staple_file,
    resolver,
    resolver_closed,
    says,
    staple_file,
    staple_text,
    stopped,
)
from lab.faults import DNS, DNS2, OCSP, PAGE, Case, Lab, Said, unsuccessful

NONE = "server.stapling-disabled"
BAD = "server.staple-file-bad"
CHAIN = "served.chain-incomplete"
PASSED = "server.serves-bad-staple"


def came_since(lab: Lab) -> None:
    lab.issue()
    lab.after.append(lab.staple)


def short(lab: Lab) -> None:
    """The bundle loses its chain after HAProxy has read it."""
    issued = lab.issue()
    lab.after.append(lambda: (lab.directory / "cert.pem").write_bytes(issued.cert_pem) and None)


def short_and_closed(lab: Lab) -> None:
    short(lab)
    closed(lab)


def issuer_gone(lab: Lab) -> None:
    """The next load would be refused."""
    short(lab)
    lab.staple()


def issuer_beside(lab: Lab) -> None:
    """Only the leaf in the bundle, and the issuer in a file of its own."""
    leaf_only(lab)
    lab.issue()
    issuer = (lab.directory / "intermediate.pem").read_bytes()
    (lab.directory / "cert.pem.issuer").write_bytes(issuer)


FILE: tuple[Case, ...] = (
    Case("no .ocsp", NONE, lambda lab: None),
    Case("no .ocsp, must-staple", NONE, leaf(must_staple=True)),
    Case("expired .ocsp", BAD, staple_file(**EXPIRED), ("ocsp.expired",)),
    Case(".ocsp of another certificate", BAD, staple_file(other=True), ("ocsp.wrong-certificate",)),
    Case(".ocsp with a wrong key", BAD, staple_file(**IMPOSTOR), ("ocsp.bad-signature",)),
    Case("revoked .ocsp", BAD, staple_file(**REVOKED), ("ocsp.revoked",)),
    Case("unknown .ocsp", BAD, staple_file(**UNKNOWN), ("ocsp.unknown",)),
    Case(".ocsp not yet valid", BAD, staple_file(**FUTURE), ("ocsp.not-yet-valid",)),
    Case("tryLater .ocsp", BAD, refused_file(STATUS.TRY_LATER), ("ocsp.try-later",)),
    Case("garbage .ocsp", BAD, staple_text(b"this is no DER"), ("ocsp.malformed",)),
    Case(".ocsp came after the load", "server.reload-not-taken", came_since),
    Case("expired at the load, renewed since", "server.reload-not-taken", renewed_staple_file),
    Case("chain gone since, .ocsp there", "server.issuer-missing", issuer_gone, ("server.config-invalid",)),
    Case("not running", "server.not-running", both(staple_file(), stopped), ("served.unreachable",)),
    Case("configuration broken since", "server.config-invalid", both(staple_file(), broken_config)),
    Case(
        "key of another certificate",
        "material.key-mismatch",
        both(staple_file(), key_of_another),
        ("server.config-invalid",),
    ),
    # The staple is there; what is missing is the chain.
    Case("leaf only with .issuer", CHAIN, both(issuer_beside, lambda lab: lab.staple())),
)
FILE_PAIRS: tuple[Case, ...] = (
    Case("no .ocsp + closed", NONE, closed, ("net.refused",)),
    Case("no .ocsp + revoked", NONE, answers(**REVOKED), ("ocsp.revoked",)),
    Case(
        "expired .ocsp + dropped", BAD, both(staple_file(**EXPIRED), BLOCK), ("ocsp.expired", "net.blocked")
    ),
    Case(
        "expired .ocsp + unauthorized",
        BAD,
        both(staple_file(**EXPIRED), says(unsuccessful(STATUS.UNAUTHORIZED))),
        ("ocsp.expired", "ocsp.unauthorized"),
    ),
    Case("no .ocsp + name unknown", NONE, name_unknown_everywhere, ("dns.name-not-found",)),
)
FILE_HEALTHY: tuple[Case, ...] = (
    Case("all is well", None, staple_file(), quick=True),
    Case("responder closed", None, both(staple_file(), closed)),
    Case("delegate", None, staple_file(**DELEGATE)),
    Case("must-staple", None, both(leaf(must_staple=True), staple_file())),
    Case("no responder in the certificate", None, leaf(ocsp_url=None)),
)

OFF = directive("ocsp-update", "off")
SECTION: Make = lambda lab: setattr(lab, "lines", f"resolvers default\n  nameserver one {DNS}:53\n")  # noqa: E731
WRONG_SECTION: Make = lambda lab: setattr(  # noqa: E731
    lab, "lines", f"resolvers default\n  nameserver one {DNS2}:53\n  timeout resolve 1s\n  timeout retry 1s\n"
)


def only_hosts_knows(lab: Lab) -> None:
    """/etc/hosts has the name, which HAProxy never reads."""
    lab.resolver.zone = {}


def recovered(lab: Lab) -> None:
    """Closed when HAProxy asked; it tries again after a while."""
    lab.main = {}  # at its usual pace, not the laboratory's
    closed(lab)

    def later() -> None:
        ask(lab)
        lab.responder = lab.another(OCSP)

    lab.after.append(later)


UPDATING: tuple[Case, ...] = (
    Case("ocsp-update off", NONE, OFF),
    Case("closed", "net.refused", closed, quick=True),
    Case("dropped", "net.blocked", BLOCK),
    Case(
        "rejected",
        "net.blocked",
        firewall(f"ip daddr {OCSP} tcp dport 80 reject with icmp type host-unreachable"),
    ),
    Case("HTTP 500", "responder.http-error", says(Said(500, "text/plain", b"no"))),
    Case("HTTP 500 as ocsp-response", "responder.http-error", says(Said(500))),
    Case("captive portal page", "responder.not-ocsp", says(PAGE)),
    Case("wrong content type", "responder.not-ocsp", says(Said(media_type="text/html"))),
    Case("garbage", "responder.not-ocsp", says(Said(body=b"this is no DER"))),
    Case("takes and is silent", "responder.slow", says(Said(silent=True))),
    Case("closes without answer", "net.reset", says(Said(closes=True))),
    Case("too large", "responder.too-large", says(Said(body=b"\x30" * 200_000))),
    Case("cut short", "ocsp.malformed", says(Said(cut=20))),
    Case("SHA-256 CertID", "ocsp.certid-unmatched", answers(certid_hash=hashes.SHA256())),
    Case("tryLater", "ocsp.try-later", says(unsuccessful(STATUS.TRY_LATER))),
    Case("unauthorized", "ocsp.unauthorized", says(unsuccessful(STATUS.UNAUTHORIZED))),
    Case("other certificate", "ocsp.wrong-certificate", answers(serial_offset=1)),
    Case("wrong key", "ocsp.bad-signature", answers(**IMPOSTOR)),
    Case("expired", "ocsp.expired", answers(**EXPIRED)),
    Case("unknown", "ocsp.unknown", answers(**UNKNOWN)),
    Case("revoked", PASSED, answers(**REVOKED), ("ocsp.revoked",)),
    Case("name unknown everywhere", "dns.name-not-found", name_unknown_everywhere),
    Case("only /etc/hosts knows the name", "server.resolver-broken", only_hosts_knows),
    Case("resolvers section on a dead server", "server.resolver-broken", WRONG_SECTION),
    Case("resolver silent", "server.resolver-broken", resolver(silent=True)),
    Case("user blocked", "server.blocked-only", only_user_blocked(f"ip daddr {OCSP} drop")),
    Case("chain gone since", "server.issuer-missing", short, ("server.config-invalid",)),
    Case("delegate", "server.trust-missing", answers(**DELEGATE)),
    Case("not running", "server.not-running", stopped, ("served.unreachable",)),
    Case("was closed, is open again", "responder.http-error", recovered),
    Case("must-staple, closed", "net.refused", both(leaf(must_staple=True), closed)),
)
UPDATING_PAIRS: tuple[Case, ...] = (
    Case("off + closed", NONE, both(OFF, closed), ("net.refused",)),
    Case(
        "resolver closed + HTTP 500",
        "server.resolver-broken",
        both(resolver_closed, says(Said(500))),
        ("responder.http-error",),
    ),
    Case(
        "dead resolvers section + tryLater",
        "server.resolver-broken",
        both(WRONG_SECTION, says(unsuccessful(STATUS.TRY_LATER))),
        ("ocsp.try-later",),
    ),
    Case("off + revoked", NONE, both(OFF, answers(**REVOKED)), ("ocsp.revoked",)),
    Case(
        "chain gone since + closed",
        "server.issuer-missing",
        short_and_closed,
        ("server.config-invalid", "net.refused"),
    ),
    Case(
        "only /etc/hosts knows + dropped",
        "server.resolver-broken",
        both(only_hosts_knows, BLOCK),
        ("net.blocked",),
    ),
)
UPDATING_HEALTHY: tuple[Case, ...] = (
    Case("all is well", None, lambda lab: None, quick=True),
    Case("a resolvers section", None, SECTION),
    Case("only its resolver knows the name", None, lambda lab: setattr(lab, "hosts", {})),
    Case("foreign .ocsp, which it replaces", None, staple_file(other=True)),
    Case("must-staple", None, leaf(must_staple=True)),
    Case("no responder in the certificate", None, both(OFF, leaf(ocsp_url=None))),
    Case("IP in the URL", None, leaf(ocsp_url=f"http://{OCSP}/")),
    Case("as an ordinary user, who may", None, only_user_blocked("tcp dport 25 drop")),
)
CASES = (*FILE_HEALTHY, *FILE, *FILE_PAIRS)
"""Those of a file: of any version."""
CASES_UPDATING = (*UPDATING_HEALTHY, *UPDATING, *UPDATING_PAIRS)
"""Those of a version that fetches."""
