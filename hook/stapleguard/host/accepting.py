"""Who accepts connections at a port of this host, for servers that nobody has configured here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stapleguard.host.proc import Process, children, listeners_among, named, process

# Programs that end TLS themselves. A forwarder (docker-proxy, socat) is none of them: behind its one
# process may stand any number. Nor is one that forks for every connection (exim): it has no workers.
_ENDS_TLS: Final = frozenset(
    {"nginx", "angie", "openresty", "apache2", "httpd", "haproxy", "lighttpd", "caddy"}
)
_LEAVING: Final = "shutting down"


def accepting(port: int) -> Callable[[], tuple[int, ...]]:
    """Return what lists, whenever it is called, the processes that accept TLS connections at a TCP port.

    Whoever holds the listening socket may accept, but a parent that keeps it for its children does not:
    they do, and a reload or a crash changes them. It lists none where who accepts cannot be told.
    """
    servers = named(_ENDS_TLS)
    family = {one.pid for one in servers}
    heads = [one for one in servers if one.parent not in family]
    parents = listeners_among(port, [one.pid for one in heads])
    for parent in sorted(parents):
        if _children(parent):
            return lambda: tuple(one.pid for one in _children(parent) if _LEAVING not in one.command)
    alone = parents or listeners_among(port, sorted(family))
    return lambda: tuple(sorted(pid for pid in alone if process(pid) is not None))


def _children(parent: int) -> tuple[Process, ...]:
    return tuple(one for one in children(parent) if _program(one) in _ENDS_TLS)


def _program(one: Process) -> str:
    name = one.executable or one.command.partition(":")[0]
    return name.rpartition("/")[2]
