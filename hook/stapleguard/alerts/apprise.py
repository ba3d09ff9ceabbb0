"""Every other service by Apprise, an optional extra: pip install 'stapleguard[apprise]'."""

from __future__ import annotations

import logging

from stapleguard.alerts.fault import SendFault
from stapleguard.notice import Event, Notice, Urgency, body, subject

_KINDS = {Urgency.CRITICAL: "failure", Urgency.ERROR: "failure", Urgency.WARNING: "warning"}


def send(notice: Notice, url: str) -> None:
    """Send it; SendFault when Apprise is missing, does not know the URL or was not heard."""
    try:
        import apprise
    except ImportError:
        raise SendFault("Apprise is not installed (pip install 'stapleguard[apprise]')") from None
    # Its log names URLs, which are secrets.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    service = apprise.Apprise()
    if not service.add(url):
        raise SendFault("Apprise does not know such a URL")
    kind = "success" if notice.event is Event.RECOVERED else _KINDS.get(notice.urgency, "info")
    if not service.notify(body=body(notice), title=subject(notice), notify_type=kind, body_format="text"):
        raise SendFault("the service did not take it (Apprise does not say why)")
