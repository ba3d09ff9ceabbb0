"""Servers in which TLS begins later: Debian's Postfix, Dovecot, slapd and PostgreSQL, each on loopback.

None of them is installed: they run in a view of the file system to which `.servers` has been added.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stapleguard.model import StartTls
from stapleguard.rehearsal.authority import Issued
from stapleguard.rehearsal.webserver import free_port

from lab.process import LabError, until
from lab.tools import SERVERS

# Ends, with the view, when our end of the pipe is closed and no server is left in there.
_VIEW = """
set -e
mount -t tmpfs -o mode=0755 tmpfs "$2/view"
cd "$2/view"
mkdir upper work root
cp -a "$1/." upper/
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mkdir -p "root$2"
mount --bind "$2" "root$2"
for place in /proc /dev; do mount --rbind "$place" "root$place"; done
# Exim asks for the user that its package would have made.
user="Debian-exim:x:65533:"
grep -q "^${user%%:*}:" root/etc/passwd || echo "${user}65533::/:/usr/sbin/nologin" >>root/etc/passwd
grep -q "^${user%%:*}:" root/etc/group || echo "$user" >>root/etc/group
echo ready
exec cat
"""


@dataclass(frozen=True)
class Place:
    """Where a server lives; `owner` can read its key. Without `certificate` it has no TLS."""

    folder: Path
    owner: str
    certificate: Path | None
    key: Path
    ports: Mapping[StartTls, int]

    def owned(self, name: str) -> Path:
        """A new directory of the owner's."""
        made = self.folder / name
        made.mkdir(mode=0o700)
        shutil.chown(made, self.owner)
        return made


def _postfix(place: Place) -> list[str]:
    queue = place.folder / "queue"
    for name in ("pid", "public", "private"):
        (queue / name).mkdir(parents=True)
        if name != "pid":
            shutil.chown(queue / name, place.owner)
    secure = (
        f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {place.key}, {place.certificate}\n"
        if place.certificate
        else "smtpd_tls_security_level = none\n"
    )
    (place.folder / "main.cf").write_text(
        "compatibility_level = 3.6\nmyhostname = mail.test\nmynetworks = 127.0.0.0/8\n"
        f"mail_owner = {place.owner}\nsetgid_group = games\ndefault_privs = nobody\n"
        f"queue_directory = {queue}\ndata_directory = {place.owned('data')}\n{secure}"
        "local_recipient_maps =\nalias_maps =\nmaillog_file = /dev/stdout\n"
    )
    (place.folder / "master.cf").write_text(
        f"127.0.0.1:{place.ports[StartTls.SMTP]} inet n - n - - smtpd\n"
        "tlsmgr unix - - n 1000? 1 tlsmgr\nanvil unix - - n - 1 anvil\n"
        "postlog unix-dgram n - n - 1 postlogd\n"
    )
    return ["/usr/lib/postfix/sbin/master", "-c", str(place.folder), "-d"]


def _dovecot(place: Place) -> list[str]:
    secure = (
        f"ssl = yes\nssl_cert = <{place.certificate}\nssl_key = <{place.key}\n"
        if place.certificate
        else "ssl = no\n"
    )
    listeners = "".join(
        f"service {name}-login {{\n chroot =\n"
        f" inet_listener {name} {{\n port = {place.ports[protocol]}\n }}\n"
        f" inet_listener {name}s {{\n port = 0\n }}\n}}\n"
        for name, protocol in (("imap", StartTls.IMAP), ("pop3", StartTls.POP3))
    )
    file = place.folder / "dovecot.conf"
    file.write_text(
        f"default_internal_user = {place.owner}\ndefault_internal_group = {place.owner}\n"
        "default_login_user = nobody\n"
        f"protocols = imap pop3\nlisten = 127.0.0.1\nbase_dir = {place.folder}/run\nlog_path = /dev/stderr\n"
        f"{secure}{listeners}passdb {{\n driver = static\n args = password=x\n}}\n"
        "userdb {\n driver = static\n args = uid=nobody gid=nogroup home=/nonexistent\n}\n"
    )
    return ["/usr/sbin/dovecot", "-F", "-c", str(file)]


def _slapd(place: Place) -> list[str]:
    file = place.folder / "slapd.conf"
    secure = (
        f"TLSCertificateFile {place.certificate}\nTLSCertificateKeyFile {place.key}\n"
        if place.certificate
        else ""
    )
    file.write_text(f"pidfile {place.owned('run')}/pid\n{secure}")
    address = f"ldap://127.0.0.1:{place.ports[StartTls.LDAP]}"
    return _as(place.owner, "/usr/sbin/slapd", "-h", address, "-f", str(file), "-d", "0")


def _postgres(place: Place) -> list[str]:
    data = place.owned("data")
    settings = [f"port={place.ports[StartTls.POSTGRES]}", "listen_addresses=127.0.0.1", "fsync=off"]
    settings.append("unix_socket_directories=")
    if place.certificate:
        settings += ["ssl=on", f"ssl_cert_file={place.certificate}", f"ssl_key_file={place.key}"]
    words = [word for one in settings for word in ("-c", one)]
    script = (
        "cd /usr/lib/postgresql/*/bin && "
        './initdb --no-sync --auth=trust --username=lab --locale=C.UTF-8 "$1" && exec ./postgres -D "$@"'
    )
    return _as(place.owner, "sh", "-c", script, "sh", str(data), *words)


def _as(owner: str, *argv: str) -> list[str]:
    who = pwd.getpwnam(owner)
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--init-groups", *argv]


@dataclass(frozen=True)
class _Server:
    name: str
    owner: str
    argv: Callable[[Place], list[str]]
    protocols: tuple[StartTls, ...]
    stop: signal.Signals = signal.SIGTERM


_SERVERS = (
    _Server("postfix", "daemon", _postfix, (StartTls.SMTP,)),
    # Asked to end it takes a second for its children; they go when it has gone.
    _Server("dovecot", "daemon", _dovecot, (StartTls.IMAP, StartTls.POP3), signal.SIGKILL),
    _Server("slapd", "nobody", _slapd, (StartTls.LDAP,)),
    # So it waits for nobody, and still leaves no shared memory.
    _Server("postgres", "nobody", _postgres, (StartTls.POSTGRES,), signal.SIGQUIT),
)


@contextmanager
def mail_servers(issued: Issued | None) -> Iterator[Mapping[StartTls, int]]:
    """Run all of them with one certificate, or without TLS; where each protocol is spoken."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stapleguard-mail-")))
        folder.chmod(0o755)  # each server's user has to get to its own
        enter = view(stack, folder)
        running = [_start(stack, folder, server, issued, enter) for server in _SERVERS]
        for log, child, ports in running:
            for port in ports.values():
                _wait(child, port, log)
        yield {protocol: port for _, _, ports in running for protocol, port in ports.items()}


def view(stack: ExitStack, folder: Path) -> list[str]:
    """Make the view, in which `folder` may be written to; return the argv that runs a command in there."""
    (folder / "view").mkdir()
    argv = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        _VIEW,
        "sh",
        str(SERVERS),
        str(folder),
    ]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stack.callback(holder.communicate, timeout=10)
    assert holder.stdout is not None
    if holder.stdout.readline() != b"ready\n":
        raise LabError("no view of the unpacked servers")
    return ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "chroot", str(folder / "view/root")]


def _start(
    stack: ExitStack, folder: Path, server: _Server, issued: Issued | None, enter: list[str]
) -> tuple[Path, subprocess.Popen[bytes], Mapping[StartTls, int]]:
    ports = {one: free_port() for one in server.protocols}
    place = _place(folder / server.name, server.owner, issued, ports)
    log = folder / f"{server.name}.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [*enter, *server.argv(place)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            start_new_session=True,
        )
    stack.callback(_kill, child)
    stack.callback(child.send_signal, server.stop)
    return log, child, ports


def _place(folder: Path, owner: str, issued: Issued | None, ports: Mapping[StartTls, int]) -> Place:
    folder.mkdir(mode=0o755)
    certificate, key = folder / "fullchain.pem", folder / "key.pem"
    if issued is not None:
        certificate.write_bytes(issued.fullchain_pem)
        key.touch(mode=0o600)
        key.write_bytes(issued.key_pem)
        shutil.chown(key, owner)
    return Place(folder, owner, certificate if issued is not None else None, key, ports)


def _wait(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    def accepts() -> bool:
        if child.poll() is not None:
            raise LabError(f"it ended with {child.returncode}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
        return False

    try:
        until(accepts, f"{log.stem} on its port")
    except LabError as error:
        raise LabError(f"{error}\n{log.read_text()}") from error


def _kill(child: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        child.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
