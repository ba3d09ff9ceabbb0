"""What every include that we write begins with, and what no path in it may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stapleguard.model import StapleguardError
from stapleguard.servers.words import Include


def comments(include: Include) -> Iterator[str]:
    """Write the comments of an include; raises StapleguardError for one of more than one line."""
    for comment in include.comments:
        if not comment.isprintable():
            raise StapleguardError(f"a comment of one line is wanted: {comment!r}")
        yield f"# {comment}"


def refuse_path(kind: str, path: str, forbidden: re.Pattern[str], without: str) -> None:
    """Raise StapleguardError for a path that is relative or holds what a server would not take literally."""
    if not path.startswith("/") or forbidden.search(path):
        raise StapleguardError(
            f"{kind} cannot be told this path: {path!r}", f"use an absolute path without {without}"
        )
