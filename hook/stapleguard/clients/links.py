"""A directory for clients that name files: `sources/NAME/` of the state directory, links named as certbot's.

From then on such a lineage is like any other: it can be queued, retried and watched by its directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from stapleguard.disk import StateDirectory
from stapleguard.model import Renewal

_KINDS: Final = ("privkey", "cert", "chain", "fullchain")


def directory(state: StateDirectory, renewal: Renewal) -> str:
    """Return where the files of a renewal are; links are made, or moved to where the client has them now."""
    if not renewal.files:
        return renewal.directory
    folder = state.root / "sources" / renewal.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for kind in _KINDS:
        link, target = folder / f"{kind}.pem", renewal.files.get(kind)
        if target is None:
            link.unlink(missing_ok=True)
        elif not link.is_symlink() or os.readlink(link) != target:  # noqa: PTH115 - the words, not a path
            _move(link, target)
    return str(folder)


def _move(link: Path, target: str) -> None:
    """Let a link lead elsewhere by one rename: it is never missing."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(link)
