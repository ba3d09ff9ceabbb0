"""Two network namespaces with 50 to 100 ms between them, made by delay.c and gone with it."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import tools
from bench.figures import BenchError

_LIFE_SECONDS = 900
_READY_SECONDS = 10
_NEAR = "198.19.0.1"
_FAR_NET = "198.18.0.0/16"
# As many packets as delay.c has room for: a full device would drop them.
_DEVICE = "txqueuelen 65536 mtu 1500 up"


def place(number: int) -> str:
    """The far address of that number; each host of the net but the first of every 256."""
    return f"198.18.{number // 255}.{number % 255 + 1}"


def round_trip(address: str) -> float:
    """The seconds that delay.c makes of an address, and the mean of what its ticks add."""
    third, fourth = map(int, address.split(".")[2:])
    return (50 + (256 * third + fourth) % 51 + 0.5) / 1000


class SlowLink:
    """The link; `near` and `far` go before the words of a command and put it on that side."""

    def __init__(self, binary: Path) -> None:
        self._delay = subprocess.Popen(
            [str(binary), str(_LIFE_SECONDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.near: tuple[str, ...] = ()
        self.far: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        try:
            self._configure()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _configure(self) -> None:
        assert self._delay.stdout is not None
        ready, _, _ = select.select([self._delay.stdout], [], [], _READY_SECONDS)
        words = self._delay.stdout.readline().split() if ready else []
        if len(words) != 3:
            raise BenchError("no namespaces or TUN devices of our own here (is this root?)")
        self.near, self.far = (self._enter(number) for number in words[1:])
        _ip(
            self.near,
            "link set lo up",
            f"link set slow0 {_DEVICE}",
            f"address add {_NEAR}/32 dev slow0",
            f"route add {_FAR_NET} dev slow0 src {_NEAR}",
        )
        _ip(
            self.far,
            "link set lo up",
            f"link set slow0 {_DEVICE}",
            f"route add {_NEAR}/32 dev slow0",
            # Every address of the net is this host.
            f"route add local {_FAR_NET} dev lo",
        )

    def _enter(self, number: str) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{self._delay.pid}/fd/{number}")

    def _end(self) -> None:
        assert self._delay.stdin is not None
        assert self._delay.stdout is not None
        self._delay.stdin.close()
        try:
            status = self._delay.wait(_READY_SECONDS)
        except subprocess.TimeoutExpired:
            self._delay.kill()
            status = self._delay.wait()
        self._delay.stdout.close()
        if status > 0 and self.far:
            raise BenchError("the slow link broke: what was measured over it is not valid")


def available() -> Path | None:
    """Compile the link where it can work at all: root, TUN devices, ip and nsenter."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        return None
    if tools.find("ip") is None or tools.find("nsenter") is None:
        return None
    return tools.compiled("delay.c")


def _ip(enter: Sequence[str], *lines: str) -> None:
    text = "\n".join(lines) + "\n"
    subprocess.run([*enter, "ip", "-batch", "-"], input=text, text=True, check=True, timeout=_READY_SECONDS)
