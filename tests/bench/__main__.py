"""`make bench`: all parts, or those that are named (`make bench ARGS="handshakes --quick"`)."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))

from lab.process import LabError
from stapleguard.model import StapleguardError

from bench import figures, tools
from bench.options import Options

_PARTS = ("proof", "start", "handshakes", "latency", "workers", "hostile")
_PYTHON = ("stapleguard", "cryptography", "pyOpenSSL")
_PROGRAMS = {
    "nginx": "-v",
    "openssl": "version",
    "curl": "--version",
    "go": "version",
    "check_ssl_cert": "--version",
}


def main() -> int:
    """Run the parts and print their figures; 0 also where a goal is not met, 1 when a part broke."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(_PARTS)}; all without")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a smaller fleet")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    chosen = parser.parse_args()
    unknown = set(chosen.parts).difference(_PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    # As after Ctrl-C: what was started is ended, what was made is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reports, broken = [], 0
    for part in chosen.parts or _PARTS:
        figures.say(f"{part} ...")
        try:
            reports.append(import_module(f"bench.part_{part}").run(Options(quick=chosen.quick)))
        except (figures.BenchError, LabError, StapleguardError, subprocess.SubprocessError) as error:
            figures.say(f"{part} broke, and has no figures: {error}")
            broken = 1
    layout = figures.as_json if chosen.json else figures.show
    print(layout(reports, _machine()))
    return broken


def _machine() -> dict[str, str]:
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    found = {
        "CPUs": f"{os.cpu_count()} ({_processor()})",
        "kernel": platform.release(),
        "load": load,
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in _PYTHON},
    }
    for name, argument in _PROGRAMS.items():
        program = tools.find(name)
        if program is not None:
            found[name] = tools.version(program, argument)
    if (tools.BUILD / "sslyze").exists():
        python = str(tools.BUILD / "sslyze" / "bin" / "python")
        show = "import importlib.metadata as m; print(m.version('sslyze'))"
        found["sslyze"] = tools.version(python, "-c", show)
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
