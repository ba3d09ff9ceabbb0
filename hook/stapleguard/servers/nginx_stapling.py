"""What is in force for stapling in one server block of nginx, and the line where each of it stands."""

from __future__ import annotations

from collections.abc import Sequence

from stapleguard.diagnosis.facts import Block, Setting
from stapleguard.model import Endpoint
from stapleguard.servers import nginx_config
from stapleguard.servers.nginx_config import ServerBlock


def block_for(config: str, endpoint: Endpoint) -> Block | None:
    """Find the block that answers a server name at an address, as nginx chooses it, and read it.

    An exact name, then the longest wildcard, then the default server of that address; regular expressions
    are not followed.
    """
    every = nginx_config.blocks(config)
    shown = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    # nginx takes the sockets of the address itself before those of every address.
    for host in (shown, "[::]" if ":" in shown else "*", "[::]"):
        here = [one for one in every if (host, endpoint.port) in one.listens]
        if here:
            break
    chosen = _chosen(here, endpoint.server_name)
    return _block(chosen, config) if chosen is not None else None


def resolvers(block: Block) -> tuple[str, ...]:
    """Return the addresses of its resolver line without the parameters."""
    return tuple(word for word in block.resolver.words if word != "off" and "=" not in word)


def files(config: str) -> tuple[str, ...]:
    """Every file that the configuration is made of."""
    return nginx_config.files(config)


def _chosen(here: Sequence[ServerBlock], name: str) -> ServerBlock | None:
    wanted = name.lower().rstrip(".")
    if wanted:
        for one in here:
            if wanted in one.names or f".{wanted}" in one.names:
                return one
        best: tuple[int, ServerBlock] | None = None
        for one in here:
            for pattern in one.names:
                suffix = pattern.removeprefix("*") if pattern.startswith(("*.", ".")) else ""
                if suffix and wanted.endswith(suffix) and (best is None or len(suffix) > best[0]):
                    best = (len(suffix), one)
        if best is not None:
            return best[1]
    return next((one for one in here if one.default), here[0] if here else None)


def _block(server: ServerBlock, config: str) -> Block:
    def setting(name: str, default: str = "") -> Setting:
        given = server.value(name)
        if given is None:
            return Setting((default,) if default else ())
        return Setting(given.arguments, given.where)

    def path(name: str) -> Setting:
        given = setting(name)
        if not given.value or "$" in given.value or given.value.startswith("data:"):
            return given
        return Setting((nginx_config.absolute(given.value, config),), given.where)

    every = server.values("ssl_certificate")
    variable = [
        one
        for one in every
        if one.arguments and ("$" in one.arguments[0] or one.arguments[0].startswith("data:"))
    ]
    file = path("ssl_stapling_file")
    return Block(
        server.where,
        setting("ssl_stapling", "off"),
        setting("ssl_stapling_verify", "off"),
        file,
        setting("ssl_stapling_responder"),
        setting("resolver"),
        path(
            "ssl_trusted_certificate" if server.value("ssl_trusted_certificate") else "ssl_client_certificate"
        ),
        path("ssl_certificate"),
        Setting(variable[0].arguments, variable[0].where) if variable else None,
        len(every),
    )
