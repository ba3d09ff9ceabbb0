"""getssl's RELOAD_CMD, which gets no variables: "stapleguard hook --client getssl DOMAIN" (getssl.cfg)."""

from __future__ import annotations

from pathlib import Path

from stapleguard.clients.call import Call, Client, Idle, from_files, identifier, never
from stapleguard.model import Renewal


def _receive(call: Call) -> Renewal | Idle:
    name = identifier(call, "getssl")
    home = call.environment.get("HOME") or "/root"
    # It looks into these for its own configuration, in this order (WORKING_DIR_CANDIDATES).
    stores = [call.store] if call.store else ["/etc/getssl", f"{home}/.getssl"]
    folder = next((Path(one, name) for one in stores if Path(one, name).is_dir()), Path(stores[-1], name))
    files = {
        "privkey": ("the key of getssl", str(folder / f"{name}.key")),
        "cert": ("the certificate of getssl", str(folder / f"{name}.crt")),
        "chain": ("the chain of getssl", str(folder / "chain.crt")),
    }
    return from_files("getssl", call.name or name, (name,), files)


CLIENT = Client("getssl", 'RELOAD_CMD="stapleguard hook --client getssl example.org"', never, _receive)
