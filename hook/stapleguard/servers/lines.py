"""What every include that we write begins with, and what no path in it may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from os.path import realpath
from pathlib import PurePosixPath

from stapleguard.model import StapleguardError
from stapleguard.servers.words import Include


def comments(include: Include) -> Iterator[str]:
    """Write the comments of an include; raises StapleguardError for one of more than one line."""
    for comment in include.comments:
        if not comment.isprintable():
            raise StapleguardError(f"a comment of one line is wanted: {comment!r}")
        yield f"# {comment}"


def is_published(where: str, include: str, live: str) -> bool:
    """Whether FILE:LINE is in the include of the generation at `live`, by whatever path it was opened."""
    path, mine = PurePosixPath(where.rpartition(":")[0]), PurePosixPath(live)
    named = path.name == include and path.parent.name == mine.name
    return named and realpath(path.parent.parent) == realpath(mine.parent)


def refuse_path(kind: str, path: str, forbidden: re.Pattern[str], without: str) -> None:
    """Raise StapleguardError for a path that is relative or holds what a server would not take literally."""
    if not path.startswith("/") or forbidden.search(path):
        raise StapleguardError(
            f"{kind} cannot be told this path: {path!r}", f"use an absolute path without {without}"
        )
