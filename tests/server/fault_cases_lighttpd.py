"""lighttpd's rows of the fault matrix: it fetches nothing, so all of them are about its file."""

from __future__ import annotations

from fault_makers import (
    BLOCK,
    EXPIRED,
    FUTURE,
    IMPOSTOR,
    REVOKED,
    STATUS,
    UNKNOWN,
    answers,
    both,
    broken_config,
    closed,
    key_of_another,
    leaf,
    name_unknown_everywhere,
    refused_file,
    renewed_staple_file,
    says,
    staple_file,
    staple_text,
    stopped,
)
from lab.faults import Case, Lab, Said, unsuccessful

NONE = "server.stapling-disabled"
BAD = "server.staple-file-bad"


def gone(lab: Lab) -> None:
    """The file is named, and is not there."""
    lab.issue()
    lab.staple()
    lab.before.append((lab.directory / "staple.der").unlink)


def gone_since(lab: Lab) -> None:
    lab.issue()
    lab.staple()
    lab.after.append((lab.directory / "staple.der").unlink)


def came_since(lab: Lab) -> None:
    """It was not there when lighttpd loaded."""
    gone(lab)
    lab.after.append(lab.staple)


def named_since(lab: Lab) -> None:
    """The configuration names it now; nobody has told lighttpd."""
    lab.issue()

    def later() -> None:
        lab.staple()
        lab.write()

    lab.after.append(later)


def unreadable(lab: Lab) -> None:
    """It starts as root and becomes nobody, who may not read the file again."""
    lab.user = "nobody"
    lab.issue()
    lab.staple()
    lab.before.append(lambda: (lab.directory / "staple.der").chmod(0o600))
    lab.after.append(lambda: (lab.directory / "staple.der").chmod(0o600))


SINGLE: tuple[Case, ...] = (
    Case("no stapling-file", NONE, lambda lab: None),
    Case("no stapling-file, must-staple", NONE, leaf(must_staple=True)),
    Case("file is not there", BAD, gone),
    Case("file is gone since", BAD, gone_since),
    Case("expired", BAD, staple_file(**EXPIRED), ("ocsp.expired",), quick=True),
    Case("of another certificate", BAD, staple_file(other=True), ("ocsp.wrong-certificate",)),
    Case("wrong key", BAD, staple_file(**IMPOSTOR), ("ocsp.bad-signature",)),
    Case("revoked", BAD, staple_file(**REVOKED), ("ocsp.revoked",)),
    Case("unknown", BAD, staple_file(**UNKNOWN), ("ocsp.unknown",)),
    Case("not yet valid", BAD, staple_file(**FUTURE), ("ocsp.not-yet-valid",)),
    Case("tryLater", BAD, refused_file(STATUS.TRY_LATER), ("ocsp.try-later",)),
    Case("garbage", BAD, staple_text(b"this is no DER"), ("ocsp.malformed",)),
    Case("empty", BAD, staple_text(b""), ("ocsp.malformed",)),
    Case("came after the load", "server.reload-not-taken", came_since),
    Case("expired at the load, renewed since", "server.reload-not-taken", renewed_staple_file),
    Case("named since, not reloaded", "server.reload-not-taken", named_since),
    Case("not running", "server.not-running", both(staple_file(), stopped), ("served.unreachable",)),
    Case("configuration broken since", "server.config-invalid", both(staple_file(), broken_config)),
    Case(
        "key of another certificate",
        "material.key-mismatch",
        both(staple_file(), key_of_another),
        ("server.config-invalid",),
    ),
)
PAIRS: tuple[Case, ...] = (
    Case("no stapling-file + closed", NONE, closed, ("net.refused",)),
    Case("expired + dropped", BAD, both(staple_file(**EXPIRED), BLOCK), ("ocsp.expired", "net.blocked")),
    Case(
        "expired + tryLater",
        BAD,
        both(staple_file(**EXPIRED), says(unsuccessful(STATUS.TRY_LATER))),
        ("ocsp.expired", "ocsp.try-later"),
    ),
    Case("file is not there + HTTP 500", BAD, both(gone, says(Said(500))), ("responder.http-error",)),
    Case("no stapling-file + name unknown", NONE, name_unknown_everywhere, ("dns.name-not-found",)),
)
HEALTHY: tuple[Case, ...] = (
    Case("all is well", None, staple_file(), quick=True),
    Case("responder closed", None, both(staple_file(), closed)),
    Case("responder says revoked, file good", None, both(staple_file(), answers(**REVOKED))),
    Case("must-staple", None, both(leaf(must_staple=True), staple_file())),
    Case("no responder in the certificate", None, leaf(ocsp_url=None)),
    Case("no nextUpdate", None, staple_file(next_update=None)),
    Case("user may not read the file again", None, unreadable),
)
CASES = (*HEALTHY, *SINGLE, *PAIRS)
