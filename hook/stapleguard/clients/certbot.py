"""certbot's deploy hook: RENEWED_LINEAGE and RENEWED_DOMAINS (certbot manual, "Renewing certificates")."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stapleguard.clients.call import Call, Client
from stapleguard.config import NAME
from stapleguard.model import Renewal, UsageError, escape


def renewal(environment: Mapping[str, str]) -> Renewal:
    """Read what certbot says; UsageError names the variable that is missing or wrong."""
    lineage = environment.get("RENEWED_LINEAGE", "")
    if not lineage:
        raise UsageError(
            "RENEWED_LINEAGE is not set",
            "certbot sets it for --deploy-hook 'stapleguard hook'; by hand use `stapleguard deploy`",
        )
    path = Path(lineage)
    shown = escape(lineage)
    if not path.is_absolute() or ".." in path.parts or path.parent.name != "live":
        raise UsageError(
            f"RENEWED_LINEAGE points outside of certbot's live directory: {shown}",
            "it looks like /etc/letsencrypt/live/example.org",
        )
    if NAME.fullmatch(path.name) is None:
        raise UsageError(
            f"RENEWED_LINEAGE has an unusable name: {escape(path.name)}", "rename the lineage in certbot"
        )
    if not path.is_dir():
        raise UsageError(f"RENEWED_LINEAGE is not a directory: {shown}", "run `certbot certificates`")
    archive = (path.parent.parent / "archive" / path.name).resolve()
    for kind in ("privkey", "cert", "chain", "fullchain"):
        link = path / f"{kind}.pem"
        if link.is_symlink() and archive.is_dir() and link.resolve().parent != archive:
            raise UsageError(
                f"{escape(str(link))} leads outside of {escape(str(archive))}", "run `certbot certificates`"
            )
    return Renewal(path.name, str(path), tuple(environment.get("RENEWED_DOMAINS", "").split()), "certbot")


def _calls(call: Call) -> bool:
    return call.any_of("RENEWED_LINEAGE", "RENEWED_DOMAINS")


CLIENT = Client(
    "certbot",
    "certbot renew --deploy-hook 'stapleguard hook'",
    _calls,
    lambda call: renewal(call.environment),
)
