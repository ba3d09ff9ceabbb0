"""What holds for every test: this process connects to nobody but this machine's loopback."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

import pytest

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


# Tests of one group run one after the other. Servers of this host see each other; those in a systemd of
# their own do not, and what is local to a process may run beside both.
_GROUPS = {"server": "host", "crash": "host", "systemd": "container"}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell pytest-xdist what must not run at the same time."""
    here = Path(__file__).parent
    for item in items:
        group = _GROUPS.get(item.path.relative_to(here).parts[0])
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
