"""One HTTP request to a place that the configuration names: nothing is followed, nothing is inherited.

Unlike the URLs of certificates (see `fetch`) these are the administrator's own, so they may lead anywhere;
but they are secrets: a redirect would hand them on, and proxies, cookies and netrc of the environment do
not count. Names are verified with the system's anchors or those given.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

_MOST: Final = 4096
"""Bytes of an answer that are read: it is for an error message only."""


@dataclass(frozen=True, slots=True)
class Post:
    """A request with a body; the URL and the headers may hold secrets."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and the beginning of the body."""

    status: int
    text: str


def client_context(ca_file: str = "") -> ssl.SSLContext:
    """Return a context that verifies certificate and name, by the system's anchors or those of a file."""
    context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def post(request: Post, timeout: float, ca_file: str = "", proxy: str = "") -> Reply:
    """Send it and return the answer, whatever its status; OSError, HTTPException or ValueError otherwise.

    `timeout` bounds each wait on the socket; the caller bounds the whole.
    """
    parts = urlsplit(request.url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise ValueError("not a usable http or https URL")
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    place = (host, port or (443 if tls else 80))
    through = urlsplit(proxy)
    first = (through.hostname or "", through.port or 80) if proxy else place
    connection: http.client.HTTPConnection
    if tls:
        connection = http.client.HTTPSConnection(*first, timeout=timeout, context=client_context(ca_file))
        if proxy:
            connection.set_tunnel(*place)
    else:
        connection = http.client.HTTPConnection(*first, timeout=timeout)
        if proxy:
            target = f"http://{parts.netloc}{target}"
    try:
        headers = {"User-Agent": "stapleguard", "Connection": "close", **request.headers}
        connection.request("POST", target, request.body, headers)
        answer = connection.getresponse()
        return Reply(answer.status, answer.read(_MOST).decode("utf-8", "replace"))
    finally:
        connection.close()
