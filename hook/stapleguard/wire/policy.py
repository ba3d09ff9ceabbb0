"""How responders and AIA hosts may be spoken to; apart from `fetch` because that one takes long to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """`timeout` in seconds for everything together; CIDRs allowed although special; proxy URL ('' = none).

    `addresses` (IP literals) are connected to instead of those that the name has, and `host` stands in the
    Host header instead of the URL's; a redirect keeps both.
    """

    timeout: float = 15.0
    allow_addresses: tuple[str, ...] = ()
    proxy: str = ""
    addresses: tuple[str, ...] = ()
    host: str = ""
