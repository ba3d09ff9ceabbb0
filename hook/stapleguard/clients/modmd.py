"""mod_md's MDMessageCmd: a reason and the name of a managed domain (httpd, mod_md, MDMessageCmd).

`installed` comes, as root, within the restart that is about to put a certificate into service: its files are
in place, but Apache goes on only when the hook has ended. Everything before comes as Apache's own user.
"""

from __future__ import annotations

from pathlib import Path

from stapleguard.clients.call import Call, Client, Idle, from_files, named
from stapleguard.model import Renewal, UsageError

_REASONS = frozenset(
    {"renewing", "renewed", "installed", "expiring", "errored", "ocsp-renewed", "ocsp-errored"}
)
STORES = ("/var/lib/apache2/md", "/etc/apache2/md", "/etc/httpd/state/md", "/var/lib/httpd/md")
"""Where distributions keep the MDStoreDir."""


def _calls(call: Call) -> bool:
    return bool(call.words) and (call.words[0] in _REASONS or call.words[0].startswith("challenge-setup:"))


def _receive(call: Call) -> Renewal | Idle:
    reason, name = (*call.words, "", "")[:2]
    if reason != "installed":
        return Idle("mod_md", reason)
    if not name:
        raise UsageError(
            "installed of mod_md came without a domain",
            "it gives REASON DOMAIN to its MDMessageCmd",
        )
    named(name, "the managed domain")
    stores = [call.store] if call.store else [*STORES]
    folder = next((Path(one, "domains", name) for one in stores if Path(one, "domains", name).is_dir()), None)
    if folder is None:
        raise UsageError(
            f"no store of mod_md has {name}: {', '.join(stores)}", "give its MDStoreDir with --store DIR"
        )
    # An RSA key has no suffix; others are named by their curve. A second key type is a source of its own.
    for suffix in ("", ".secp256r1", ".secp384r1"):
        if (folder / f"pubcert{suffix}.pem").is_file():
            files = {
                "privkey": ("the key in the store", str(folder / f"privkey{suffix}.pem")),
                "fullchain": ("the certificate in the store", str(folder / f"pubcert{suffix}.pem")),
            }
            return from_files("mod_md", call.name or name, (name,), files)
    raise UsageError(f"the store of mod_md has no certificate of {name}", f"look into {folder}")


# In quotes it would be one path to mod_md.
CLIENT = Client("mod_md", "MDMessageCmd /usr/bin/stapleguard hook", _calls, _receive)
