"""What nginx says of stapling, in error.log and in `nginx -t`, as findings.

The texts are those of ngx_event_openssl_stapling.c, ngx_event_openssl.c and ngx_resolver.c, from
1.22 to 1.31. nginx says nothing of an answer with an HTTP status other than 200 and the right
content type, nor of a certificate path with a variable.
"""

from __future__ import annotations

import re
from typing import Final

from stapleguard.finding import Code, Finding, find
from stapleguard.model import Severity

LOG_FAULTS: Final[tuple[tuple[re.Pattern[str], Code], ...]] = tuple(
    (re.compile(pattern), code)
    for pattern, code in (
        # At load: stapling is dead until the next one.
        (r'"ssl_stapling" ignored, issuer certificate not found', Code.SERVER_ISSUER_MISSING),
        (r'"ssl_stapling" ignored, host not found in OCSP', Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD),
        (r'"ssl_stapling" ignored, no OCSP responder URL', Code.STAPLE_NOT_APPLICABLE),
        (r'"ssl_stapling" ignored, invalid URL prefix', Code.SERVER_UNSUPPORTED),
        (r'"ssl_stapling" ignored, not supported', Code.SERVER_UNSUPPORTED),
        (r"d2i_OCSP_RESPONSE_bio\(.* failed", Code.SERVER_STAPLE_FILE_BAD),
        (r'BIO_new_file\("[^"]*ocsp[^"]*"\) failed', Code.SERVER_STAPLE_FILE_BAD),
        (r"key values mismatch", Code.MATERIAL_KEY_MISMATCH),
        (r"cannot load certificate", Code.MATERIAL_UNREADABLE),
        # Name resolution at run time, by the resolver of its configuration.
        (r"no resolver defined to resolve", Code.SERVER_RESOLVER_MISSING),
        (r"while resolving, resolver:", Code.SERVER_RESOLVER_BROKEN),
        (r"could not be resolved \(3:", Code.DNS_NAME_NOT_FOUND),
        (r"could not be resolved \(2:", Code.DNS_SERVER_FAILURE),
        (r"could not be resolved \(110:", Code.DNS_TIMEOUT),
        (r"could not be resolved \(", Code.SERVER_RESOLVER_BROKEN),
        # The connection to the responder.
        (r"\(111: Connection refused\) while requesting certificate status", Code.NET_REFUSED),
        (r"\((?:101|113): [^)]*\) while requesting certificate status", Code.NET_BLOCKED),
        (r"\(104: [^)]*\) while requesting certificate status", Code.NET_RESET),
        (r"OCSP responder timed out", Code.RESPONDER_SLOW),
        (r"OCSP responder prematurely closed connection", Code.NET_RESET),
        # What came back.
        (r'OCSP responder sent invalid "Content-Type" header', Code.RESPONDER_NOT_OCSP),
        (r"OCSP responder sent (?:invalid|too)", Code.RESPONDER_NOT_OCSP),
        (r"d2i_OCSP_RESPONSE\(\) failed", Code.RESPONDER_NOT_OCSP),
        (r"OCSP response not successful \(1:", Code.OCSP_MALFORMED_REQUEST),
        (r"OCSP response not successful \(2:", Code.OCSP_INTERNAL_ERROR),
        (r"OCSP response not successful \(3:", Code.OCSP_TRY_LATER),
        (r"OCSP response not successful \(5:", Code.OCSP_SIG_REQUIRED),
        (r"OCSP response not successful \(6:", Code.OCSP_UNAUTHORIZED),
        (r"certificate status not found in the OCSP response", Code.OCSP_WRONG_CERTIFICATE),
        (r"OCSP_basic_verify\(\) failed.*certificate verify error", Code.SERVER_TRUST_MISSING),
        (r"OCSP_basic_verify\(\) failed.*signer certificate not found", Code.SERVER_ISSUER_MISSING),
        (r"OCSP_basic_verify\(\) failed.*missing ocspsigning usage", Code.OCSP_UNAUTHORIZED_RESPONDER),
        (r"OCSP_basic_verify\(\) failed.*root ca not trusted", Code.OCSP_UNAUTHORIZED_RESPONDER),
        (r"OCSP_basic_verify\(\) failed", Code.OCSP_BAD_SIGNATURE),
        (r"OCSP_check_validity\(\) failed.*status expired", Code.OCSP_EXPIRED),
        (r"OCSP_check_validity\(\) failed.*status not yet valid", Code.OCSP_NOT_YET_VALID),
        (r"OCSP_check_validity\(\) failed|OCSP_response_get1_basic\(\) failed", Code.OCSP_MALFORMED),
        (r'certificate status "revoked" in the OCSP response', Code.OCSP_REVOKED),
        (r'certificate status "unknown" in the OCSP response', Code.OCSP_UNKNOWN),
        # Everything else that makes it refuse a configuration.
        (r"\[emerg\]", Code.SERVER_CONFIG_INVALID),
    )
)
"""What a line of nginx matches first is what it means."""

_PREFIX: Final = re.compile(r"^(?:nginx: |\S+ \S+ )?\[\w+\] (?:\d+#\d+: )?(?:\*\d+ )?")
_CERTIFICATE: Final = re.compile(r'(?:certificate:? |\w\()"([^"]+)"')
_RESPONDER: Final = re.compile(r"responder: ([^\s,]+)")
_PEER: Final = re.compile(r"(?:peer|resolver): ([^\s,]+)")

# One refused connection is two lines: the socket's error, then the responder's "prematurely closed".
# The first is the cause, and the second would look like another one.
_SHADOWED: Final = {Code.NET_RESET: (Code.NET_REFUSED, Code.NET_BLOCKED)}


def log_findings(text: str) -> tuple[Finding, ...]:
    """Read lines of error.log or of the output of `nginx -t`; lines of other matters give nothing.

    One finding a code and certificate, at its first appearance; `evidence` has the last such line,
    how often there was one, and the responder and its address where nginx names them. The subject is
    the path of the certificate, or "nginx". Which lines are recent enough is the caller's business.
    """
    last: dict[tuple[Code, str], str] = {}
    count: dict[tuple[Code, str], int] = {}
    for line in text.splitlines():
        code = next((code for pattern, code in LOG_FAULTS if pattern.search(line)), None)
        if code is None:
            continue
        certificate = _CERTIFICATE.search(line)
        subject = certificate[1] if certificate else "nginx"
        if any((cause, subject) in last for cause in _SHADOWED.get(code, ())):
            continue
        last[code, subject] = line
        count[code, subject] = count.get((code, subject), 0) + 1
    return tuple(
        _finding(code, subject, line, count[code, subject]) for (code, subject), line in last.items()
    )


def _finding(code: Code, subject: str, line: str, count: int) -> Finding:
    evidence: dict[str, str | int] = {"line": line.strip(), "count": count}
    for name, pattern in (("responder", _RESPONDER), ("peer", _PEER)):
        if named := pattern.search(line):
            evidence[name] = named[1]
    # Without a resolver nginx goes on with the address of load time: stapling works until that moves.
    severity = Severity.WARNING if code is Code.SERVER_RESOLVER_MISSING else None
    message = f"nginx says: {_PREFIX.sub('', line.strip())}"
    return find(code, subject, message, severity=severity, evidence=evidence)
