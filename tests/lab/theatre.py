"""A site on a host of its own whose next renewal may be one that cannot work, and somebody who watches it.

Two hosts on one switch: the web server's, and the one of the responder. The program runs on the first, or on
the second where a case is about the server's namespace. Everything can be broken between two deployments.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from cryptography.hazmat.primitives import serialization
from stapleguard import host
from stapleguard.host import PATH
from stapleguard.rehearsal.authority import Authority, Issued, LeafOptions

from lab.cluster import Cluster
from lab.faults import Resolver, Responder
from lab.patients import MODULES, Foreground, wheel_haproxy
from lab.process import until

NAME, OCSP_NAME = "www.theatre.test", "ocsp.theatre.test"
URL = f"http://{OCSP_NAME}/"
DNS, OTHER_DNS = "127.0.0.53", "127.0.0.54"
USER = "www-data"
_NONLOCAL = Path("/proc/sys/net/ipv4/ip_nonlocal_bind")
PEM = serialization.Encoding.PEM


_WATCH = """
import signal, sys, threading
from datetime import UTC, datetime
from cryptography import x509
from stapleguard.model import Ask, Endpoint
from stapleguard.wire.handshake import Limits, observe
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
address, name = sys.argv[1:]
ask = Ask(Endpoint(name, 443, name, address))
while not ended.wait(0.02):
    for one in observe([ask], Limits(5, 5), now=lambda: datetime.now(UTC)):
        serial = x509.load_der_x509_certificate(one.chain[0]).serial_number if one.chain else 0
        print(serial, one.staple is not None, flush=True)
"""


@dataclass(frozen=True)
class Troupe:
    """One kind of server: where its program is, its configuration, and how it is run."""

    kind: str
    find: Callable[[], str | None]
    text: Callable[[Theatre], str]
    line: str
    argv: Callable[[str, Path], list[str]]


def _nginx(at: Theatre) -> str:
    temporary = "".join(
        f'{one}_temp_path "{at.home}/{one}";\n'
        for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    block = f"server {{ listen {at.web}:443 ssl; server_name {NAME};\n{at.line}\n{at.own} return 204; }}\n"
    return (
        f'user {USER};\nworker_processes 1;\npid "{at.home}/pid";\nerror_log "{at.home}/error.log" info;\n'
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{at.main}\n{block if at.line else ''}}}\n"
    )


def _apache(at: Theatre) -> str:
    names = ("mpm_event", "authz_core", "socache_shmcb", "ssl")
    modules = "".join(f"LoadModule {one}_module {MODULES}/mod_{one}.so\n" for one in names)
    block = f"<VirtualHost {at.web}:443>\nServerName {NAME}\n{at.line}\n{at.own}</VirtualHost>\n"
    cache = f'SSLStaplingCache "shmcb:{at.home}/stapling(128000)"\n' if at.cached else ""
    return (
        f'ServerRoot "{at.home}"\nServerName localhost\nPidFile "{at.home}/pid"\nMutex sem\n'
        f'DefaultRuntimeDir "{at.home}"\n{modules}User {USER}\nGroup nogroup\n'
        f'ErrorLog "{at.home}/error.log"\nListen {at.web}:443\nStartServers 1\n{cache}{at.main}\n'
        f"{block if at.line else ''}"
    )


def _haproxy(at: Theatre) -> str:
    bound = f"  bind {at.web}:443 {at.line}{at.own}\n" if at.line else f"  bind {at.web}:443\n"
    return (
        f"global\n  user {USER}\n  stats socket {at.home}/admin.sock mode 600 level admin\n{at.main}\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
        f"frontend site\n{bound}  http-request return status 204\n"
        f"resolvers default\n  nameserver lab {at.name_server}:53\n"
    )


def _packaged(name: str) -> Callable[[], str | None]:
    return lambda: shutil.which(name, path=PATH)


NGINX = Troupe(
    "nginx",
    _packaged("nginx"),
    _nginx,
    'include "{live}/nginx.conf";',
    lambda binary, config: [
        binary,
        "-c",
        str(config),
        "-e",
        f"{config.parent}/error.log",
        "-g",
        "daemon off;",
    ],
)
APACHE = Troupe(
    "apache",
    _packaged("apache2"),
    _apache,
    'Include "{live}/apache.conf"',
    lambda binary, config: [binary, "-D", "FOREGROUND", "-f", str(config)],
)
HAPROXY = Troupe(
    "haproxy",
    _packaged("haproxy"),
    _haproxy,
    "ssl crt-list {live}/haproxy.crtlist",
    lambda binary, config: [binary, "-W", "-f", str(config)],
)
HAPROXY_28 = Troupe("haproxy", wheel_haproxy, _haproxy, HAPROXY.line, HAPROXY.argv)


@dataclass(frozen=True)
class Seen:
    """What a client got: the serial of the leaf (None without a handshake), and whether a staple came."""

    serial: int | None
    stapled: bool


@dataclass(frozen=True)
class Ended:
    """How a deployment ended, and what was served meanwhile."""

    status: int
    document: Any
    told: str
    seconds: float
    seen: tuple[Seen, ...]

    @property
    def cause(self) -> str | None:
        return self.document["cause"]

    @property
    def line(self) -> str:
        """What the timeline says of the understudy."""
        found = re.search(r"understudy .*", self.told)
        return found[0] if found else ""

    @property
    def cost(self) -> int | None:
        """Its milliseconds."""
        found = re.search(r"after (\d+) ms", self.line)
        return int(found[1]) if found else None


@dataclass
class Theatre:
    """One site on one server; what is set before `write` is in the configuration from then on."""

    troupe: Troupe
    binary: str
    home: Path
    authority: Authority
    responder: Responder
    resolver: Resolver
    cluster: Cluster
    foreground: Foreground | None = None
    version: int = 0
    first: Issued | None = None
    prefix: tuple[str, ...] = ()
    line: str = ""
    own: str = ""
    main: str = ""
    cached: bool = True
    name_server: str = DNS
    policy: str = ""
    budget: float = 5.0
    open_too: list[Any] = field(default_factory=list)

    @property
    def web(self) -> str:
        return self.cluster.web[0].ipv4

    @property
    def config(self) -> Path:
        return self.home / "main.conf"

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def live(self) -> Path:
        return self.state / "live" / NAME

    @property
    def stages(self) -> Path:
        """Where understudies have their directories."""
        return self.home / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self.stages)}

    @property
    def inside(self) -> list[str]:
        bind = " && ".join(f'mount --bind "{self.home}/{one}" /etc/{one}' for one in ("hosts", "resolv.conf"))
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{bind} && exec "$0" "$@"']

    def write(self) -> None:
        (self.home / "hosts").write_text(f"127.0.0.1 localhost\n{self.cluster.client.ipv4} {OCSP_NAME}\n")
        (self.home / "resolv.conf").write_text(f"nameserver {DNS}\noptions timeout:1 attempts:1\n")
        self.config.write_text(self.troupe.text(self))
        kind = self.troupe.kind
        more = f'resolver = ["{self.name_server}", "valid=1s", "ipv6=off"]\n' if kind == "nginx" else ""
        (self.home / "c.toml").write_text(
            f'anchors = "{self.home}/root.pem"\n[fetch]\nallow_addresses = ["198.18.0.0/15"]\n'
            f"[policy]\nunderstudy_budget = {self.budget}\n{self.policy}\n"
            f"[prove]\nquiet = 1.5\n[responder]\nwait = 0.2\npatience = 0\n"
            f'[{kind}]\nbinary = "{self.binary}"\nconfig = "{self.config}"\n{more}'
        )

    def renew(self, **options: Any) -> Issued:
        self.version += 1
        issued = self.authority.issue([NAME], datetime.now(UTC), LeafOptions(**{"ocsp_url": URL, **options}))
        issued.write_lineage(self.home / "acme", NAME, self.version)
        return issued

    def open(self) -> Issued:
        """Serve a first certificate with a good staple."""
        (self.home / "root.pem").write_bytes(self.authority.root.public_bytes(PEM))
        issued = self.renew()
        self.write()
        assert self.deploy().status == 7  # published; nothing uses it yet
        self.line = self.troupe.line.format(live=self.live)
        self.write()
        argv = self.troupe.argv(self.binary, self.config)
        self.foreground = Foreground(self.home, self.inside, argv)
        self.cluster.web[0].do(self.foreground.start)
        ended = self.deploy()
        assert ended.status == 0, ended.told
        return issued

    def argv(self, *words: str) -> list[str]:
        files = ["--config", f"{self.home}/c.toml", "--state-dir", str(self.state)]
        return [*self.inside, *self.prefix, sys.executable, "-m", "stapleguard", *files, *words]

    def deploy(self, apart: bool = False) -> Ended:
        """Deploy on the server's host, or on the other one, while a client looks again and again."""
        argv = self.argv("deploy", f"{self.home}/acme/live/{NAME}", "--json")
        if apart:
            # `nginx -t` binds, and the address is on the other host.
            self.cluster.client.do(lambda: _NONLOCAL.write_text("1"))
        where = self.cluster.client if apart else self.cluster.web[0]
        began = monotonic()
        with self.watched() as seen:
            done = where.do(
                lambda: subprocess.run(
                    argv, capture_output=True, text=True, timeout=90, check=False, env=self.environment
                )
            )
        seconds = monotonic() - began
        assert done.stdout, done.stderr
        return Ended(done.returncode, json.loads(done.stdout), done.stderr, seconds, tuple(seen))

    @contextmanager
    def watched(self) -> Iterator[list[Seen]]:
        """Make one handshake after the other with the real server, from its own host."""
        seen: list[Seen] = []
        if self.foreground is None:
            yield seen
            return
        # A program of its own: this process connects to loopback only.
        argv = [sys.executable, "-c", _WATCH, self.web, NAME]
        client = self.cluster.web[0].do(lambda: subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        try:
            yield seen
        finally:
            client.terminate()
            told, _ = client.communicate(timeout=20)
            for line in told.splitlines():
                serial, stapled = line.split()
                seen.append(Seen(int(serial) or None, stapled == "True"))

    def firewall(self, rule: str) -> None:
        """Have the firewall of the server's host do this with what leaves it."""
        chain = f"type filter hook output priority 0; policy accept; {rule};"
        text = f"table inet lab {{ chain out {{ {chain} }}; }}"
        self.cluster.web[0].run("nft", "-f", "-", words=text)

    def another_resolver(self) -> Resolver:
        """Open a second name server for the site's own."""
        made = self.cluster.web[0].do(lambda: Resolver(OTHER_DNS))
        self.open_too.append(made)
        self.name_server = OTHER_DNS
        return made

    def left_behind(self) -> list[str]:
        """Name what runs with the files of an understudy, and the directories of any."""
        every = ((one, host.working_directory(one.pid) or "") for one in host.processes())
        found = [one.command for one, where in every if str(self.stages) in f"{where} {one.command}"]
        return found + [str(one) for one in self.stages.iterdir()]

    def close(self) -> None:
        with suppress(Exception):
            self.cluster.web[0].run("nft", "flush", "ruleset")
        for one in (self.responder, self.resolver, *self.open_too):
            one.close()
        if self.foreground is not None:
            # Apache waits for those who still ask a responder.
            with suppress(subprocess.TimeoutExpired):
                self.cluster.web[0].do(self.foreground.stop)


@contextmanager
def theatre(troupe: Troupe, binary: str, home: Path, cluster: Cluster) -> Iterator[Theatre]:
    """Open a site with a good old certificate in service."""
    home.mkdir(mode=0o755)
    (home / "tmp").mkdir(mode=0o1777)
    authority = Authority.create(datetime.now(UTC))
    responder = cluster.client.do(lambda: Responder(authority, cluster.client.ipv4))
    resolver = cluster.web[0].do(lambda: Resolver(DNS))
    resolver.zone = {OCSP_NAME: (cluster.client.ipv4,)}
    made = Theatre(troupe, binary, home, authority, responder, resolver, cluster)
    try:
        yield made
        until(lambda: not made.left_behind(), "the end of every understudy")
    finally:
        made.close()
