"""Any other client, by its files: --cert, --key and --chain (`step ca renew --exec` and the like)."""

from __future__ import annotations

from pathlib import Path

from stapleguard.clients.call import Call, Client, Idle, from_files, named
from stapleguard.model import Renewal, UsageError

_NO_NAMES = frozenset({"cert", "fullchain", "chain", "tls", "server", "certificate", "pubcert", "bundle"})


def _calls(call: Call) -> bool:
    return bool(call.cert or call.key or call.chain)


def _receive(call: Call) -> Renewal | Idle:
    for option, value in (("--cert", call.cert), ("--key", call.key)):
        if not value:
            raise UsageError(
                f"{option} is missing", "give --cert FILE --key FILE and, if it is apart, --chain FILE"
            )
    files = {"privkey": ("--key", call.key)}
    if call.chain:
        files |= {"cert": ("--cert", call.cert), "chain": ("--chain", call.chain)}
    else:
        files["fullchain"] = ("--cert", call.cert)
    name = call.name or _name(Path(call.cert))
    return from_files("files", named(name, "the name of the file"), (), files)


def _name(path: Path) -> str:
    """Take the name from the file, or from its directory where all of them are called the same."""
    return path.absolute().parent.name if path.stem in _NO_NAMES else path.stem


CLIENT = Client(
    "files",
    'step ca renew example.org.crt example.org.key --exec "stapleguard hook --cert example.org.crt '
    '--key example.org.key"',
    _calls,
    _receive,
)
