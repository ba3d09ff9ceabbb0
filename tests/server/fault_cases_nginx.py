"""nginx's rows of the fault matrix and more, one by one, in pairs, and healthy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import dns.rcode
from cryptography.hazmat.primitives import hashes
from fault_makers import (
    BLOCK,
    DELEGATE,
    EXPIRED,
    FUTURE,
    IMPOSTOR,
    NO_STAPLING,
    REVOKED,
    STATUS,
    UNKNOWN,
    answers,
    both,
    both_families,
    broken_config,
    broken_staple_file,
    closed,
    directive,
    firewall,
    key_of_another,
    leaf,
    leaf_only,
    moved,
    name_unknown_everywhere,
    not_reloaded,
    only_configured_knows,
    only_six,
    only_user_blocked,
    portal,
    proxied,
    proxy_closed,
    recovered,
    redirect_to_good,
    renewed_staple_file,
    resolver,
    resolver_closed,
    says,
    short_lived,
    six_dropped,
    six_refused,
    staple_file,
    stopped,
    unknown_at_load,
    variable,
    wrong_address,
)
from lab.faults import (
    DNS,
    GOOD,
    OCSP,
    OCSP6,
    OCSP_NAME,
    OTHER,
    PAGE,
    Case,
    Said,
    unsuccessful,
)
from stapleguard.rehearsal.authority import AnswerOptions, Signer

SINGLE: tuple[Case, ...] = (
    # the configuration
    Case("stapling off", "server.stapling-disabled", NO_STAPLING, quick=True),
    Case("no ssl_stapling at all", "server.stapling-disabled", directive("ssl_stapling", None)),
    Case("stapling off, file set", "server.stapling-disabled", both(staple_file(), NO_STAPLING)),
    Case("variable certificate", "server.variable-certificate", variable),
    Case("key of another certificate", "material.key-mismatch", key_of_another, ("server.config-invalid",)),
    Case("configuration broken since", "server.config-invalid", broken_config),
    Case("not running", "server.not-running", stopped, ("served.unreachable",)),
    Case("mended but not reloaded", "server.reload-not-taken", not_reloaded),
    # the issuer
    Case(
        "leaf only, no trusted",
        "server.issuer-missing",
        both(leaf_only, directive("ssl_trusted_certificate", None), directive("ssl_stapling_verify", None)),
        quick=True,
    ),
    Case(
        "leaf only, trusted root only",
        "server.issuer-missing",
        both(leaf_only, directive("ssl_trusted_certificate", '"DIR/root.pem"')),
    ),
    Case("leaf only, trusted both", "server.issuer-missing", leaf_only),
    Case(
        "leaf only, verify off",
        "server.issuer-missing",
        both(leaf_only, directive("ssl_stapling_verify", "off")),
    ),
    Case("https responder", "server.unsupported", leaf(ocsp_url=f"https://{OCSP_NAME}/")),
    Case(
        "https ssl_stapling_responder",
        "server.unsupported",
        directive("ssl_stapling_responder", f"https://{OCSP_NAME}/"),
    ),
    # the staple file
    Case("staple file expired", "server.staple-file-bad", staple_file(**EXPIRED), ("ocsp.expired",)),
    Case(
        "staple file of another",
        "server.staple-file-bad",
        staple_file(other=True),
        ("ocsp.wrong-certificate",),
    ),
    Case("staple file revoked", "server.staple-file-bad", staple_file(**REVOKED), ("ocsp.revoked",)),
    Case("staple file wrong key", "server.staple-file-bad", staple_file(**IMPOSTOR), ("ocsp.bad-signature",)),
    Case(
        "staple file not yet valid", "server.staple-file-bad", staple_file(**FUTURE), ("ocsp.not-yet-valid",)
    ),
    Case(
        "staple file garbage since", "server.staple-file-bad", broken_staple_file, ("server.config-invalid",)
    ),
    Case("staple file renewed, not reloaded", "server.reload-not-taken", renewed_staple_file),
    # names
    Case(
        "name unknown at load, known now",
        "server.responder-unresolvable-at-load",
        unknown_at_load,
        quick=True,
    ),
    Case(
        "only the configured resolver knows it",
        "server.responder-unresolvable-at-load",
        only_configured_knows,
    ),
    Case("name unknown everywhere", "dns.name-not-found", name_unknown_everywhere),
    Case("resolver NXDOMAIN", "server.resolver-broken", resolver(zone={})),
    Case("resolver SERVFAIL", "server.resolver-broken", resolver(rcode=dns.rcode.SERVFAIL)),
    Case("resolver REFUSED", "server.resolver-broken", resolver(rcode=dns.rcode.REFUSED)),
    Case("resolver drops", "server.resolver-broken", resolver(silent=True)),
    Case("resolver closed", "server.resolver-broken", resolver_closed),
    Case(
        "resolver blackholed by firewall",
        "server.resolver-broken",
        firewall(f"ip daddr {DNS} udp dport 53 drop"),
    ),
    Case("resolver answers without address", "server.resolver-broken", resolver(zone={OCSP_NAME: ()})),
    Case("resolver gives a wrong address", "server.resolver-broken", wrong_address),
    Case("resolver on a wrong port", "server.resolver-broken", directive("resolver", f"{DNS}:5353")),
    Case("no resolver, address moved", "server.resolver-missing", moved),
    # the connection
    Case("responder closed", "net.refused", closed, quick=True),
    Case("responder dropped", "net.blocked", BLOCK),
    Case("responder dropped, IP in the URL", "net.blocked", both(leaf(ocsp_url=f"http://{OCSP}/"), BLOCK)),
    Case(
        "responder rejected by firewall",
        "net.blocked",
        firewall(f"ip daddr {OCSP} tcp dport 80 reject with icmp type host-unreachable"),
    ),
    Case(
        "responder reset by firewall",
        "net.refused",
        firewall(f"ip daddr {OCSP} tcp dport 80 reject with tcp reset"),
    ),
    Case("responder takes and is silent", "responder.slow", says(Said(silent=True))),
    Case("responder closes without answer", "net.reset", says(Said(closes=True))),
    Case("IPv6 only, dropped", "net.blocked", only_six),
    Case("was closed, is open again", "net.refused", recovered),
    Case(
        "user blocked (drop)", "server.blocked-only", only_user_blocked(f"ip daddr {OCSP} drop"), quick=True
    ),
    Case("user blocked (reject)", "server.blocked-only", only_user_blocked(f"ip daddr {OCSP} reject")),
    Case("user's DNS blocked", "server.blocked-only", only_user_blocked("udp dport 53 drop")),
    Case(
        "ssl_stapling_responder closed",
        "net.refused",
        directive("ssl_stapling_responder", f"http://{OTHER}:81/"),
    ),
    # HTTP
    Case("HTTP 500", "responder.http-error", says(Said(500, "text/plain", b"no"))),
    Case("HTTP 500 as ocsp-response", "responder.http-error", says(Said(500))),
    Case("HTTP 404", "responder.http-error", says(Said(404, "text/plain", b"no"))),
    Case("HTTP 403 page", "responder.http-error", says(Said(403, "text/html", b"no"))),
    Case("HTTP 503", "responder.http-error", says(Said(503, "text/plain", b"no"))),
    Case("GET not allowed", "responder.http-error", says(Said(methods=("POST",)))),
    Case("redirect to a good answer", "responder.http-error", redirect_to_good),
    Case("captive portal by redirect", "responder.not-ocsp", portal),
    Case("captive portal page", "responder.not-ocsp", says(PAGE)),
    Case("wrong content type", "responder.not-ocsp", says(Said(media_type="text/html"))),
    Case("garbage", "responder.not-ocsp", says(Said(body=b"this is no DER"))),
    Case("empty body", "responder.not-ocsp", says(Said(body=b""))),
    Case("too large", "responder.too-large", says(Said(body=b"\x30" * 200_000))),
    # OCSP
    Case("cut short", "ocsp.malformed", says(Said(cut=20))),
    Case("tryLater", "ocsp.try-later", says(unsuccessful(STATUS.TRY_LATER)), quick=True),
    Case("unauthorized", "ocsp.unauthorized", says(unsuccessful(STATUS.UNAUTHORIZED))),
    Case("internalError", "ocsp.internal-error", says(unsuccessful(STATUS.INTERNAL_ERROR))),
    Case("malformedRequest", "ocsp.malformed-request", says(unsuccessful(STATUS.MALFORMED_REQUEST))),
    Case("sigRequired", "ocsp.sig-required", says(unsuccessful(STATUS.SIG_REQUIRED))),
    Case("other certificate", "ocsp.wrong-certificate", answers(serial_offset=1)),
    Case("wrong key", "ocsp.bad-signature", answers(**IMPOSTOR)),
    Case("signer without OCSPSigning", "ocsp.unauthorized-responder", answers(signer=Signer.UNAUTHORIZED)),
    Case("expired answer", "ocsp.expired", answers(**EXPIRED)),
    Case("answer of the future", "ocsp.not-yet-valid", answers(**FUTURE)),
    Case("revoked", "ocsp.revoked", answers(**REVOKED)),
    Case("unknown", "ocsp.unknown", answers(**UNKNOWN)),
    Case("SHA-256 CertID", "ocsp.certid-unmatched", answers(certid_hash=hashes.SHA256())),
    Case(
        "clock of everybody else",
        "host.clock-wrong",
        says(replace(GOOD, date_shift=timedelta(days=1), answer=AnswerOptions(**FUTURE))),
        ("ocsp.not-yet-valid",),
    ),
    Case("answers that end in three seconds", "staple.near-expiry", short_lived),
    Case("answers after twelve seconds", "responder.slow", says(Said(delay=12))),
    # trust
    Case(
        "delegate, trusted intermediate only",
        "server.trust-missing",
        both(answers(**DELEGATE), directive("ssl_trusted_certificate", '"DIR/intermediate.pem"')),
        quick=True,
    ),
    Case(
        "delegate, trusted another CA",
        "server.trust-missing",
        both(answers(**DELEGATE), directive("ssl_trusted_certificate", '"DIR/strangers.pem"')),
    ),
    Case(
        "delegate, nothing trusted",
        "server.trust-missing",
        both(answers(**DELEGATE), directive("ssl_trusted_certificate", None)),
    ),
    # must-staple
    Case("must-staple, responder closed", "net.refused", both(leaf(must_staple=True), closed)),
)

PAIRS: tuple[Case, ...] = (
    Case(
        "resolver NXDOMAIN + port dropped",
        "server.resolver-broken",
        both(resolver(zone={}), BLOCK),
        ("net.blocked",),
    ),
    Case(
        "resolver silent + responder closed",
        "server.resolver-broken",
        both(resolver(silent=True), closed),
        ("net.refused",),
    ),
    Case(
        "resolver SERVFAIL + tryLater",
        "server.resolver-broken",
        both(resolver(rcode=dns.rcode.SERVFAIL), says(unsuccessful(STATUS.TRY_LATER))),
        ("ocsp.try-later",),
    ),
    Case(
        "resolver closed + HTTP 500",
        "server.resolver-broken",
        both(resolver_closed, says(Said(500))),
        ("responder.http-error",),
    ),
    Case(
        "stapling off + responder closed",
        "server.stapling-disabled",
        both(NO_STAPLING, closed),
        ("net.refused",),
    ),
    Case(
        "stapling off + resolver refused",
        "server.stapling-disabled",
        both(NO_STAPLING, resolver(rcode=dns.rcode.REFUSED)),
        ("server.resolver-broken",),
    ),
    Case("stapling off + dropped", "server.stapling-disabled", both(NO_STAPLING, BLOCK), ("net.blocked",)),
    Case(
        "leaf only + responder closed",
        "server.issuer-missing",
        both(leaf_only, directive("ssl_trusted_certificate", '"DIR/root.pem"'), closed),
        ("net.refused",),
    ),
    Case(
        "leaf only + resolver NXDOMAIN",
        "server.issuer-missing",
        both(leaf_only, directive("ssl_trusted_certificate", '"DIR/root.pem"'), resolver(zone={})),
        ("server.resolver-broken",),
    ),
    Case(
        "delegate untrusted + resolver silent",
        "server.resolver-broken",
        both(
            answers(**DELEGATE),
            directive("ssl_trusted_certificate", '"DIR/intermediate.pem"'),
            resolver(silent=True),
        ),
        ("server.trust-missing",),
    ),
    Case(
        "delegate untrusted + user blocked",
        "server.blocked-only",
        both(
            answers(**DELEGATE),
            directive("ssl_trusted_certificate", '"DIR/intermediate.pem"'),
            only_user_blocked(f"ip daddr {OCSP} drop"),
        ),
        ("server.trust-missing",),
    ),
    Case(
        "variable + responder closed", "server.variable-certificate", both(variable, closed), ("net.refused",)
    ),
    Case(
        "unknown at load + expired answers",
        "server.responder-unresolvable-at-load",
        both(unknown_at_load, answers(**EXPIRED)),
        ("ocsp.expired",),
    ),
    Case(
        "resolver NXDOMAIN + wrong key",
        "server.resolver-broken",
        both(resolver(zone={}), answers(**IMPOSTOR)),
        ("ocsp.bad-signature",),
    ),
    Case(
        "stapling off + revoked",
        "server.stapling-disabled",
        both(NO_STAPLING, answers(**REVOKED)),
        ("ocsp.revoked",),
    ),
    Case(
        "clock + resolver silent",
        "host.clock-wrong",
        both(
            says(replace(GOOD, date_shift=timedelta(days=1), answer=AnswerOptions(**FUTURE))),
            resolver(silent=True),
        ),
        ("server.resolver-broken", "ocsp.not-yet-valid"),
    ),
    Case(
        "resolver wrong port + garbage",
        "server.resolver-broken",
        both(directive("resolver", f"{DNS}:5353"), says(Said(body=b"none"))),
        ("responder.not-ocsp",),
    ),
    Case("IPv6 dropped + IPv4 closed", "net.blocked", both(six_dropped, closed), ("net.refused",)),
)

HEALTHY: tuple[Case, ...] = (
    Case("all is well", None, lambda lab: None, quick=True),
    Case("no resolver, address of load time", None, directive("resolver", None)),
    Case(
        "IP in the URL, no resolver",
        None,
        both(leaf(ocsp_url=f"http://{OCSP}/"), directive("resolver", None)),
    ),
    Case("delegate, trusted in full", None, answers(**DELEGATE)),
    Case(
        "delegate, root only",
        None,
        both(answers(**DELEGATE), directive("ssl_trusted_certificate", '"DIR/root.pem"')),
    ),
    Case(
        "delegate, verify off",
        None,
        both(
            answers(**DELEGATE),
            directive("ssl_trusted_certificate", None),
            directive("ssl_stapling_verify", "off"),
        ),
    ),
    Case(
        "issuer-signed, trusted another CA", None, directive("ssl_trusted_certificate", '"DIR/strangers.pem"')
    ),
    Case("answers after three seconds", None, says(Said(delay=3))),
    Case("no nextUpdate", None, answers(next_update=None)),
    Case("staple file", None, staple_file()),
    Case("staple file, responder closed", None, both(staple_file(), closed)),
    Case("no content type, which nginx does not mind", None, says(Said(media_type=""))),
    Case("must-staple", None, leaf(must_staple=True)),
    Case("no responder in the certificate", None, leaf(ocsp_url=None), quick=True),
    Case("two address families", None, both(both_families, lambda lab: lab.another(OCSP6) and None)),
    Case("IPv6 refused, IPv4 well", None, six_refused),
    Case("through a proxy as well", None, proxied),
    Case("our proxy is closed, the server needs none", None, proxy_closed),
    Case("as an ordinary user", None, only_user_blocked("tcp dport 25 drop")),
)

CASES = (*HEALTHY, *SINGLE, *PAIRS)
