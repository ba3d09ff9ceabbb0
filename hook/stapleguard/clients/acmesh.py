"""acme.sh's --reloadcmd and --renew-hook: it exports the paths of its copies (acme.sh, _installcert)."""

from __future__ import annotations

from stapleguard.clients.call import Call, Client, Idle, from_files, named
from stapleguard.model import Renewal

_KINDS = {
    "privkey": "CERT_KEY_PATH",
    "cert": "CERT_PATH",
    "chain": "CA_CERT_PATH",
    "fullchain": "CERT_FULLCHAIN_PATH",
}


def _calls(call: Call) -> bool:
    return call.any_of("Le_Domain", "CERT_KEY_PATH", "CERT_FULLCHAIN_PATH", "CA_CERT_PATH")


def _receive(call: Call) -> Renewal | Idle:
    domain = call.need("Le_Domain", "acme.sh")
    files = {kind: (variable, call.need(variable, "acme.sh")) for kind, variable in _KINDS.items()}
    return from_files("acme.sh", call.name or named(domain, "Le_Domain"), (domain,), files)


CLIENT = Client(
    "acme.sh", "acme.sh --install-cert -d example.org --reloadcmd 'stapleguard hook'", _calls, _receive
)
