"""`exporter`: from the configuration to a listening server, and its clean end."""

from __future__ import annotations

import argparse
import ipaddress
import re
import signal
import sys
import threading
from dataclasses import replace
from types import FrameType
from typing import Final

from stapleguard.config import Module
from stapleguard.diagnosis import Result
from stapleguard.engine.fleet import guarded
from stapleguard.engine.look import look
from stapleguard.engine.world import World
from stapleguard.exporter import Exporter, Probe, Server
from stapleguard.inventory import Place
from stapleguard.model import ExitStatus, UsageError, escape
from stapleguard.wire.trust import anchors_from_file

_GRACE: Final = 3.0


def run(arguments: argparse.Namespace, world: World) -> int:
    """Serve until SIGTERM (0) or SIGINT (130); what is being looked at gets a moment to end."""
    host, port = _listen(arguments.listen)
    modules = {name: (module, _probe(world, module)) for name, module in world.config.modules.items()}
    try:
        server = Server(Exporter(modules, world.clock), host, port)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {escape(arguments.listen)}: {error.strerror}", "choose another with --listen"
        ) from None
    ended: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        ended.append(number)
        # It waits for the loop below to end, which this very thread runs.
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if not arguments.quiet:
        shown = f"[{host}]" if ":" in host else host
        sys.stderr.write(f"stapleguard: listening on http://{shown}:{server.server_address[1]}/\n")
    with server:
        server.serve_forever(poll_interval=0.1)
        server.socket.close()
        server.drain(_GRACE)
    return int(ExitStatus.INTERRUPTED if ended and ended[0] == signal.SIGINT else ExitStatus.OK)


def _probe(world: World, module: Module) -> Probe:
    anchors = anchors_from_file(module.ca_file) if module.ca_file else world.anchors
    quiet = replace(world, anchors=anchors, listener=lambda _step: None)

    def probe(place: Place, seconds: float) -> Result:
        return guarded(place, lambda one: look(quiet, one, seconds, module.depth))

    return probe


def _listen(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[0-9.]+):([0-9]{1,5})", text)
    try:
        address = str(ipaddress.ip_address(match[1].strip("[]") if match else ""))
    except ValueError:
        address = ""
    if match is None or not address or int(match[2]) > 65535:
        raise UsageError(f"not IP:PORT: {escape(text)}", "write it like 127.0.0.1:9117 or [::1]:9117")
    return address, int(match[2])
