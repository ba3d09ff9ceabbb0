"""A dead man's switch in the manner of healthchecks.io: each run of the timer pings; `/fail` in trouble.

When this host or the timer stops, the pings stop, and the service raises the alarm by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from stapleguard.notice import Notice, body
from stapleguard.wire.post import Post

_BODY: Final = 10_000
_HEADERS: Final = {"Content-Type": "text/plain; charset=utf-8"}


def request(notice: Notice, url: str, _token: str) -> Post:
    """Compose the ping that tests the channel: it is logged and changes nothing."""
    return Post(_with(url, "/log"), body(notice).encode()[:_BODY], _HEADERS)


def report(current: Sequence[Notice], url: str) -> Post:
    """Compose the ping that says how this host is."""
    text = "\n\n".join(body(one) for one in current) or "nothing is the matter\n"
    return Post(_with(url, "/fail" if current else ""), text.encode()[:_BODY], _HEADERS)


def _with(url: str, what: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + what))
