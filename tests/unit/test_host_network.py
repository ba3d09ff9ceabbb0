"""Free ports, and the network namespaces of other processes; a foreign one is entered in test_understudy."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from stapleguard import host

pytestmark = pytest.mark.unit


def test_ports_are_free_and_each_another_one() -> None:
    ports = host.free_ports(5)
    assert len({*ports}) == 5
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_in_our_own_namespace_a_job_is_done_where_it_is_asked_for() -> None:
    with host.network_of(os.getpid()) as network:
        assert not network.elsewhere
        assert network.do(threading.get_ident) == threading.get_ident()


def test_a_process_that_is_gone_has_no_network() -> None:
    gone = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    with pytest.raises(OSError, match="No such file"), host.network_of(gone):
        pass


def test_only_root_may_become_another_user() -> None:
    if os.geteuid() != 0:
        assert not host.may_change_user()
