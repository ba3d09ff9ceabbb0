"""uacme, which has no deploy hook: `uacme issue ID && stapleguard hook --client uacme ID` (uacme(1))."""

from __future__ import annotations

from pathlib import Path

from stapleguard.clients.call import Call, Client, Idle, from_files, identifier, never
from stapleguard.model import Renewal

STORE = "/etc/ssl/uacme"


def _receive(call: Call) -> Renewal | Idle:
    name = identifier(call, "uacme")
    store = Path(call.store or STORE)
    files = {
        "privkey": ("the key of uacme", str(store / "private" / name / "key.pem")),
        "fullchain": ("the certificate of uacme", str(store / name / "cert.pem")),
    }
    return from_files("uacme", call.name or name, (name,), files)


CLIENT = Client(
    "uacme", "uacme issue example.org && stapleguard hook --client uacme example.org", never, _receive
)
