"""What this process has used so far."""

from __future__ import annotations

import resource
from pathlib import Path


def cpu() -> float:
    """User and system seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak() -> int:
    """The most memory at once, in KiB."""
    # Not ru_maxrss: that one remembers the process that started us.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0])
