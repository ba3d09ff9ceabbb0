"""Names of systemd units (systemd.unit(5), "String Escaping for Inclusion in Unit Names"). Pure."""

from __future__ import annotations

import re
from typing import Final

RETRY_TIMER: Final = "stapleguard-retry.timer"
_PLAIN: Final = re.compile(rb"[A-Za-z0-9:_.]")


def escape_instance(text: str) -> str:
    r"""Escape as `systemd-escape` does: `/` becomes `-`; all but letters, digits, `:`, `_` and `.` `\xNN`.

    A leading dot is escaped, too. Without it `%I` of stapleguard@foo-bar.service would be `foo/bar`.
    """
    data = text.encode("utf-8", "surrogateescape")
    pieces: list[str] = []
    for position, byte in enumerate(data):
        one = bytes([byte])
        if one == b"/":
            pieces.append("-")
        elif _PLAIN.fullmatch(one) and not (position == 0 and one == b"."):
            pieces.append(one.decode())
        else:
            pieces.append(f"\\x{byte:02x}")
    return "".join(pieces)


def worker(lineage: str) -> str:
    """Name the unit that deploys and proves one lineage."""
    return f"stapleguard@{escape_instance(lineage)}.service"
