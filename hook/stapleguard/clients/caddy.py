"""Caddy's events, by the plugin caddy-events-exec: on cert_obtained; its paths are below the storage."""

from __future__ import annotations

from pathlib import Path

from stapleguard.clients.call import Call, Client, Idle, from_files, identifier, never
from stapleguard.model import Renewal, UsageError

STORE = "/var/lib/caddy/.local/share/caddy"
_LINE = (
    "exec stapleguard hook --client caddy {event.data.identifier} "
    "{event.data.certificate_path} {event.data.private_key_path}"
)


def _receive(call: Call) -> Renewal | Idle:
    name = identifier(call, "caddy")
    if len(call.words) < 3:
        what = "certificate_path" if len(call.words) < 2 else "private_key_path"
        raise UsageError(
            f"caddy's event came without {what}",
            _LINE,
        )
    store = Path(call.store or STORE)
    files = {
        "fullchain": ("certificate_path", str(store / call.words[1])),
        "privkey": ("private_key_path", str(store / call.words[2])),
    }
    return from_files("caddy", call.name or name, (name,), files)


CLIENT = Client("caddy", f"on cert_obtained {_LINE}", never, _receive)
