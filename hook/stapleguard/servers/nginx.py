"""nginx: found by its master processes, tested and reloaded by its own binary."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stapleguard import host
from stapleguard.finding import Code, Finding, find
from stapleguard.host import Completed, Process
from stapleguard.model import StapleguardError
from stapleguard.servers import nginx_config, nginx_understudy
from stapleguard.servers.lines import comments, refuse_path
from stapleguard.servers.nginx_log import LOG_FAULTS, log_findings
from stapleguard.servers.running import meant, ours
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

__all__ = [
    "INCLUDE",
    "KIND",
    "LOG_FAULTS",
    "error_log",
    "faults",
    "instances",
    "layout",
    "leaving",
    "line",
    "log_findings",
    "logs_to",
    "reload",
    "render",
    "sites",
    "takes",
    "test",
    "test_candidate",
    "understudy",
    "update",
    "workers",
]

KIND: Final = "nginx"
INCLUDE: Final = nginx_config.INCLUDE_NAME

_MASTER: Final = "nginx: master process "
_WORKER: Final = "nginx: worker process"
_VERSION_SECONDS: Final = 10.0
_WITH_VALUE: Final = "pecgs"
_OPTION: Final = re.compile(r"-[?hvVtTqpecgs]")
_MESSAGE: Final = re.compile(r"\[(emerg|alert|crit|error|warn)\] (?:\d+#\d+: )?(.*)")
_RESOLVER: Final = re.compile(r"[0-9A-Za-z.:_=\[\]-]+")
_SYNTAX_OK: Final = " syntax is ok\n"
_DENIED: Final = re.compile(r"\((?:1|13|30): ")  # EPERM, EACCES, EROFS
_NOT_IN_PATHS: Final = re.compile(r"[\x00-\x1f\x7f\"'$\\]")


@dataclass(frozen=True, slots=True)
class _Build:
    """What a binary was compiled with: paths as given to ./configure, and the modules it is without."""

    version: str
    prefix: str
    config: str
    error_log: str
    without: frozenset[str]


def instances(binary: str | None = None, config: str | None = None) -> tuple[Instance, ...]:
    """Find nginx on this host: what runs, otherwise what is installed.

    A master process of another root directory (a container) is left out, and so is one of another
    user than root or ours: its owner chose its title, and with it what we would execute. With
    `config` only the installation with that main file, with `binary` only those of that program.
    """
    if found := meant(_masters(), binary, config):
        return found
    installed = shutil.which(binary or "nginx", path=host.PATH)
    if installed is None:
        return ()
    idle = _instance(installed, {} if config is None else {"c": str(Path(config).absolute())}, "/", None)
    return (idle,) if config is not None or Path(idle.config).exists() else ()


def sites(instance: Instance, state_dir: str) -> tuple[Site, ...]:
    """Read the server blocks that present certificates; see `nginx_config.sites`."""
    return nginx_config.sites(instance.config, state_dir)


def takes(instance: Instance | None, sites: Sequence[Site], certificates: int) -> frozenset[Stapling]:
    """Fetch, and take a file for one certificate: nginx would staple the one file for the other, too."""
    del instance, sites
    return frozenset({Stapling.FETCH, Stapling.FILE} if certificates == 1 else {Stapling.FETCH})


def faults(instance: Instance, sites: Sequence[Site]) -> tuple[Finding, ...]:
    """Name the blocks whose certificates are computed per connection: nginx never staples those."""
    text = f"{instance.kind} chooses its certificate by a variable, and staples none that it chooses so"
    return tuple(
        find(Code.SERVER_VARIABLE_CERTIFICATE, site.where, f"{site.where}: {text}")
        for site in sites
        if site.variable
    )


def test(instance: Instance, timeout: float) -> ConfigTest:
    """Run `nginx -t`: key and certificate are compared, a staple file only decoded.

    Warnings leave the outcome ACCEPTED, also those that say that stapling will not work. It resolves
    the responders' names, so a dead resolver makes it slow (10 s with the usual resolv.conf).
    """
    return _judge(host.run([instance.binary, "-t", *instance.arguments], timeout))


def test_candidate(
    instance: Instance, candidate_include: str, live_include: str, timeout: float
) -> ConfigTest | None:
    """Run `nginx -t` with the candidate's include in the place of the published one, seen by nobody else.

    None where this process may not do that, and where nothing is published yet: then the test comes
    after publishing, before the reload.
    """
    if not Path(live_include).is_file():
        return None
    argv = [instance.binary, "-t", *instance.arguments]
    done = host.with_bind(candidate_include, live_include, argv, timeout)
    return None if done is None else _judge(done)


def understudy(instance: Instance, stage: Stage) -> Understudy | None:
    """Compose a private nginx of the blocks in `http`; see `nginx_understudy`."""
    return nginx_understudy.compose(instance, stage, _build(instance.binary).without)


def update(instance: Instance, sites: Sequence[Site], live: str, timeout: float) -> Update:
    """Nothing: nginx takes certificates by a reload only."""
    del instance, sites, live, timeout
    return Update.RELOAD


def reload(instance: Instance, timeout: float) -> Completed:
    """Reload through systemd where nginx is a service's main process, by `nginx -s reload` elsewhere.

    The status says that the master was asked, not that it obeyed: a HUP returns 0 whatever the
    configuration holds, and then the old workers stay. Where it obeys, the old certificate is served
    for about 100 ms more. Only the wire proves a reload.
    """
    unit = None if instance.master is None else unit_of_main(instance.master)
    if unit is not None:
        return host.run(["systemctl", "reload", unit], timeout)
    return host.run([instance.binary, *instance.arguments, "-s", "reload"], timeout)


def workers(instance: Instance) -> tuple[int, ...]:
    """List the worker processes that are not shutting down; none when nginx does not run.

    For about 100 ms after a reload both the old and the new ones are among them.
    """
    if instance.master is None:
        return ()
    return tuple(child.pid for child in host.children(instance.master) if child.command == _WORKER)


leaving = workers
"""A reload replaces all of them."""


def error_log(instance: Instance) -> str | None:
    """Path of the log that stapling is written to, None when it is not a file.

    The one of the configuration's main level, otherwise `-e`, otherwise the compiled default.
    """
    build = _build(instance.binary)
    options = _options(list(instance.arguments))
    given = logs_to(instance)
    if given == "stderr" or given.startswith(("syslog:", "memory:")):
        return None
    return str(Path("/", build.prefix, options.get("p", ""), given))


def logs_to(instance: Instance) -> str:
    """Return where stapling is written to, as it is configured: a path, `stderr`, or `syslog:...`."""
    options = _options(list(instance.arguments))
    given = nginx_config.main_error_log(instance.config) or options.get("e")
    return given or _build(instance.binary).error_log


def line(live: str) -> str:
    """Return the line that a server block needs."""
    return f"include {live}/{INCLUDE};"


def layout(include: Include, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Write the include; everything else that it names is in every generation."""
    del files
    return {INCLUDE: render(include).encode()}


def render(include: Include) -> str:
    """Write the lines that a server block includes: certificates, keys and where the staple comes from.

    Raises StapleguardError for a path that nginx could not be told, and for a staple file beside two
    certificates: nginx would staple the one file for both.
    """
    if include.stapling is Stapling.FILE and len(include.suffixes) != 1:
        raise StapleguardError(
            "nginx staples one file for every certificate of a server block",
            'use prime = "warm" with an RSA and an ECDSA certificate',
        )
    return "".join(f"{line}\n" for line in (*_comments(include), *_directives(include)))


def _comments(include: Include) -> Iterator[str]:
    yield from comments(include)
    yield "# Paths lead into one generation rather than through live/: whoever has read this file has"
    yield "# a key, a chain and a staple that belong together, whatever is published meanwhile."


def _directives(include: Include) -> Iterator[str]:
    for suffix in include.suffixes:
        yield f"ssl_certificate {_path(include.directory, f'fullchain{suffix}.pem')};"
        yield f"ssl_certificate_key {_path(include.directory, f'privkey{suffix}.pem')};"
    match include.stapling:
        case Stapling.OFF:
            return
        case Stapling.FILE:
            yield "ssl_stapling on;"
            yield f"ssl_stapling_file {_path(include.directory, 'ocsp.der')};"
        case Stapling.FETCH:
            yield "ssl_stapling on;"
            if include.trusted is not None:
                yield "ssl_stapling_verify on;"
                yield f"ssl_trusted_certificate {_path(include.directory, include.trusted)};"
            if include.resolvers:
                yield f"resolver {' '.join(map(_resolver, include.resolvers))};"
            if include.resolver_timeout is not None:
                yield f"resolver_timeout {round(include.resolver_timeout * 1000)}ms;"


def _path(directory: str, name: str) -> str:
    path = f"{directory.rstrip('/')}/{name}"
    refuse_path(KIND, path, _NOT_IN_PATHS, "quotes, dollar signs, backslashes and control characters")
    return path if re.fullmatch(r"[\w./@%+=:,~-]+", path) else f'"{path}"'


def _resolver(value: str) -> str:
    if not _RESOLVER.fullmatch(value):
        raise StapleguardError(
            f"not a resolver address: {value!r}", "such as 127.0.0.53, [::1]:53 or valid=30s"
        )
    # nginx wants the brackets that resolv.conf does not have.
    return f"[{value}]" if value.count(":") > 1 and not value.startswith("[") else value


def _judge(done: Completed) -> ConfigTest:
    messages = dict.fromkeys(found.groups() for found in _MESSAGE.finditer(done.stderr))
    refusals = tuple(text for level, text in messages if level != "warn")
    warnings = tuple(text for level, text in messages if level == "warn")
    denied = any(_DENIED.search(text) for text in refusals)
    # It says so once every directive is read and every certificate loaded; what follows is whether it may
    # open logs, ports and directories, which in a sandbox says nothing of the configuration.
    text = done.stderr
    if done.status == 0:
        outcome = ConfigOutcome.ACCEPTED
    elif denied and _SYNTAX_OK in text:
        outcome, refusals = ConfigOutcome.ACCEPTED, ()
        text = "".join(line for line in text.splitlines(keepends=True) if not _DENIED.search(line))
    elif done.status == 1 and not denied:
        outcome = ConfigOutcome.REFUSED
    else:
        outcome = ConfigOutcome.UNTESTED
    return ConfigTest(outcome, refusals, warnings, text)


def _masters() -> list[Instance]:
    titled = [one for one in host.processes() if one.command.startswith(_MASTER) and one.uid in ours()]
    # For an instant a worker bears the title of the master that it was forked from.
    known = {one.pid for one in titled}
    found = [one for one in titled if one.parent not in known or not host.is_fork(one.pid, one.parent)]
    # During an upgrade on the fly the old master is the parent of the new one, which is the heir.
    replaced = {one.parent for one in found}
    return [_running(one) for one in found if one.pid not in replaced and host.shares_root(one.pid)]


def _running(master: Process) -> Instance:
    program, *words = master.command.removeprefix(_MASTER).split(" ")
    binary = master.executable or shutil.which(program, path=host.PATH) or program
    directory = host.working_directory(master.pid) or "/"
    return _instance(binary, _options(words), directory, master.pid)


def _instance(binary: str, options: dict[str, str], directory: str, master: int | None) -> Instance:
    """Put an installation together; relative paths start at `directory`, where nginx was started."""
    build = _build(binary)
    arguments: list[str] = []
    prefix = str(Path(directory, options.get("p", build.prefix)))
    if "p" in options or not build.prefix.startswith("/"):
        arguments += ["-p", f"{prefix.rstrip('/')}/"]
    config = str(Path(prefix, options.get("c", build.config)))
    if "c" in options:
        arguments += ["-c", config]
    for letter in ("e", "g"):
        if letter in options:
            arguments += [f"-{letter}", options[letter]]
    return Instance(KIND, binary, config, tuple(arguments), build.version, master)


def _options(words: list[str]) -> dict[str, str]:
    """Read nginx's options back from words as ngx_get_options does.

    Letters may be joined, and a value follows its letter directly or as the next word. A title has
    lost its quotes, so a value goes on up to the next option.
    """
    options: dict[str, str] = {}
    while words:
        letters, words = words[0], words[1:]
        if not letters.startswith("-"):
            continue
        for position, letter in enumerate(letters[1:], 2):
            if letter in _WITH_VALUE:
                value = [letters[position:]] if letters[position:] else words[:1]
                words = words if letters[position:] else words[1:]
                while words and not _OPTION.match(words[0]):
                    value, words = [*value, words[0]], words[1:]
                options[letter] = " ".join(value)
                break
    return options


def _build(binary: str) -> _Build:
    done = host.run([binary, "-V"], _VERSION_SECONDS)
    version = re.search(r"version: [^/\s]+/(\S+)", done.stderr)
    given = re.search(r"configure arguments: (.*)", done.stderr)
    options = dict(
        word.removeprefix("--").split("=", 1)
        for word in (shlex.split(given[1]) if given else ())
        if word.startswith("--") and "=" in word
    )
    # The defaults are those of nginx's auto/options.
    return _Build(
        version[1] if version else "",
        options.get("prefix", "/usr/local/nginx"),
        options.get("conf-path", "conf/nginx.conf"),
        options.get("error-log-path", "logs/error.log"),
        frozenset(re.findall(r"--without-http_(\w+)_module", given[1] if given else "")),
    )
