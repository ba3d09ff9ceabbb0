"""ACME clients: each turns its environment or words into a `Renewal`. A new one is a file and a line here.

What was given by hand (files, words) counts before the environment, which may be that of a process far above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stapleguard.clients import acmesh, caddy, certbot, dehydrated, files, getssl, lego, modmd, uacme
from stapleguard.clients.call import Call, Client, Idle, named
from stapleguard.model import Renewal, UsageError, escape

_BY_HAND: Final = (files.CLIENT, dehydrated.CLIENT, modmd.CLIENT)
_BY_ENVIRONMENT: Final = (certbot.CLIENT, lego.CLIENT, acmesh.CLIENT)
_BY_NAME: Final = (uacme.CLIENT, getssl.CLIENT, caddy.CLIENT)

CLIENTS: Final[Mapping[str, Client]] = {one.name: one for one in (*_BY_ENVIRONMENT, *_BY_HAND, *_BY_NAME)}
"""Every client by the name that --client knows."""
WITHIN_RESTART: Final = frozenset({modmd.CLIENT.name})
"""Those whose server serves what was renewed only after their hook has ended: no proof can be made in it."""


def receive(call: Call, wanted: str = "") -> Renewal | Idle:
    """Find out who calls and read what was renewed; UsageError when nobody known does, or two at once."""
    if call.name:
        named(call.name, "--name")
    return (CLIENTS[wanted] if wanted else _caller(call)).receive(call)


def _caller(call: Call) -> Client:
    by_hand = [one for one in _BY_HAND if one.calls(call)]
    if by_hand:
        return _one(by_hand)
    if call.words:
        raise UsageError(
            f"no ACME client calls its hook with {escape(call.words[0])}",
            f"name yours with --client: {', '.join(CLIENTS)}; what to write: stapleguard hook --help",
        )
    found = [one for one in _BY_ENVIRONMENT if one.calls(call)]
    if not found:
        raise UsageError(
            "RENEWED_LINEAGE is not set, nor are the variables of lego or acme.sh: no ACME client calls",
            "what to write for each client: stapleguard hook --help; by hand: stapleguard deploy",
        )
    return _one(found)


def _one(found: list[Client]) -> Client:
    if len(found) > 1:
        names = " and ".join(one.name for one in found)
        raise UsageError(f"the call could be that of {names}", f"choose with --client {found[0].name}")
    return found[0]


__all__ = ["CLIENTS", "WITHIN_RESTART", "Call", "Client", "Idle", "receive"]
