"""Programs that are measured from outside: by the clock, and by what the kernel says of their children."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import IO

from bench.figures import BenchError, Sample

_SECONDS = 120
# Should we be killed ourselves, a loop of checks ends with us; `timeout` passes the signal on to all of it.
_BOUNDED = ("setpriv", "--pdeathsig", "TERM", "timeout", "-s", "KILL", str(_SECONDS))
_ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "RENEWED_LINEAGE"}


@dataclass(frozen=True)
class Job:
    """What ours.py, client.go and sslyze_client.py are given on standard input, as JSON.

    They answer with `seconds`, `cpu` (seconds), `good`, `memory` (peak, KiB) and perhaps `at_once` (how
    many were under way on average). `concurrency` 0 is the program's own.
    """

    endpoints: Sequence[str]
    name: str
    anchors: str
    concurrency: int = 0
    cached: bool = False


def work(argv: Sequence[str], job: Job, cwd: Path | None = None) -> Sample:
    """Let a program do a job; every endpoint must have been good."""
    status, out, err = _finished([*_BOUNDED, *argv], json.dumps(asdict(job)), cwd)
    took = json.loads(out) if status == 0 else {"good": f"it ended with {status}:"}
    if took["good"] != len(job.endpoints):
        raise BenchError(f"{argv[-1]}: {took['good']} of {len(job.endpoints)} were good\n{err[-2000:]}")
    return Sample(
        took["seconds"], len(job.endpoints), took["cpu"], took["memory"] / 1024, took.get("at_once", 0.0)
    )


def shell(script: str, words: Sequence[str], count: int, mark: str, enter: Sequence[str] = ()) -> Sample:
    """Run a shell script that makes `count` checks; `mark` must be once in its output for each."""
    before, begun = _children_cpu(), perf_counter()
    _, text, err = _finished([*_BOUNDED, *enter, "sh", "-c", script, "sh", str(count), *words])
    sample = Sample(perf_counter() - begun, count, _children_cpu() - before)
    if text.count(mark) != count:
        raise BenchError(f"{text.count(mark)} of {count} said {mark!r}: {words}\n{(text + err)[-2000:]}")
    return sample


def command(argv: Sequence[str], status: int = 0) -> Sample:
    """Run one program from start to end."""
    before, begun = _children_cpu(), perf_counter()
    ended, out, err = _finished(argv)
    sample = Sample(perf_counter() - begun, 1, _children_cpu() - before)
    if ended != status:
        raise BenchError(f"{list(argv)} ended with {ended}, not {status}\n{(out + err)[-2000:]}")
    return sample


def _finished(argv: Sequence[str], text: str = "", cwd: Path | None = None) -> tuple[int, str, str]:
    """Run it to its end: status and both outputs. However we leave, nothing that it started stays."""
    with (
        tempfile.TemporaryFile("w+", errors="replace") as out,
        tempfile.TemporaryFile("w+", errors="replace") as err,
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if text else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            text=True,
            cwd=cwd,
            env=_ENVIRONMENT,
            start_new_session=True,
        ) as child,
    ):
        # A wait with a time limit looks again after pauses of up to 50 ms, and would add them to the figures.
        overdue = threading.Timer(_SECONDS, _end, (child.pid,))
        overdue.start()
        try:
            child.communicate(text or None)
        finally:
            overdue.cancel()
            _end(child.pid)
        return child.returncode, _all(out), _all(err)


def _end(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _all(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
