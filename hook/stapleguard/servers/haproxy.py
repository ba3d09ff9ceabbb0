"""HAProxy: a bundle with issuer and staple beside it, replaced in memory in one transaction, or reloaded.

Its crt-list names the files through live/NAME, unlike the includes of other servers: the runtime socket
knows a certificate by the path in the configuration, and key and chain are in one file. What is between two
reads is the staple alone, and HAProxy leaves one aside that is of another certificate.
"""

from __future__ import annotations

import base64
import re
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from stapleguard import host
from stapleguard.finding import Code, Finding
from stapleguard.host import Completed, Process
from stapleguard.servers import haproxy_config, haproxy_understudy
from stapleguard.servers.haproxy_config import names_in
from stapleguard.servers.lines import comments, refuse_path
from stapleguard.servers.log import Fault, read_log
from stapleguard.servers.running import installed, masters, meant, program
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

KIND: Final = "haproxy"
INCLUDE: Final = haproxy_config.LIST_NAME

_PROGRAMS: Final = frozenset({"haproxy"})
_DEFAULT_CONFIG: Final = "/etc/haproxy/haproxy.cfg"
_SECONDS: Final = 10.0
_MESSAGE: Final = re.compile(r"\[(ALERT|WARNING)\] *(?:\(\d+\) : )?(.*)")
_NOT_IN_PATHS: Final = re.compile(r"[\x00-\x20\x7f\"'\\#\[\]]")
_IGNORED: Final = "Content will be ignored"

FAULTS: Final[tuple[Fault, ...]] = (
    Fault(r"OCSP single response: no longer valid", Code.SERVER_STAPLE_FILE_BAD, Code.OCSP_EXPIRED),
    Fault(r"OCSP single response: not yet valid", Code.SERVER_STAPLE_FILE_BAD, Code.OCSP_NOT_YET_VALID),
    Fault(r"Certificate ID does not match", Code.SERVER_STAPLE_FILE_BAD, Code.OCSP_WRONG_CERTIFICATE),
    Fault(r"Unable to parse OCSP response", Code.SERVER_STAPLE_FILE_BAD, Code.OCSP_MALFORMED),
    Fault(r"OCSP response status not successful", Code.SERVER_STAPLE_FILE_BAD, Code.OCSP_TRY_LATER),
    Fault(r"impossible to compute the OCSP certificate ID", Code.SERVER_ISSUER_MISSING),
    Fault(r"OCSP auto-update set to 'on' but an error occurred", Code.SERVER_ISSUER_MISSING),
    Fault(r"OCSP[^.]*\.+ Content will be ignored", Code.SERVER_STAPLE_FILE_BAD),
    Fault(r"<OCSP-UPDATE> \S+ 2 ", Code.RESPONDER_HTTP_ERROR),
    Fault(r"<OCSP-UPDATE> \S+ 3 ", Code.RESPONDER_NOT_OCSP),
    Fault(r"<OCSP-UPDATE> \S+ 4 ", Code.OCSP_MALFORMED),
    Fault(r"inconsistencies between private key and certificate", Code.MATERIAL_KEY_MISMATCH),
    Fault(r"unable to (?:stat|load|open) (?:SSL )?certificate", Code.MATERIAL_UNREADABLE),
    Fault(r"^\[ALERT\]", Code.SERVER_CONFIG_INVALID),
)


def instances(binary: str | None = None, config: str | None = None) -> tuple[Instance, ...]:
    """Find HAProxy on this host: what runs, otherwise what is installed; see `nginx.instances`."""
    running = [one for one in map(_running, masters(_PROGRAMS)) if one is not None]
    return meant(running, binary, config) or installed(KIND, binary, config, _DEFAULT_CONFIG, _version)


def sites(instance: Instance, state_dir: str) -> tuple[Site, ...]:
    """Read the `bind` lines that present certificates; see `haproxy_config.sites`."""
    return haproxy_config.sites(configs(instance), state_dir)


def takes(instance: Instance | None, sites: Sequence[Site], certificates: int) -> frozenset[Stapling]:
    """Take a file, one for each certificate; ask by itself from 2.8 on where our crt-list may say so."""
    del certificates
    able = {Stapling.FILE}
    listed = all(site.included == INCLUDE for site in sites if site.guards)
    if instance is not None and listed and haproxy_config.may_update(instance.version):
        able.add(Stapling.FETCH)
    return frozenset(able)


def faults(instance: Instance, sites: Sequence[Site]) -> tuple[Finding, ...]:
    """Nothing: its own test says what is wrong."""
    del instance, sites
    return ()


def test(instance: Instance, timeout: float) -> ConfigTest:
    """Run `haproxy -c`: a staple that it will leave aside is a warning, and accepted."""
    return _judge(host.run([instance.binary, "-c", *instance.arguments], timeout))


def test_candidate(
    instance: Instance, candidate_include: str, live_include: str, timeout: float
) -> ConfigTest | None:
    """Run `haproxy -c` with the candidate's directory over the published one's, seen by nobody else."""
    candidate, live = Path(candidate_include).parent, Path(live_include).parent
    if not Path(live_include).is_file():
        return None
    done = host.with_bind(str(candidate), str(live), [instance.binary, "-c", *instance.arguments], timeout)
    return None if done is None else _judge(done)


def understudy(instance: Instance, stage: Stage) -> Understudy | None:
    """Compose a private HAProxy; see `haproxy_understudy`."""
    return haproxy_understudy.compose(instance, stage, configs(instance))


def update(instance: Instance, sites: Sequence[Site], live: str, timeout: float) -> Update:
    """Replace certificate, issuer and staple in memory by those on the disk, in one transaction.

    Only where the running crt-list is the one on the disk, and does not update by itself: what memory
    holds then is what a reload would read. RELOAD whenever HAProxy says anything unexpected.
    """
    if _rivalled(sites, live):
        return Update.RELOAD
    socket = admin_socket(instance, timeout)
    bundles = sorted(Path(live).glob("bundle*.pem"))
    if socket is None or not bundles or not _same_list(socket, sites, live, timeout):
        return Update.RELOAD
    known = set((host.control(socket, b"show ssl cert\n", timeout) or "").splitlines())
    if not {str(one) for one in bundles} <= known:
        return Update.RELOAD
    if all(_replace(socket, bundle, timeout) for bundle in bundles):
        return Update.DONE
    return Update.RELOAD


def _rivalled(sites: Sequence[Site], live: str) -> bool:
    """Whether another certificate stands beside ours for one of its names, as copies in a directory do.

    HAProxy takes the first that it was given; one that is replaced in memory comes last from then on.
    """
    ours = frozenset(name for bundle in Path(live).glob("bundle*.pem") for name in names_in(str(bundle)))
    others = {path for site in sites for path in site.certificates if Path(path).parent != Path(live)}
    return any(ours & names_in(path) for path in others)


def _replace(socket: str, bundle: Path, timeout: float) -> bool:
    name = str(bundle)
    issuer, staple = Path(f"{name}.issuer"), Path(f"{name}.ocsp")
    steps = [(f"set ssl cert {name}", bundle.read_bytes())]
    if issuer.is_file():
        steps.append((f"set ssl cert {issuer}", issuer.read_bytes()))
    if staple.is_file():
        steps.append((f"set ssl cert {staple}", base64.b64encode(staple.read_bytes())))
    # One that a crash of ours left open would keep its other parts.
    host.control(socket, f"abort ssl cert {name}\n".encode(), timeout)
    wanted = "Transaction created for certificate"  # by us, and not somebody else's
    for command, payload in steps:
        # The payload ends at the first blank line; one more would be read as a command.
        lines = b"\n".join(line for line in payload.splitlines() if line.strip())
        said = host.control(socket, command.encode() + b" <<\n" + lines + b"\n\n", timeout) or ""
        if not said.startswith(wanted):
            host.control(socket, f"abort ssl cert {name}\n".encode(), timeout)
            return False
        wanted = "Transaction updated for certificate"
    said = host.control(socket, f"commit ssl cert {name}\n".encode(), timeout) or ""
    if said.rstrip().endswith("Success!"):
        return True
    host.control(socket, f"abort ssl cert {name}\n".encode(), timeout)
    return False


def _same_list(socket: str, sites: Sequence[Site], live: str, timeout: float) -> bool:
    """Whether what runs was made from the crt-list that is on the disk now."""
    path = Path(live, INCLUDE)
    if not any(site.included == INCLUDE for site in sites):
        return True  # the bundle is named without a list
    try:
        text = path.read_text()
    except OSError:
        return False
    wanted = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    said = host.control(socket, f"show ssl crt-list {path}\n".encode(), timeout) or ""
    runs = [line.split() for line in said.splitlines() if line.strip() and not line.startswith("#")]
    return wanted == runs and not any("ocsp-update" in word for words in wanted for word in words)


def admin_socket(instance: Instance, timeout: float) -> str | None:
    """Find the admin socket of the very process that accepts."""
    accepting = set(workers(instance))
    for path in haproxy_config.admin_sockets(configs(instance)):
        said = host.control(path, b"show info\n", timeout) or ""
        pid = re.search(r"^Pid: (\d+)$", said, re.MULTILINE)
        if pid and accepting == {int(pid[1])}:
            return path
    return None


def reload(instance: Instance, timeout: float) -> Completed:
    """Reload through systemd where HAProxy is a service's main process, else by SIGUSR2 to the master.

    The master then becomes a new one, and starts a new worker beside the old; a bad configuration leaves
    the old worker. Only the wire proves it.
    """
    if instance.master is None:
        return Completed(("haproxy",), 1, "", "haproxy is not running", 0.0)
    unit = unit_of_main(instance.master)
    if unit is not None:
        return host.run(["systemctl", "reload", unit], timeout)
    if not any(_is_haproxy(one) for one in host.children(instance.master)):
        text = "haproxy runs without a master process (-W), so nothing can make it read its files again"
        return Completed(("haproxy",), 1, "", text, 0.0)
    return host.signalled(instance.master, signal.SIGUSR2)


def workers(instance: Instance) -> tuple[int, ...]:
    """List the processes that accept: not one that only finishes what it has."""
    if instance.master is None:
        return ()
    children = [one.pid for one in host.children(instance.master) if _is_haproxy(one)]
    return host.listening(children or [instance.master])


leaving = workers
"""A reload starts another worker."""


def error_log(instance: Instance) -> str | None:
    """None: it speaks to syslog."""
    del instance
    return None


def line(live: str) -> str:
    """Return what a `bind` line needs."""
    return f"bind :443 ssl crt-list {live}/{INCLUDE}"


def layout(include: Include, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Write the crt-list, and beside each bundle its issuer and, where there is one, its staple."""
    own = {INCLUDE: render(include).encode()}
    for suffix in include.suffixes:
        own[f"bundle{suffix}.pem.issuer"] = files[f"issuer{suffix}.pem"]
        if include.stapling is Stapling.FILE and f"ocsp{suffix}.der" in files:
            own[f"bundle{suffix}.pem.ocsp"] = files[f"ocsp{suffix}.der"]
    return own


def render(include: Include) -> str:
    """Write the lines of the crt-list; raises StapleguardError for a path that it could not hold."""
    return "".join(f"{text}\n" for text in _rendered(include))


def _rendered(include: Include) -> Iterator[str]:
    refuse_path(KIND, include.live, _NOT_IN_PATHS, "blanks, quotes, brackets and backslashes")
    yield from comments(include)
    options = " [ocsp-update on]" if include.stapling is Stapling.FETCH else ""
    for suffix in include.suffixes:
        yield f"{include.live}/bundle{suffix}.pem{options}"


def log_findings(text: str) -> tuple[Finding, ...]:
    """Read what `haproxy -c` and its log say of staples; see `log.read_log`."""
    return read_log(KIND, FAULTS, text)


def _judge(done: Completed) -> ConfigTest:
    text = f"{done.stdout}{done.stderr}"
    messages = dict.fromkeys(found.groups() for found in _MESSAGE.finditer(text))
    refusals = tuple(said for level, said in messages if level == "ALERT")
    warnings = tuple(said for level, said in messages if level == "WARNING")
    if done.status == 0:
        outcome, refusals = ConfigOutcome.ACCEPTED, ()
    elif done.status == 1 and not any("ermission denied" in said for said in refusals):
        outcome = ConfigOutcome.REFUSED
    else:
        outcome = ConfigOutcome.UNTESTED
    return ConfigTest(outcome, refusals, warnings, text)


def _running(master: Process) -> Instance | None:
    directory = host.working_directory(master.pid) or "/"
    configs: list[str] = []
    words = [*master.argv[1:]]
    while words:
        word = words.pop(0)
        if word == "-f" and words:
            configs.append(str(Path(directory, words.pop(0))))
        elif word == "-C" and words:
            directory = str(Path(directory, words.pop(0)))
        elif word == "--":
            configs += [str(Path(directory, one)) for one in words]
            break
    binary = master.executable or shutil.which("haproxy", path=host.PATH)
    if binary is None or not configs:
        return None
    arguments = tuple(word for config in configs for word in ("-f", config))
    return Instance(KIND, binary, configs[0], arguments, _version(binary), master.pid)


def configs(instance: Instance) -> tuple[str, ...]:
    """The files and directories of its configuration."""
    return instance.arguments[1::2]


def _version(binary: str) -> str:
    found = re.search(r"version (\d+\.\d+\.\d+)", host.run([binary, "-v"], _SECONDS).stdout)
    return found[1] if found else ""


def _is_haproxy(one: Process) -> bool:
    return "haproxy" in program(one)  # haproxy-2.8, haproxy-wlb
