"""lighttpd: a staple file is all it can; its graceful restart reads keys as the user that it has become.

SIGUSR1 makes it read everything anew in
the same process: where it has given up root and the key is root's alone, that ends it. Then systemd has to
start it again, or nobody does.
"""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from stapleguard import host
from stapleguard.finding import Code, Finding
from stapleguard.host import Completed, Process
from stapleguard.model import StapleguardError
from stapleguard.servers import lighttpd_config
from stapleguard.servers.lines import comments, refuse_path
from stapleguard.servers.log import Fault, read_log
from stapleguard.servers.running import heads, installed, is_ours, meant, ours
from stapleguard.servers.service import unit_of_main
from stapleguard.servers.words import (
    ConfigOutcome,
    ConfigTest,
    Include,
    Instance,
    Site,
    Stage,
    Stapling,
    Understudy,
    Update,
)

KIND: Final = "lighttpd"
INCLUDE: Final = lighttpd_config.INCLUDE_NAME

_PROGRAMS: Final = frozenset({"lighttpd"})
_DEFAULT_CONFIG: Final = "/etc/lighttpd/lighttpd.conf"
_SECONDS: Final = 10.0
_NOT_IN_PATHS: Final = re.compile(r"[\x00-\x1f\x7f\"\\$]")

FAULTS: Final[tuple[Fault, ...]] = (
    Fault(r"marked OCSP Must-Staple, but ssl.stapling-file not provided", Code.SERVER_STAPLING_DISABLED),
    Fault(r"OCSP response expired from", Code.SERVER_STAPLE_FILE_BAD, Code.OCSP_EXPIRED),
    Fault(r"OCSP stapling file read error|failed to set OCSP response", Code.SERVER_STAPLE_FILE_BAD),
    Fault(r"SSL: ?Private key does not match", Code.MATERIAL_KEY_MISMATCH),
    Fault(r"SSL: couldn't read .*certificate|couldn't read private key", Code.MATERIAL_UNREADABLE),
    Fault(r"parser failed|include file not found|configfile.c", Code.SERVER_CONFIG_INVALID),
)


def instances(binary: str | None = None, config: str | None = None) -> tuple[Instance, ...]:
    """Find lighttpd on this host: what runs, otherwise what is installed; see `nginx.instances`."""
    running = [one for one in map(_running, heads(_PROGRAMS)) if one is not None]
    return meant(running, binary, config) or installed(KIND, binary, config, _DEFAULT_CONFIG, _version)


def sites(instance: Instance, state_dir: str) -> tuple[Site, ...]:
    """Read the blocks that present certificates; see `lighttpd_config.sites`."""
    return lighttpd_config.sites(instance.config, state_dir)


def takes(instance: Instance | None, sites: Sequence[Site], certificates: int) -> frozenset[Stapling]:
    """Take a file, for the one certificate that a host can have."""
    del instance, sites
    return frozenset({Stapling.FILE} if certificates == 1 else ())


def faults(instance: Instance, sites: Sequence[Site]) -> tuple[Finding, ...]:
    """Nothing: there is no more to it than a file."""
    del instance, sites
    return ()


def test(instance: Instance, timeout: float) -> ConfigTest:
    """Run `lighttpd -tt`: key and certificate are compared, a staple file is not looked at."""
    return _judge(host.run([instance.binary, "-tt", *instance.arguments], timeout))


def test_candidate(
    instance: Instance, candidate_include: str, live_include: str, timeout: float
) -> ConfigTest | None:
    """Run `lighttpd -tt` with the candidate's include in the place of the published one."""
    if not Path(live_include).is_file():
        return None
    argv = [instance.binary, "-tt", *instance.arguments]
    done = host.with_bind(candidate_include, live_include, argv, timeout)
    return None if done is None else _judge(done)


def understudy(instance: Instance, stage: Stage) -> Understudy | None:
    """None: it takes its staple from a file and checks nothing, so our judge has said all there is."""
    del instance, stage
    return None


def update(instance: Instance, sites: Sequence[Site], live: str, timeout: float) -> Update:
    """Nothing: the include names another generation, which only a reload reads."""
    del instance, sites, live, timeout
    return Update.RELOAD


_CANNOT_READ: Final = (
    "lighttpd has given up root and would end at a graceful restart, because it may not read the key again; "
    "let systemd run it, or restart it by hand"
)


def reload(instance: Instance, timeout: float) -> Completed:
    """Restart gracefully by SIGUSR1 where its user can read the key; else let systemd start it again.

    The graceful way keeps its sockets and loses nobody; a start refuses connections for some
    milliseconds, unless systemd holds the socket (server.systemd-socket-activation).
    """
    if instance.master is None:
        return Completed(("lighttpd",), 1, "", "lighttpd is not running", 0.0)
    if _reads_keys(instance.master):
        return host.signalled(instance.master, signal.SIGUSR1)
    unit = unit_of_main(instance.master)
    if unit is not None:
        return host.run(["systemctl", "restart", unit], timeout)
    return Completed(("lighttpd",), 1, "", _CANNOT_READ, 0.0)


def _reads_keys(pid: int) -> bool:
    seen = host.process(pid)
    return seen is not None and seen.uid in ours()


def workers(instance: Instance) -> tuple[int, ...]:
    """Nobody, so that no line is held open to it: a graceful restart waits until the last one has ended.

    It has one process as a rule; a parent with `server.max-worker` children is proved by many handshakes.
    """
    del instance
    return ()


leaving = workers
"""It goes on in the same process."""


def error_log(instance: Instance) -> str | None:
    """Path of server.errorlog, None when that is not a file."""
    return lighttpd_config.error_log(instance.config)


def line(live: str) -> str:
    """Return the line that a socket or host needs."""
    return f'include "{live}/{INCLUDE}"'


def layout(include: Include, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Write the include; everything else that it names is in every generation."""
    del files
    return {INCLUDE: render(include).encode()}


def render(include: Include) -> str:
    """Write the lines that a socket or host includes; raises StapleguardError for what it cannot be told."""
    if len(include.suffixes) != 1:
        raise StapleguardError(
            "lighttpd presents one certificate for a host",
            "give the lineage one source, or put another server in front",
        )
    return "".join(f"{text}\n" for text in _rendered(include))


def _rendered(include: Include) -> Iterator[str]:
    without = "quotes, dollar signs, backslashes and control characters"
    refuse_path(KIND, include.directory, _NOT_IN_PATHS, without)
    yield from comments(include)
    yield f'ssl.pemfile = "{include.directory}/fullchain.pem"'
    yield f'ssl.privkey = "{include.directory}/privkey.pem"'
    if include.stapling is Stapling.FILE:
        yield f'ssl.stapling-file = "{include.directory}/ocsp.der"'


def log_findings(text: str) -> tuple[Finding, ...]:
    """Read what it says of staples, next to nothing of a bad file; while it starts, on its standard error."""
    return read_log(KIND, FAULTS, text)


def _judge(done: Completed) -> ConfigTest:
    text = f"{done.stdout}{done.stderr}"
    said = tuple(one for one in text.splitlines() if "(" in one and "server.c" not in one)
    if done.status == 0:
        return ConfigTest(ConfigOutcome.ACCEPTED, (), said, text)
    denied = "ermission denied" in text
    outcome = ConfigOutcome.UNTESTED if denied or done.status in (-1, 126, 127) else ConfigOutcome.REFUSED
    return ConfigTest(outcome, said[:1] or (text.strip() or "no reason given",), (), text)


def _running(head: Process) -> Instance | None:
    directory = host.working_directory(head.pid) or "/"
    options = dict(zip(head.argv[1:], head.argv[2:], strict=False))
    binary = head.executable or shutil.which("lighttpd", path=host.PATH)
    if binary is None or "-f" not in options:
        return None
    config = str(Path(directory, options["-f"]))
    # It gives up root, so its user says little of who started it; its files say whether we act on them.
    if not (is_ours(binary) and is_ours(config)):
        return None
    arguments = ["-f", config]
    if "-m" in options:
        arguments += ["-m", str(Path(directory, options["-m"]))]
    return Instance(KIND, binary, config, tuple(arguments), _version(binary), head.pid)


def _version(binary: str) -> str:
    found = re.search(r"lighttpd/(\d+\.\d+\.\d+)", host.run([binary, "-v"], _SECONDS).stdout)
    return found[1] if found else ""
