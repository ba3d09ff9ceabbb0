"""Apache httpd with mod_ssl: it asks the responder within a handshake, and passes on much of what it gets.

mod_ssl looks neither at the signature nor at the status of an answer; the lines that we write keep back
what it can be told to (errors, and the try-later that it makes up), and the rest is for the proof to see.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from stapleguard import host
from stapleguard.finding import Code, Finding, find
from stapleguard.host import Completed, Process
from stapleguard.servers import apache_config, apache_understudy
from stapleguard.servers.lines import comments, refuse_path
from stapleguard.servers.log import Fault, read_log
from stapleguard.servers.running import masters, meant, program
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

KIND: Final = "apache"
INCLUDE: Final = apache_config.INCLUDE_NAME

_PROGRAMS: Final = frozenset({"apache2", "httpd"})
_DEBIAN_VARIABLES: Final = Path("/etc/apache2/envvars")
_WITH_VALUE: Final = frozenset("fdDCcekE")
_SECONDS: Final = 10.0
_RESPONDER_SECONDS: Final = 5
"""A client waits for as long as this when the responder is dead; mod_ssl's own value is 10."""
_NOT_IN_PATHS: Final = re.compile(r"[\x00-\x1f\x7f\"\\$%]")

FAULTS: Final[tuple[Fault, ...]] = (
    Fault(r"AH01958|no stapling cache available", Code.SERVER_CACHE_MISSING),
    Fault(r"AH02217|can't retrieve issuer certificate", Code.SERVER_ISSUER_MISSING),
    Fault(r"AH02218|no OCSP URI in certificate", Code.STAPLE_NOT_APPLICABLE),
    Fault(r"AH01940|could not resolve address of OCSP responder|AH01972", Code.DNS_NAME_NOT_FOUND),
    Fault(r"unsupported.*(?:scheme|protocol).*OCSP|AH01938|AH01939", Code.SERVER_UNSUPPORTED),
    Fault(r"AH01974.*|could not connect to OCSP responder", Code.NET_REFUSED),
    Fault(r"AH01977|failed reading line from OCSP server", Code.RESPONDER_SLOW),
    Fault(r"AH01980.*\(none\)", Code.RESPONDER_SLOW),
    Fault(r"AH01980|AH01981|bad response from OCSP server", Code.RESPONDER_HTTP_ERROR),
    Fault(r"AH01987|AH01988|failed to decode OCSP response", Code.RESPONDER_NOT_OCSP),
    Fault(r"AH01984|AH01985|response too large", Code.RESPONDER_TOO_LARGE),
    Fault(r"AH01935|certificate ID not", Code.SERVER_SERVES_BAD_STAPLE, Code.OCSP_WRONG_CERTIFICATE),
    Fault(r"AH01936|response times invalid", Code.SERVER_SERVES_BAD_STAPLE, Code.OCSP_EXPIRED),
    Fault(r"AH02969.*revoked", Code.SERVER_SERVES_BAD_STAPLE, Code.OCSP_REVOKED),
    Fault(r"AH02969.*unknown", Code.SERVER_SERVES_BAD_STAPLE, Code.OCSP_UNKNOWN),
    Fault(r"AH02565|AH02564|key values mismatch", Code.MATERIAL_KEY_MISMATCH),
    Fault(r"AH02561|AH02562|AH02577", Code.MATERIAL_UNREADABLE),
    Fault(r"Syntax error on line|AH00526|AH02312", Code.SERVER_CONFIG_INVALID),
)  # fmt: skip


def instances(binary: str | None = None, config: str | None = None) -> tuple[Instance, ...]:
    """Find Apache on this host: what runs, otherwise what is installed; see `nginx.instances`."""
    running = [one for one in map(_running, masters(_PROGRAMS)) if one is not None]
    if found := meant(running, binary, config):
        return found
    installed = next((path for name in ("apache2", "httpd") if (path := _which(binary or name))), None)
    if installed is None:
        return ()
    build = _build(installed)
    named = config or str(Path(build["HTTPD_ROOT"], build["SERVER_CONFIG_FILE"]))
    if config is None and not Path(named).exists():
        return ()
    return (Instance(KIND, installed, named, ("-f", named), build["version"], None),)


def sites(instance: Instance, state_dir: str) -> tuple[Site, ...]:
    """Read the virtual hosts that present certificates; see `apache_config.sites`."""
    return apache_config.sites(load(instance, state_dir), _build(instance.binary)["HTTPD_ROOT"])


def takes(instance: Instance | None, sites: Sequence[Site], certificates: int) -> frozenset[Stapling]:
    """Fetch, for each certificate, in the first handshake that asks: there is no staple file."""
    del instance, sites, certificates
    return frozenset({Stapling.FETCH})


def faults(instance: Instance, sites: Sequence[Site]) -> tuple[Finding, ...]:
    """Say when there is no SSLStaplingCache: then it does not start, though `-t` says Syntax OK."""
    if not any(site.guards for site in sites) or cached(instance):
        return ()
    text = (
        "SSLUseStapling is on, but there is no SSLStaplingCache: at its next restart Apache would not start"
    )
    return (find(Code.SERVER_CACHE_MISSING, instance.config, text),)


def cached(instance: Instance) -> bool:
    """Whether its configuration has a stapling cache."""
    return load(instance).cached


def test(instance: Instance, timeout: float) -> ConfigTest:
    """Run `apache2 -t`: key and certificate are not compared before it starts, nor is a cache asked for."""
    argv = [instance.binary, "-t", *instance.arguments]
    return _judge(host.run(argv, timeout, env=_environment(instance)))


def test_candidate(
    instance: Instance, candidate_include: str, live_include: str, timeout: float
) -> ConfigTest | None:
    """Run `apache2 -t` with the candidate's include in the place of the published one."""
    if not Path(live_include).is_file():
        return None
    variables = [f"{name}={value}" for name, value in _environment(instance).items()]
    argv = ["/usr/bin/env", *variables, instance.binary, "-t", *instance.arguments]
    done = host.with_bind(candidate_include, live_include, argv, timeout)
    return None if done is None else _judge(done)


def understudy(instance: Instance, stage: Stage) -> Understudy | None:
    """Compose a private Apache; see `apache_understudy`."""
    return apache_understudy.compose(instance, stage, load(instance), _environment(instance))


def update(instance: Instance, sites: Sequence[Site], live: str, timeout: float) -> Update:
    """Nothing: Apache takes certificates by a restart only, which may be graceful."""
    del instance, sites, live, timeout
    return Update.RELOAD


def reload(instance: Instance, timeout: float) -> Completed:
    """Restart gracefully: through systemd where Apache is a service's main process, else `-k graceful`.

    It tests the configuration first. Old processes finish what they have and accept no more.
    """
    unit = None if instance.master is None else unit_of_main(instance.master)
    if unit is not None:
        return host.run(["systemctl", "reload", unit], timeout)
    argv = [instance.binary, *instance.arguments, "-k", "graceful"]
    return host.run(argv, timeout, env=_environment(instance))


def workers(instance: Instance) -> tuple[int, ...]:
    """List the processes that accept connections: children of the parent that are alive."""
    if instance.master is None:
        return ()
    return tuple(one.pid for one in host.children(instance.master) if program(one) in _PROGRAMS)


leaving = workers
"""A graceful restart replaces them all."""


def error_log(instance: Instance) -> str | None:
    """Path of the main server's ErrorLog, None when that is not a file."""
    config = load(instance)
    return log_path(instance, config, config.main.first("errorlog"))


def log_path(instance: Instance, config: apache_config.Config, given: str) -> str | None:
    """Return the path that the value of an ErrorLog means, None when that is not a file."""
    return None if given.startswith(("|", "syslog")) or given == "" else absolute(instance, config, given)


def absolute(instance: Instance, config: apache_config.Config, path: str) -> str:
    """Return a path of the configuration as Apache takes it."""
    return str(Path(config.main.first("serverroot") or _build(instance.binary)["HTTPD_ROOT"], path))


def line(live: str) -> str:
    """Return the line that a virtual host needs."""
    return f'Include "{live}/{INCLUDE}"'


def layout(include: Include, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Write the include; everything else that it names is in every generation."""
    del files
    return {INCLUDE: render(include).encode()}


def render(include: Include) -> str:
    """Write the lines that a virtual host includes; StapleguardError for a path that it cannot be told."""
    return "".join(f"{text}\n" for text in _rendered(include))


def _rendered(include: Include) -> Iterator[str]:
    without = "quotes, dollar and percent signs, and backslashes"
    refuse_path(KIND, include.directory, _NOT_IN_PATHS, without)
    yield from comments(include)
    yield "# The server needs SSLStaplingCache outside of every virtual host."
    yield "SSLEngine on"
    for suffix in include.suffixes:
        yield f'SSLCertificateFile "{include.directory}/fullchain{suffix}.pem"'
        yield f'SSLCertificateKeyFile "{include.directory}/privkey{suffix}.pem"'
    if include.stapling is Stapling.OFF:
        yield "SSLUseStapling off"
        return
    yield "SSLUseStapling on"
    yield "# No staple is better than one that clients refuse: neither errors nor a try-later of its own."
    yield "SSLStaplingReturnResponderErrors off"
    yield "SSLStaplingFakeTryLater off"
    yield f"SSLStaplingResponderTimeout {_RESPONDER_SECONDS}"
    yield "SSLStaplingErrorCacheTimeout 60"


def log_findings(text: str) -> tuple[Finding, ...]:
    """Read what `apache2 -t` and its error log say of stapling; see `log.read_log`."""
    return read_log(KIND, FAULTS, text)


def _judge(done: Completed) -> ConfigTest:
    text = f"{done.stdout}{done.stderr}"
    said = tuple(one for one in text.splitlines() if one.strip() and "Syntax OK" not in one)
    if done.status == 0:
        return ConfigTest(ConfigOutcome.ACCEPTED, (), said, text)
    denied = "ermission denied" in text
    outcome = ConfigOutcome.REFUSED if done.status == 1 and not denied else ConfigOutcome.UNTESTED
    refusals = tuple(one for one in said if ":warn]" not in one)
    return ConfigTest(outcome, refusals or ("no reason given",), (), text)


def load(instance: Instance, state_dir: str = "/nonexistent") -> apache_config.Config:
    """Read its configuration; `state_dir` is where our generations are."""
    build, options = _build(instance.binary), _options(instance.arguments)
    defined = [value for letter, value in options if letter == "D"]
    root = next((value for letter, value in options if letter == "d"), build["HTTPD_ROOT"])
    return apache_config.load(instance.config, root, defined, _environment(instance), state_dir)


def _running(master: Process) -> Instance | None:
    binary = master.executable or _which(master.argv[0])
    if binary is None:
        return None
    build = _build(binary)
    directory = host.working_directory(master.pid) or "/"
    options = _options(master.argv[1:])
    root = next((value for letter, value in options if letter == "d"), build["HTTPD_ROOT"])
    given = next((value for letter, value in options if letter == "f"), build["SERVER_CONFIG_FILE"])
    config = str(Path(directory, root, given))
    arguments = ["-f", config]
    for letter, value in options:
        if letter == "d":
            arguments += ["-d", str(Path(directory, value))]
        elif letter in "DCc" and value not in ("FOREGROUND", "NO_DETACH", "ONE_PROCESS"):
            arguments += [f"-{letter}", value]
    return Instance(KIND, binary, config, tuple(arguments), build["version"], master.pid)


def _options(words: Sequence[str]) -> list[tuple[str, str]]:
    """Read options as httpd does: a value follows its letter directly or as the next word."""
    found: list[tuple[str, str]] = []
    waiting = [*words]
    while waiting:
        word = waiting.pop(0)
        if len(word) < 2 or not word.startswith("-") or word[1] not in _WITH_VALUE:
            continue
        value = word[2:] or (waiting.pop(0) if waiting else "")
        found.append((word[1], value))
    return found


def _environment(instance: Instance) -> dict[str, str]:
    """Return what its configuration may refer to: that of the process, else Debian's file of variables."""
    running = host.environment(instance.master) if instance.master is not None else {}
    kept = {name: value for name, value in running.items() if name.startswith("APACHE_")}
    return kept or _debian_variables()


def _debian_variables() -> dict[str, str]:
    try:
        text = _DEBIAN_VARIABLES.read_text("utf-8", "replace")
    except OSError:
        return {}
    pairs = re.findall(r"^export (APACHE_\w+)=(\S+)$", text, re.MULTILINE)
    return {name: value.replace("$SUFFIX", "").strip("'\"") for name, value in pairs}


@lru_cache(maxsize=8)
def _build(binary: str) -> Mapping[str, str]:
    text = host.run([binary, "-V"], _SECONDS, env=_debian_variables()).stdout
    version = re.search(r"Server version: [^/\s]+/(\S+)", text)
    given = dict(re.findall(r'-D (\w+)="([^"]*)"', text))
    return {
        "version": version[1] if version else "",
        "HTTPD_ROOT": given.get("HTTPD_ROOT", "/etc/httpd"),
        "SERVER_CONFIG_FILE": given.get("SERVER_CONFIG_FILE", "conf/httpd.conf"),
    }


def _which(name: str) -> str | None:
    return shutil.which(name, path=host.PATH)
