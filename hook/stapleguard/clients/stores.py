"""Where ACME clients keep what they have: their lineages on this host, and where each takes its hook from.

Directories are those that the clients and their packages use without being told; one that was told another
is not found, and is deployed by its directory or through its hook all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stapleguard.clients import uacme
from stapleguard.config import NAME
from stapleguard.model import Renewal

_KINDS: Final = ("privkey", "cert", "chain", "fullchain")


@dataclass(frozen=True, slots=True)
class Store:
    """One directory of one client; `entry` is where a person puts its hook, '' where `install` writes it."""

    client: str
    directory: str
    entry: str
    lineages: tuple[Renewal, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a client keeps a lineage: what a subdirectory or file of its store holds."""

    client: str
    places: tuple[str, ...]
    entry: str
    read: Callable[[Path], Renewal | None]


def look(root: Path = Path("/")) -> tuple[Store, ...]:
    """Find every store that has a lineage, below a root."""
    found: list[Store] = []
    for layout in _LAYOUTS:
        for place in layout.places:
            folder = root / place
            read = [layout.read(one) for one in sorted(folder.iterdir())] if folder.is_dir() else []
            lineages = tuple(one for one in read if one is not None and NAME.fullmatch(one.name))
            if lineages:
                found.append(Store(layout.client, str(folder), layout.entry, lineages))
    return tuple(found)


def _named(client: str, name: str, files: Mapping[str, Path]) -> Renewal | None:
    if not all(file.is_file() for file in files.values()):
        return None
    return Renewal(name, "", (), client, {kind: str(file) for kind, file in files.items()})


def _as_certbot(client: str) -> Callable[[Path], Renewal | None]:
    def read(one: Path) -> Renewal | None:
        whole = all((one / f"{kind}.pem").is_file() for kind in _KINDS)
        return Renewal(one.name, str(one), (), client) if whole else None

    return read


def _lego(one: Path) -> Renewal | None:
    if one.suffix != ".key":
        return None
    return _named("lego", one.stem, {"privkey": one, "fullchain": one.with_name(f"{one.stem}.crt")})


def _acme_sh(one: Path) -> Renewal | None:
    domain = one.name.removesuffix("_ecc")
    files = {
        "privkey": one / f"{domain}.key",
        "cert": one / f"{domain}.cer",
        "chain": one / "ca.cer",
        "fullchain": one / "fullchain.cer",
    }
    return _named("acme.sh", domain, files)


def _uacme(one: Path) -> Renewal | None:
    files = {"privkey": one.parent / "private" / one.name / "key.pem", "fullchain": one / "cert.pem"}
    return _named("uacme", one.name, files)


def _getssl(one: Path) -> Renewal | None:
    files = {
        "privkey": one / f"{one.name}.key",
        "cert": one / f"{one.name}.crt",
        "chain": one / "chain.crt",
    }
    return _named("getssl", one.name, files)


_LAYOUTS: Final = (
    _Layout("certbot", ("etc/letsencrypt/live",), "", _as_certbot("certbot")),
    _Layout(
        "dehydrated",
        ("var/lib/dehydrated/certs", "etc/dehydrated/certs"),
        'HOOK= in /etc/dehydrated/config: a script with `exec stapleguard hook --client dehydrated "$@"`',
        _as_certbot("dehydrated"),
    ),
    _Layout(
        "lego",
        tuple(f"{home}/certificates" for home in ("etc/lego", "var/lib/lego", "root/.lego", "root/lego")),
        "lego's command line: --deploy-hook 'stapleguard hook' (lego 4: --run-hook and --renew-hook)",
        _lego,
    ),
    _Layout(
        "acme.sh",
        ("root/.acme.sh", "etc/acme.sh"),
        "acme.sh --install-cert -d DOMAIN --reloadcmd 'stapleguard hook', once for each",
        _acme_sh,
    ),
    _Layout(
        "uacme",
        (uacme.STORE.lstrip("/"),),
        "the line in cron: uacme issue DOMAIN && stapleguard hook --client uacme DOMAIN",
        _uacme,
    ),
    _Layout(
        "getssl",
        ("root/.getssl", "etc/getssl"),
        'getssl.cfg: RELOAD_CMD="stapleguard hook --client getssl DOMAIN"',
        _getssl,
    ),
)  # fmt: skip
