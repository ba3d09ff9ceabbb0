"""lego's hooks (go-acme.github.io/lego, "Hooks"): one set of variables up to version 4, another from 5 on.

NAME.crt holds the leaf and its chain. The issuer is named by newer versions only, and is not needed then.
"""

from __future__ import annotations

from stapleguard.clients.call import Call, Client, Idle, from_files, named
from stapleguard.model import Renewal

_V4 = ("LEGO_CERT_DOMAIN", "LEGO_CERT_PATH", "LEGO_CERT_KEY_PATH")
_V5 = ("LEGO_HOOK_CERT_NAME", "LEGO_HOOK_CERT_PATH", "LEGO_HOOK_CERT_KEY_PATH")


def _calls(call: Call) -> bool:
    return call.any_of(*_V4, *_V5)


def _receive(call: Call) -> Renewal | Idle:
    who, (name, cert, key) = ("lego 5", _V5) if call.any_of(*_V5) else ("lego 4", _V4)
    files = {
        "fullchain": (cert, call.need(cert, who)),
        "privkey": (key, call.need(key, who)),
    }
    listed = call.environment.get("LEGO_HOOK_CERT_DOMAINS", "").split(",")
    domains = tuple(one.strip() for one in listed if one.strip())
    chosen = call.name or named(call.need(name, who), name)
    return from_files("lego", chosen, domains, files)


CLIENT = Client(
    "lego",
    # As from version 5; before that, --renew-hook of `lego renew` and --run-hook of `lego run`.
    "lego run --domains example.org --deploy-hook 'stapleguard hook'",
    _calls,
    _receive,
)
