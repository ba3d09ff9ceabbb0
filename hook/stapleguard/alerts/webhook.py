"""A webhook of one's own: the facts as JSON, with a bearer token where there is one."""

from __future__ import annotations

import json
from collections.abc import Mapping

from stapleguard.model import Json
from stapleguard.notice import Notice, as_json
from stapleguard.wire.post import Post


def request(notice: Notice, url: str, token: str) -> Post:
    """Compose the request."""
    return json_post(url, as_json(notice), token)


def json_post(url: str, value: Json | Mapping[str, Json], token: str = "") -> Post:
    """Compose a request with a JSON body: pure ASCII, so that no reader can take it for another encoding."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return Post(url, json.dumps(value).encode("ascii"), headers)
