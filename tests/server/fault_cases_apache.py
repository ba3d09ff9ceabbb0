"""Apache's rows of the fault matrix: with settings that keep bad answers back, and with its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

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
    main,
    modules,
    name_unknown_everywhere,
    only_user_blocked,
    portal,
    proxied,
    redirect_to_good,
    says,
    stopped,
)
from lab.faults import GOOD, OCSP, OCSP_NAME, OTHER, PAGE, Case, Lab, Said, unsuccessful
from stapleguard.rehearsal.authority import AnswerOptions, Signer

OFF = directive("SSLUseStapling", "off")
DEFAULTS: Make = both(
    directive("SSLStaplingReturnResponderErrors", None), directive("SSLStaplingFakeTryLater", None)
)
"""What Apache does when nobody tells it: it passes on what it gets."""
PATIENT = directive("SSLStaplingResponderTimeout", None)
NO_CACHE = main("SSLStaplingCache", None)
FORCED = directive("SSLStaplingForceURL", f"http://{OTHER}:81/")


def no_cache_since(lab: Lab) -> None:
    """It runs, and would not start again."""

    def later() -> None:
        NO_CACHE(lab)
        lab.write()

    lab.after.append(later)


def no_cache_stopped(lab: Lab) -> None:
    stopped(lab)
    no_cache_since(lab)


def recovered(lab: Lab) -> None:
    """The responder was closed when Apache asked; now it is open, and Apache keeps the failure."""
    closed(lab)

    def later() -> None:
        ask(lab)
        lab.responder = lab.another(OCSP)

    lab.after.append(later)


def own_proxy(lab: Lab) -> None:
    """Apache goes through a proxy, and there is none."""
    lab.directives["SSLOCSPProxyURL"] = f"http://{OTHER}:3128"


def own_proxy_works(lab: Lab) -> None:
    lab.another(OTHER, 3128)
    own_proxy(lab)


def managed(lab: Lab) -> None:
    """mod_md staples instead of mod_ssl."""
    modules("md")(lab)
    (lab.directory / "md").mkdir(exist_ok=True)
    (lab.directory / "md").chmod(0o777)  # its processes keep there what they fetch
    lab.directives.clear()
    lab.main = {"MDStoreDir": f'"{lab.directory}/md"', "MDStapling": "on", "MDStapleOthers": "on"}


def restarted(lab: Lab) -> None:
    """mod_md fetches in the background, and what it has stored every process has after a restart."""

    def later() -> None:
        ask(lab)
        lab.stop()
        lab.start()

    lab.after.append(later)


BAD = "server.serves-bad-staple"
KEPT_BACK: tuple[Case, ...] = (
    Case("closed", "net.refused", closed, quick=True),
    Case("dropped", "net.blocked", BLOCK),
    Case(
        "rejected",
        "net.blocked",
        firewall(f"ip daddr {OCSP} tcp dport 80 reject with icmp type host-unreachable"),
    ),
    Case("HTTP 500", "responder.http-error", says(Said(500, "text/plain", b"no"))),
    Case("HTTP 404", "responder.http-error", says(Said(404, "text/plain", b"no"))),
    Case("POST not allowed", "responder.http-error", says(Said(methods=("GET",)))),
    Case("redirect to a good answer", "responder.http-error", redirect_to_good),
    Case("captive portal by redirect", "responder.not-ocsp", portal),
    Case("captive portal page", "responder.not-ocsp", says(PAGE)),
    Case("garbage", "responder.not-ocsp", says(Said(body=b"this is no DER"))),
    Case("empty body", "responder.not-ocsp", says(Said(body=b""))),
    Case("takes and is silent", "responder.slow", says(Said(silent=True))),
    Case(
        "takes and is silent, for as long as Apache waits",
        "responder.slow",
        both(PATIENT, says(Said(silent=True))),
    ),
    Case("dropped, for as long as Apache waits", "net.blocked", both(PATIENT, BLOCK)),
    Case("closes without answer", "net.reset", says(Said(closes=True))),
    Case("name unknown everywhere", "dns.name-not-found", name_unknown_everywhere),
    Case("too large", "responder.too-large", says(Said(body=b"\x30" * 200_000))),
    Case("cut short", "ocsp.malformed", says(Said(cut=20))),
    Case("tryLater", "ocsp.try-later", says(unsuccessful(STATUS.TRY_LATER))),
    Case("unauthorized", "ocsp.unauthorized", says(unsuccessful(STATUS.UNAUTHORIZED))),
    Case("internalError", "ocsp.internal-error", says(unsuccessful(STATUS.INTERNAL_ERROR))),
    Case("expired", "ocsp.expired", answers(**EXPIRED)),
    Case("other certificate", "ocsp.wrong-certificate", answers(serial_offset=1)),
    Case("SHA-256 CertID", "ocsp.certid-unmatched", answers(certid_hash=hashes.SHA256())),
    Case("user blocked", "server.blocked-only", only_user_blocked(f"ip daddr {OCSP} drop")),
    Case("must-staple, closed", "net.refused", both(leaf(must_staple=True), closed)),
)
PASSED_ON: tuple[Case, ...] = (
    Case("revoked", BAD, answers(**REVOKED), ("ocsp.revoked",), quick=True),
    Case("unknown", BAD, answers(**UNKNOWN), ("ocsp.unknown",)),
    Case("wrong key", BAD, answers(**IMPOSTOR), ("ocsp.bad-signature",)),
    Case(
        "signer without OCSPSigning",
        BAD,
        answers(signer=Signer.UNAUTHORIZED),
        ("ocsp.unauthorized-responder",),
    ),
    Case("defaults, revoked", BAD, both(DEFAULTS, answers(**REVOKED)), ("ocsp.revoked",)),
    Case(
        "defaults, other certificate",
        BAD,
        both(DEFAULTS, answers(serial_offset=1)),
        ("ocsp.wrong-certificate",),
    ),
    Case("defaults, wrong key", BAD, both(DEFAULTS, answers(**IMPOSTOR)), ("ocsp.bad-signature",)),
    Case("defaults, expired", BAD, both(DEFAULTS, answers(**EXPIRED)), ("ocsp.expired",)),
    Case("defaults, unknown", BAD, both(DEFAULTS, answers(**UNKNOWN)), ("ocsp.unknown",)),
    Case(
        "defaults, tryLater", BAD, both(DEFAULTS, says(unsuccessful(STATUS.TRY_LATER))), ("ocsp.try-later",)
    ),
    Case(
        "defaults, unauthorized",
        BAD,
        both(DEFAULTS, says(unsuccessful(STATUS.UNAUTHORIZED))),
        ("ocsp.unauthorized",),
    ),
    # What it makes up itself when nobody answers is not the responder's word.
    Case("defaults, closed", "net.refused", both(DEFAULTS, closed), (BAD,), quick=True),
    Case(
        "defaults, HTTP 500",
        "responder.http-error",
        both(DEFAULTS, says(Said(500, "text/plain", b"no"))),
        (BAD,),
    ),
    Case("defaults, dropped", "net.blocked", both(DEFAULTS, BLOCK), (BAD,)),
    Case("defaults, garbage", "responder.not-ocsp", both(DEFAULTS, says(Said(body=b"no DER"))), (BAD,)),
    Case("defaults, was closed, is open again", "net.refused", both(DEFAULTS, recovered), (BAD,)),
)
CONFIGURED: tuple[Case, ...] = (
    Case("SSLUseStapling off", "server.stapling-disabled", OFF),
    Case("no SSLUseStapling at all", "server.stapling-disabled", directive("SSLUseStapling", None)),
    Case("leaf only", "server.issuer-missing", leaf_only),
    Case(
        "SSLStaplingCache gone, not running",
        "server.cache-missing",
        no_cache_stopped,
        ("server.not-running", "served.unreachable"),
    ),
    Case("not running", "server.not-running", stopped, ("served.unreachable",)),
    Case("configuration broken since", "server.config-invalid", broken_config),
    Case("SSLStaplingForceURL closed", "net.refused", FORCED),
    Case("SSLOCSPProxyURL closed", "net.refused", own_proxy),
    Case("https responder", "server.unsupported", leaf(ocsp_url=f"https://{OCSP_NAME}/")),
    Case("key of another certificate", "material.key-mismatch", key_of_another),
    Case("mod_md, closed", "net.refused", both(managed, closed)),
    Case("mod_md, tryLater", "ocsp.try-later", both(managed, says(unsuccessful(STATUS.TRY_LATER)))),
    Case("mod_md, revoked", BAD, both(managed, answers(**REVOKED)), ("ocsp.revoked",)),
    Case(
        "clock of everybody else",
        "host.clock-wrong",
        says(replace(GOOD, date_shift=timedelta(days=1), answer=AnswerOptions(**FUTURE))),
        ("ocsp.not-yet-valid",),
    ),
)
PAIRS: tuple[Case, ...] = (
    Case("off + closed", "server.stapling-disabled", both(OFF, closed), ("net.refused",)),
    Case("leaf only + closed", "server.issuer-missing", both(leaf_only, closed), ("net.refused",)),
    Case("leaf only + dropped", "server.issuer-missing", both(leaf_only, BLOCK), ("net.blocked",)),
    Case("off + revoked", "server.stapling-disabled", both(OFF, answers(**REVOKED)), ("ocsp.revoked",)),
    Case("proxy closed + off", "server.stapling-disabled", both(own_proxy, OFF), ("net.refused",)),
    Case(
        "name unknown + off",
        "server.stapling-disabled",
        both(name_unknown_everywhere, OFF),
        ("dns.name-not-found",),
    ),
)
HEALTHY: tuple[Case, ...] = (
    Case("all is well", None, lambda lab: None, quick=True),
    Case("defaults", None, DEFAULTS),
    Case("GET not allowed", None, says(Said(methods=("POST",)))),
    Case("delegate", None, answers(**DELEGATE)),
    Case(
        "issuer among SSLCACertificateFile",
        None,
        both(leaf_only, directive("SSLCACertificateFile", '"DIR/trusted.pem"')),
    ),
    Case("SSLStaplingCache gone since", None, no_cache_since),
    Case(
        "SSLStaplingForceURL works",
        None,
        both(directive("SSLStaplingForceURL", f"http://{OCSP}/"), leaf(ocsp_url=f"http://{OTHER}:81/")),
    ),
    Case("through a proxy of its own", None, own_proxy_works),
    Case("its proxy works, the straight way is shut", None, both(own_proxy_works, BLOCK)),
    Case("through a proxy of ours as well", None, proxied),
    Case("no responder in the certificate", None, leaf(ocsp_url=None)),
    Case("must-staple", None, leaf(must_staple=True)),
    Case("answers after two seconds", None, says(Said(delay=2))),
    Case("as an ordinary user, who may", None, only_user_blocked("tcp dport 25 drop")),
    Case("no nextUpdate", None, answers(next_update=None)),
    Case("wrong content type, which Apache does not mind", None, says(Said(media_type="text/html"))),
    Case("mod_md, restarted after its first fetch", None, both(managed, restarted)),
    # With these settings it keeps no failure.
    Case("was closed, is open again", None, recovered),
)
CASES = (*HEALTHY, *CONFIGURED, *KEPT_BACK, *PASSED_ON, *PAIRS)
