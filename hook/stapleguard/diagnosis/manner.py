"""How one kind of server staples, as far as an inference or a remedy depends on it: plain data.

Each module of `servers` that the doctor can read gives one. The texts are templates; the values that
`remedies` puts into them are named beside each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from stapleguard.finding import Code


class Resolving(Enum):
    """Who tells a server the address of its responder."""

    SYSTEM = "this host's own resolver, whenever it asks"
    AT_LOAD = "this host's own resolver when it loads, and the resolvers of its configuration later"
    OWN = "the name servers of its configuration, and nobody else"


@dataclass(frozen=True, slots=True)
class Manner:
    """What a server does by itself, the names of its directives, and what mends which fault.

    `method` is what it asks the responder by. `verify` is the directive that makes it verify a delegate,
    `anchors` the one that says by what; '' where it has none. `block` is what its configuration for one
    site is called.
    """

    method: str = "GET"
    resolving: Resolving = Resolving.SYSTEM
    stapling: str = "stapling"
    off: str = "stapling off"
    file: str = "the staple file"
    responder: str = ""
    anchors: str = ""
    verify: str = ""
    block: str = "place"
    unit: str = ""
    again: str = "Reload the server: most wait for minutes after a failure (nginx 300 s, Apache up to 1 h)."
    again_fetching: str = ""
    """The same where it fetches, if there is a way without a reload; {certificate}."""
    reloads: str = "reload the server"
    """One command that tests and loads again."""
    test: str = ""
    """{config}"""
    turn_on: str = "turn stapling on"
    """{config}, {certificate}, {block}; for where nothing stands yet."""
    turn_at: str = "turn stapling on"
    """{where}; for where it is turned off."""
    beside: str = ""
    """What has to stand beside it; {config}."""
    issuer: str = ""
    """Another way to hand it the issuer; {certificate}, {block}."""
    sets_aside: frozenset[Code] = frozenset()
    """What of a file that the judge accepts keeps it from stapling it."""
    staple_file: str = "write a fresh answer (DER) there by a rename"
    """{path}, {where}"""
    read: str = "The file is read at a reload only."
    resolver: str = ""
    """{where}, {bad}"""
    keeps_back: str = ""
    """What makes it pass on less, where that is not set; {block}."""
    passes_on: str = ""
    """What it passes on whatever is set, and how to spare the clients; {where} is what turns stapling on."""
    proxy: str = ""
    """{where}"""
    by_hand: str = ""
    """What helps where it refuses an answer since a delegate signed it, and there is no setting for that."""


UNKNOWN: Final = Manner()
"""That of a server which cannot be read."""
