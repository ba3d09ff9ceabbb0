"""What holds for every test: this process connects to nobody but this machine's loopback."""

from __future__ import annotations

import ipaddress
import sys
from typing import ClassVar

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg")


def _loopback(host: object) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse before the kernel hears of it: a broken rule of ours must fail a test, not reach a stranger."""
    if event not in _EVENTS:
        return
    address = arguments[1] if len(arguments) > 1 else None
    if isinstance(address, tuple) and not _loopback(address[0]):
        raise PermissionError(f"a test tried to reach {address[0]}, which is not loopback")


sys.addaudithook(_guard)


class Apart(LoadScopeScheduling):
    """What pytest-xdist runs at the same time: nothing of one group.

    Servers of this host see each other, unless they run in a laboratory of their own or are looked for by
    their port; those in a systemd of their own see nobody, and what is local to a process may run beside
    all. (The marks that pytest-xdist has for this are lost on pytest 9.)
    """

    _GROUPS: ClassVar = {"server": "host", "crash": "host", "systemd": "container"}
    _LABORATORIES: ClassVar = (
        "acme_clients",
        "caddy_and_exim",
        "certbot",
        "cluster_lab",
        "doctor",
        "faults",
        "mod_md",
        "starttls",
        "understudy",
    )

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        _, folder, *_, name = path.split("/")
        if folder == "server" and name.removeprefix("test_").removesuffix(".py") in self._LABORATORIES:
            return "laboratory"
        return self._GROUPS.get(folder, path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Apart:
    """Schedule in that way, whatever `--dist` says."""
    return Apart(config, log)
