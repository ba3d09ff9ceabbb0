"""One laboratory: Pebble, unbound, an OCSP responder, nginx and certbot, wired on addresses of their own."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import shlex
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lab.net import Net, accepts, claimed
from lab.process import Completed, LabError, Machine, until
from lab.responder import Responder
from lab.tools import REPOSITORY, executable

WORKERS = 4
RESPONDER_NAME = "ocsp.ca.test"


@dataclass(frozen=True, slots=True)
class Hook:
    """An executable for `--deploy-hook`; leaves exit status and output in files: certbot drops the status."""

    path: Path
    argv: tuple[str, ...]

    @property
    def ran(self) -> bool:
        """Whether certbot called it since it was written."""
        return (self.path / "../status").resolve().exists()

    def result(self) -> Completed:
        """How the last call ended; LabError when certbot never called it."""
        folder = self.path.parent
        if not (folder / "status").exists():
            raise LabError(f"certbot did not call {self.path}")
        began, ended = (float((folder / name).read_text()) for name in ("began", "ended"))
        return Completed(
            self.argv,
            int((folder / "status").read_text()),
            (folder / "stdout").read_text(),
            (folder / "stderr").read_text(),
            ended - began,
        )


class Lab:
    """A context manager. Everything that it starts ends with it, and so do its files.

    `certbot` and `nginx` are names that `tools.executable` knows; `ocsp_url` False makes a CA whose
    certificates name no OCSP responder. Names under site.test have one IPv4 address, names under
    dual.test have an IPv4 address and ::1.
    """

    def __init__(self, *, certbot: str = "certbot", nginx: str = "nginx", ocsp_url: bool = True) -> None:
        self.certbot = executable(certbot)
        self.nginx_binary = executable(nginx)
        self._ocsp_url = ocsp_url
        self._hooks = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _build(self, stack: contextlib.ExitStack) -> None:
        self.net: Net = stack.enter_context(claimed())
        # Not pytest's tmp_path: nginx's workers are `nobody` and must traverse it.
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stapleguard-lab-")))
        self.folder.chmod(0o755)
        self.www = self.folder / "www"
        self.state = self.folder / "state"
        self.config = self.folder / "stapleguard.toml"
        self.live = self.folder / "letsencrypt" / "live"
        for folder in (self.www, self.folder / "nginx", self.folder / "hooks"):
            folder.mkdir()
        self.machine: Machine = stack.enter_context(Machine(self.folder, self.net.dns))
        self._start_unbound()
        self._start_pebble()
        self.responder: Responder = stack.enter_context(
            Responder(
                self.net.responder,
                self.net.responder_port,
                self.folder / "issuer.pem",
                self.folder / "issuer.key",
            )
        )
        self._start_nginx()
        self.configure()

    # -- the certificate authority and its names

    def _start_unbound(self) -> None:
        zones = (
            f"{RESPONDER_NAME}. 60 IN A {self.net.responder}",
            f"site.test. 60 IN A {self.net.web}",
            f"dual.test. 60 IN A {self.net.web}",
            "dual.test. 60 IN AAAA ::1",
        )
        lines = [
            "server:",
            f'directory: "{self.folder}"',
            'chroot: ""',
            'username: ""',
            'pidfile: ""',
            "use-syslog: no",
            "do-daemonize: no",
            f"interface: {self.net.dns}@53",
            "access-control: 127.0.0.0/8 allow",
            "do-ip6: no",
            'module-config: "iterator"',
            'local-zone: "." static',
            'local-zone: "site.test." redirect',
            'local-zone: "dual.test." redirect',
            *(f'local-data: "{zone}"' for zone in zones),
            "remote-control:",
            "control-enable: no",
        ]
        file = self.folder / "unbound.conf"
        file.write_text("\n".join(lines) + "\n")
        child = self.machine.start("unbound", [str(executable("unbound")), "-d", "-c", str(file)])
        self._await(child, "unbound", self.net.dns, 53)

    def _start_pebble(self) -> None:
        self._make_api_certificate()
        settings: dict[str, object] = {
            "listenAddress": f"{self.net.acme}:{self.net.acme_port}",
            "managementListenAddress": f"{self.net.acme}:{self.net.management_port}",
            "certificate": str(self.folder / "api.pem"),
            "privateKey": str(self.folder / "api.key"),
            "httpPort": self.net.http_port,
            "tlsPort": self.net.https_port,
            "externalAccountBindingRequired": False,
            "certificateValidityPeriod": 90 * 86400,
        }
        if self._ocsp_url:
            settings["ocspResponderURL"] = f"http://{RESPONDER_NAME}:{self.net.responder_port}"
        file = self.folder / "pebble.json"
        file.write_text(json.dumps({"pebble": settings}))
        argv = [str(executable("pebble")), "-config", str(file), "-dnsserver", f"{self.net.dns}:53"]
        child = self.machine.start("pebble", argv, {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"})
        self._await(child, "pebble", self.net.acme, self.net.acme_port)
        self._await(child, "pebble", self.net.acme, self.net.management_port)
        for kind, name in (
            ("intermediates", "issuer.pem"),
            ("intermediate-keys", "issuer.key"),
            ("roots", "root.pem"),
        ):
            (self.folder / name).write_bytes(self._managed(kind))

    def _make_api_certificate(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "acme.test")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(self.net.acme))]), False
            )
            .add_extension(x509.BasicConstraints(True, None), True)
            .sign(key, hashes.SHA256())
        )
        (self.folder / "api.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.folder / "api.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )

    def _managed(self, kind: str) -> bytes:
        context = ssl.create_default_context(cafile=str(self.folder / "api.pem"))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        url = f"https://{self.net.acme}:{self.net.management_port}/{kind}/0"
        with opener.open(url, timeout=10) as answer:
            return bytes(answer.read())

    def _await(self, child: subprocess.Popen[bytes], name: str, address: str, port: int) -> None:
        def ready() -> bool:
            if child.poll() is not None:
                raise LabError(f"{name} ended with {child.returncode}\n{self.log(name)}")
            return accepts(address, port)

        until(ready, f"{name} on {address}:{port}")

    # -- the web server

    @property
    def nginx_config(self) -> Path:
        return self.folder / "nginx" / "nginx.conf"

    def _start_nginx(self) -> None:
        folder = self.folder / "nginx"
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n".join(f"  {name}_temp_path {folder}/{name};" for name in temporary)
        self.nginx_config.write_text(
            f"""daemon off;
user nobody nogroup;
worker_processes {WORKERS};
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
  access_log off;
{paths}
  server {{
    listen {self.net.web}:{self.net.http_port};
    listen [::1]:{self.net.http_port};
    root {self.www};
  }}
  include {folder}/sites/*.conf;
}}
"""
        )
        (folder / "sites").mkdir()
        argv = [str(self.nginx_binary), "-c", str(self.nginx_config), "-e", str(folder / "error.log")]
        self.nginx = self.machine.start("nginx", argv)
        self._await(self.nginx, "nginx", self.net.web, self.net.http_port)
        self._await(self.nginx, "nginx", "::1", self.net.http_port)

    def configure_site(self, text: str, name: str = "site") -> None:
        """Write one file of the http context, test it as a person would, reload, and wait for new workers."""
        (self.folder / "nginx" / "sites" / f"{name}.conf").write_text(text)
        self.test_nginx().succeeded()
        before = self.workers()
        self.nginx.send_signal(signal.SIGHUP)
        until(
            lambda: len(self.workers() - before) == WORKERS and not self.workers() & before,
            "new nginx workers",
        )

    def https_site(self, lineage: str, names: Sequence[str], listens: Sequence[str] = ()) -> str:
        """The text of an HTTPS site whose certificate is one line: the include of the live generation."""
        listen = "\n".join(
            f"  listen {place} ssl;" for place in listens or (f"{self.net.web}:{self.net.https_port}",)
        )
        return f"""server {{
{listen}
  server_name {" ".join(names)};
  ssl_protocols TLSv1.2 TLSv1.3;
  include {self.state}/live/{lineage}/nginx.conf;
  location / {{ return 200 "pid $pid\\n"; }}
}}
"""

    def test_nginx(self) -> Completed:
        """`nginx -t` with the whole configuration."""
        argv = [str(self.nginx_binary), "-t", "-c", str(self.nginx_config)]
        return self.machine.run([*argv, "-e", str(self.folder / "nginx" / "error.log")])

    def workers(self) -> frozenset[int]:
        """The pids of nginx's worker processes that are alive now."""
        found = Path(f"/proc/{self.nginx.pid}/task/{self.nginx.pid}/children").read_text().split()
        return frozenset(int(pid) for pid in found)

    @contextlib.contextmanager
    def only_worker(self, pid: int) -> Iterator[None]:
        """Stop the other workers meanwhile: left to itself the kernel gives most connections to a few."""
        others = self.workers() - {pid}
        try:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            until(lambda: all(_is_stopped(other) for other in others), "stopped nginx workers")
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    # -- certbot

    def issue(self, name: str, domains: Sequence[str], key_type: str = "ecdsa") -> Path:
        """`certbot certonly` by http-01 through nginx; the lineage's directory. LabError when that fails."""
        argv = ["certonly", "--webroot", "-w", str(self.www), "--cert-name", name, "--key-type", key_type]
        account = ["--agree-tos", "--register-unsafely-without-email"]
        server = ["--server", f"https://{self.net.acme}:{self.net.acme_port}/dir"]
        wanted = [item for domain in domains for item in ("-d", domain)]
        self._certbot([*argv, *account, *server, *wanted]).succeeded()
        return self.live / name

    def renew(self, name: str, hook: Path | None, *extra: str) -> Completed:
        """`certbot renew --force-renewal` of one lineage, with a deploy hook."""
        argv = ["renew", "--cert-name", name, "--force-renewal", "--no-random-sleep-on-renew"]
        return self._certbot([*argv, *(["--deploy-hook", str(hook)] if hook else []), *extra])

    def _certbot(self, argv: Sequence[str]) -> Completed:
        home = self.folder / "letsencrypt"
        folders = [
            "--config-dir",
            str(home),
            "--work-dir",
            str(home / "work"),
            "--logs-dir",
            str(home / "logs"),
        ]
        trust = {"REQUESTS_CA_BUNDLE": str(self.folder / "api.pem")}
        return self.machine.run([str(self.certbot), *argv, "-n", *folders], trust)

    def leaf(self, lineage: str) -> x509.Certificate:
        """The leaf that the ACME client holds now."""
        return x509.load_pem_x509_certificate((self.live / lineage / "cert.pem").read_bytes())

    # -- the product

    def configure(self, text: str = "", **sections: str) -> None:
        """Write the configuration: what the laboratory needs, then `text`; a section given replaces ours."""
        ours = {
            "fetch": 'allow_addresses = ["127.0.0.0/8"]',
            "nginx": "\n".join(
                (
                    f"binary = {json.dumps(str(self.nginx_binary))}",
                    f"config = {json.dumps(str(self.nginx_config))}",
                    f"resolver = [{json.dumps(self.net.dns)}]",
                    "resolver_timeout = 5",
                )
            ),
        }
        body = "\n".join(f"[{name}]\n{lines}" for name, lines in {**ours, **sections}.items())
        self.config.write_text(f"anchors = {json.dumps(str(self.folder / 'root.pem'))}\n{body}\n{text}\n")

    def command(self, *argv: str) -> tuple[str, ...]:
        """The whole argv of the program under test, with this laboratory's configuration and state."""
        common = ("--config", str(self.config), "--state-dir", str(self.state))
        return (sys.executable, "-m", "stapleguard", *common, *argv)

    def stapleguard(self, *argv: str, timeout: float = 120.0) -> Completed:
        """Run the program inside the laboratory, outside certbot."""
        return self.machine.run(self.command(*argv), {"PYTHONPATH": _source()}, timeout)

    def hook(self, *argv: str) -> Hook:
        """Write a deploy hook that runs the program with `argv` and keeps what certbot would drop."""
        return self.hook_script(shlex.join(["env", f"PYTHONPATH={_source()}", *self.command(*argv)]))

    def hook_script(self, line: str) -> Hook:
        """Write a deploy hook that runs one line of shell and keeps its status and output."""
        self._hooks += 1
        folder = self.folder / "hooks" / str(self._hooks)
        folder.mkdir()
        path = folder / "hook"
        keep = shlex.quote(str(folder))
        path.write_text(
            f"#!/bin/sh\ncd {keep} || exit 99\ndate +%s.%N >began\n"
            f"( {line} ) >stdout 2>stderr\nstatus=$?\ndate +%s.%N >ended\necho $status >status\n"
            "cat stdout; cat stderr >&2; exit $status\n"
        )
        path.chmod(0o755)
        return Hook(path, (line,))

    # -- when it went wrong

    def log(self, name: str) -> str:
        """The last 4000 characters of a daemon's output."""
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace")[-4000:] if file.exists() else ""

    def story(self) -> str:
        """What a person wants to read after a failure."""
        error_log = self.folder / "nginx" / "error.log"
        parts = {name: self.log(name) for name in ("unbound", "pebble", "nginx")}
        parts["nginx error.log"] = error_log.read_text(errors="replace")[-4000:] if error_log.exists() else ""
        return "\n".join(f"=== {name}\n{text}" for name, text in parts.items())


def _is_stopped(pid: int) -> bool:
    # proc(5): the state follows the name, which is in parentheses and may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _source() -> str:
    """PYTHONPATH for the program: the checkout's own source; all else comes with the interpreter."""
    inherited = os.environ.get("PYTHONPATH", "")
    return ":".join(item for item in (str(REPOSITORY / "hook"), inherited) if item)
