"""Every stable finding code, and what the catalogue holds for one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stapleguard.model import Severity


class Code(Enum):
    """Every finding code."""

    MATERIAL_KEY_MISMATCH = "material.key-mismatch"
    MATERIAL_CHAIN_INCOMPLETE = "material.chain-incomplete"
    MATERIAL_CHAIN_ORDER = "material.chain-order"
    MATERIAL_EXPIRED = "material.expired"
    MATERIAL_NOT_YET_VALID = "material.not-yet-valid"
    MATERIAL_NAME_MISMATCH = "material.name-mismatch"
    MATERIAL_UNREADABLE = "material.unreadable"
    MATERIAL_OLDER_THAN_SERVED = "material.older-than-served"
    OCSP_MALFORMED = "ocsp.malformed"
    OCSP_TRY_LATER = "ocsp.try-later"
    OCSP_UNAUTHORIZED = "ocsp.unauthorized"
    OCSP_INTERNAL_ERROR = "ocsp.internal-error"
    OCSP_MALFORMED_REQUEST = "ocsp.malformed-request"
    OCSP_SIG_REQUIRED = "ocsp.sig-required"
    OCSP_WRONG_CERTIFICATE = "ocsp.wrong-certificate"
    OCSP_BAD_SIGNATURE = "ocsp.bad-signature"
    OCSP_UNAUTHORIZED_RESPONDER = "ocsp.unauthorized-responder"
    OCSP_EXPIRED = "ocsp.expired"
    OCSP_NOT_YET_VALID = "ocsp.not-yet-valid"
    OCSP_TOO_OLD = "ocsp.too-old"
    OCSP_NO_NEXT_UPDATE = "ocsp.no-next-update"
    OCSP_REVOKED = "ocsp.revoked"
    OCSP_UNKNOWN = "ocsp.unknown"
    OCSP_CRITICAL_EXTENSION = "ocsp.critical-extension"
    OCSP_WEAK_SIGNATURE = "ocsp.weak-signature"
    OCSP_CERTID_UNMATCHED = "ocsp.certid-unmatched"
    OCSP_NO_NOCHECK = "ocsp.no-nocheck"
    OCSP_OUTLIVES_LEAF = "ocsp.outlives-leaf"
    OCSP_AMBIGUOUS = "ocsp.ambiguous"
    DNS_NAME_NOT_FOUND = "dns.name-not-found"
    DNS_SERVER_FAILURE = "dns.server-failure"
    DNS_TIMEOUT = "dns.timeout"
    NET_REFUSED = "net.refused"
    NET_BLOCKED = "net.blocked"
    NET_RESET = "net.reset"
    RESPONDER_SLOW = "responder.slow"
    RESPONDER_HTTP_ERROR = "responder.http-error"
    RESPONDER_NOT_OCSP = "responder.not-ocsp"
    RESPONDER_TOO_LARGE = "responder.too-large"
    RESPONDER_FORBIDDEN_ADDRESS = "responder.forbidden-address"
    SERVER_STAPLING_DISABLED = "server.stapling-disabled"
    SERVER_ISSUER_MISSING = "server.issuer-missing"
    SERVER_TRUST_MISSING = "server.trust-missing"
    SERVER_RESOLVER_MISSING = "server.resolver-missing"
    SERVER_RESOLVER_BROKEN = "server.resolver-broken"
    SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD = "server.responder-unresolvable-at-load"
    SERVER_CACHE_MISSING = "server.cache-missing"
    SERVER_STAPLE_FILE_BAD = "server.staple-file-bad"
    SERVER_VARIABLE_CERTIFICATE = "server.variable-certificate"
    SERVER_CONFIG_INVALID = "server.config-invalid"
    SERVER_RELOAD_NOT_TAKEN = "server.reload-not-taken"
    SERVER_NOT_RUNNING = "server.not-running"
    SERVER_UNSUPPORTED = "server.unsupported"
    SERVER_SERVES_BAD_STAPLE = "server.serves-bad-staple"
    SERVER_WORKER_UNSTAPLED = "server.worker-unstapled"
    SERVER_BLOCKED_ONLY = "server.blocked-only"
    SERVER_NOT_GUARDED = "server.not-guarded"
    SERVED_OLD_CERTIFICATE = "served.old-certificate"
    SERVED_CHAIN_INCOMPLETE = "served.chain-incomplete"
    SERVED_NAME_MISMATCH = "served.name-mismatch"
    SERVED_NOT_TRUSTED = "served.not-trusted"
    SERVED_UNREACHABLE = "served.unreachable"
    SERVED_TLS_FAILURE = "served.tls-failure"
    SERVED_NODE_DIFFERS = "served.node-differs"
    STAPLE_ABSENT = "staple.absent"
    STAPLE_NOT_APPLICABLE = "staple.not-applicable"
    STAPLE_MUST_STAPLE_UNMET = "staple.must-staple-unmet"
    STAPLE_NEAR_EXPIRY = "staple.near-expiry"
    STAPLE_LEFT_OVER = "staple.left-over"
    HOST_CLOCK_WRONG = "host.clock-wrong"
    HOST_PERMISSION = "host.permission"
    HOST_DISK_FULL = "host.disk-full"
    HOST_INTERNAL = "host.internal"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalogue says of a code.

    `severity` is the default; `title` is one plain line; `recognised` names the observation; `remedy`
    holds numbered steps in one line, `(1) … (2) …`; `reference` is the specification or the vendor's page.
    """

    severity: Severity
    title: str
    recognised: str
    remedy: str
    reference: str
