"""Programs that end well and badly, the kernel's tables, and a socket that speaks journald's protocol."""

from __future__ import annotations

import array
import fcntl
import multiprocessing
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from stapleguard import host
from stapleguard.host import Delivery, proc
from stapleguard.model import StapleguardError

pytestmark = pytest.mark.unit

PYTHON = [sys.executable, "-I", "-c"]


class TestRun:
    def test_tells_status_and_both_outputs(self) -> None:
        done = host.run([*PYTHON, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"], 20)
        assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")
        assert 0 < done.seconds < 20

    def test_a_missing_program_is_127_and_one_that_is_none_is_126(self, tmp_path: Path) -> None:
        assert host.run([str(tmp_path / "nothing")], 5).status == 127
        text = tmp_path / "text"
        text.write_text("no program\n")
        assert host.run([str(text)], 5).status == 126
        assert host.run(["/bin/true\0"], 5).status == 126

    def test_a_signal_is_128_and_its_number(self) -> None:
        assert (
            host.run([*PYTHON, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], 20).status == 137
        )

    def test_time_over_kills_the_whole_group(self, tmp_path: Path) -> None:
        """The grandchild holds one end of a pipe of ours: it reads as closed only when it is dead."""
        fifo = tmp_path / "alive"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        done = host.run(["sh", "-c", f"sleep 60 >{fifo} & echo begun; sleep 60"], 0.4)
        assert (done.status, done.stdout, done.stderr) == (-1, "begun\n", "timed out after 0.4 s")
        assert done.seconds < 10
        assert select.select([reader], [], [], 10)[0], "the grandchild lives"
        assert os.read(reader, 1) == b""
        os.close(reader)

    def test_a_daemon_left_behind_is_neither_awaited_nor_killed(self) -> None:
        done = host.run(["sh", "-c", "sleep 30 & echo $!"], 20)
        try:
            assert done.status == 0
            assert done.seconds < 10
            assert (found := host.process(int(done.stdout))) is not None
            assert "sleep" in found.command
        finally:
            os.kill(int(done.stdout), signal.SIGKILL)

    def test_an_interruption_leaves_nothing_running(self) -> None:
        """As a signal handler does it: an exception out of the middle."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(KeyboardInterrupt):
                host.run(["sleep", "61.25"], 30)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert not [one for one in host.children(os.getpid()) if "61.25" in one.command]

    def test_output_is_bounded_and_not_always_text(self) -> None:
        done = host.run([*PYTHON, "import sys; sys.stdout.buffer.write(b'\\xff' + b'x' * 3_000_000)"], 20)
        assert done.status == 0
        assert len(done.stdout) == 1 << 20
        assert done.stdout.startswith("�x")

    def test_the_environment_is_clean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        monkeypatch.setenv("SECRET", "hidden")
        monkeypatch.setenv("NSS_WRAPPER_HOSTS", "/nonexistent/hosts")
        lines = host.run(["env"], 20, {"ADDED": "yes"}).stdout.splitlines()
        assert {f"PATH={host.PATH}", "LANG=C.UTF-8", "NSS_WRAPPER_HOSTS=/nonexistent/hosts", "ADDED=yes"} <= {
            *lines
        }
        assert not any(line.startswith("SECRET=") for line in lines)

    def test_nothing_can_be_asked_of_a_person(self) -> None:
        assert host.run(["cat"], 20).stdout == ""
        assert host.run(["sh", "-c", ": </dev/tty"], 20).status != 0


class TestWithBind:
    def test_only_the_program_sees_it(self, tmp_path: Path) -> None:
        source, target = tmp_path / "candidate", tmp_path / "with space"
        source.write_text("candidate")
        target.write_text("live")
        done = host.with_bind(str(source), str(target), ["cat", str(target)], 20)
        if done is None:
            pytest.skip("mount namespaces need root with CAP_SYS_ADMIN")
        assert (done.status, done.stdout, done.argv) == (0, "candidate", ("cat", str(target)))
        assert target.read_text() == "live"
        assert host.with_bind(str(source), str(target), ["false"], 20).status == 1  # type: ignore[union-attr]  # seen above

    def test_a_file_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "candidate").write_text("")
        if os.geteuid() != 0:
            pytest.skip("mount namespaces need root")
        with pytest.raises(StapleguardError, match="No such file"):
            host.with_bind(str(tmp_path / "candidate"), str(tmp_path / "none"), ["true"], 20)

    def test_without_the_right_there_is_no_answer(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        ask = (
            "import sys; from stapleguard import host;"
            "print(host.with_bind(sys.argv[1], sys.argv[1], ['true'], 20))"
        )
        argv = [sys.executable, "-c", ask, str(tmp_path / "file")]
        if os.geteuid() == 0:
            argv = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *argv]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        assert host.run(argv, 20, path).stdout == "None\n"


class TestProcesses:
    def test_a_fork_is_told_from_a_program_that_was_started(self) -> None:
        waits = multiprocessing.get_context("fork").Event()
        forked = multiprocessing.get_context("fork").Process(target=waits.wait, args=(30,))
        forked.start()
        try:
            with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as started:
                assert forked.pid is not None
                assert host.is_fork(forked.pid, os.getpid())
                assert not host.is_fork(started.pid, os.getpid())
                assert started.stdin is not None
                started.stdin.close()
        finally:
            waits.set()
            forked.join()
        assert host.is_fork(forked.pid, os.getpid())  # gone: nobody's master

    def test_where_a_process_writes_its_errors(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with log.open("wb") as errors:
            child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stderr=errors)
        try:
            assert host.output_of(child.pid) == str(log)
        finally:
            child.communicate()
        assert host.output_of(child.pid) is None

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can start somebody else's process")
    def test_what_the_user_of_a_process_may_not_read(self) -> None:
        with tempfile.TemporaryDirectory() as made:
            place, path = Path(made), Path(made, "file")
            path.write_text("x")
            child = subprocess.Popen(
                ["/bin/cat"], stdin=subprocess.PIPE, user=65534, group=65534, extra_groups=()
            )
            try:
                for directory, file, said in (
                    (0o755, 0o644, ""),
                    (0o755, 0o600, "uid"),
                    (0o700, 0o644, "uid"),
                ):
                    place.chmod(directory)
                    path.chmod(file)
                    assert host.denied(child.pid, made + "/file") == (said and "uid 65534")
                    assert host.denied(os.getpid(), made + "/file") == ""
            finally:
                child.communicate()
            assert host.denied(child.pid, made + "/file") == ""  # gone

    def test_somebody_listens_or_nobody(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
            assert not host.listened(port)
            listener.listen()
            assert host.listened(port)

    def test_sees_itself_and_its_child(self) -> None:
        pipe = subprocess.PIPE
        with subprocess.Popen(
            ["a title of words", "-"], executable="/bin/cat", stdin=pipe, stdout=pipe, bufsize=0
        ) as child:
            try:
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdin.write(b"x")
                assert child.stdout.read(1) == b"x"  # it runs: until then its title may be empty
                mine = host.process(os.getpid())
                assert mine is not None
                assert mine.parent == os.getppid()
                assert mine.uid == os.geteuid()
                [found] = [one for one in host.children(os.getpid()) if one.pid == child.pid]
                assert (found.command, found.argv) == ("a title of words -", ("a title of words", "-"))
                assert found.executable == str(Path("/bin/cat").resolve())
                assert found in host.processes()
                assert host.shares_root(child.pid)
                assert host.working_directory(child.pid) == str(Path.cwd())
            finally:
                child.kill()
        assert host.process(child.pid) is None

    @pytest.mark.parametrize(
        ("groups", "unit"),
        [
            ("0::/system.slice/nginx.service", "nginx.service"),
            ("0::/system.slice/system-nginx.slice/nginx@a\\x2db.service", "nginx@a\\x2db.service"),
            ("12:cpu:/x.service\n1:name=systemd:/system.slice/nginx.service\n", "nginx.service"),
            ("0::/system.slice/nginx.service/inner", "nginx.service"),
            ("0::/user.slice/user-0.slice/session-1.scope", None),
            ("0::/user.slice/user-7.slice/user@7.service/app.slice/nginx.service", None),
            ("0::/", None),
            ("", None),
        ],
    )
    def test_the_unit_is_in_the_control_group(self, groups: str, unit: str | None) -> None:
        assert proc.service_in(groups) == unit

    def test_no_unit_without_systemd(self) -> None:
        if Path("/run/systemd/system").is_dir():
            pytest.skip("systemd runs here")
        assert host.unit_of(os.getpid()) is None


@pytest.mark.parametrize(
    ("family", "bound", "used"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
)
def test_finds_listeners_and_the_owners_of_connections(
    family: socket.AddressFamily, bound: str, used: str
) -> None:
    with socket.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            server.bind((bound, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        port = server.getsockname()[1]
        assert host.listeners(port) == frozenset()
        server.listen()
        assert host.listeners(port) == {os.getpid()}
        with (
            socket.create_connection((used, port)) as client,
            socket.create_connection((used, port)) as other,
        ):
            pairs = [(end.getsockname()[:2], end.getpeername()[:2]) for end in (client, other)]
            assert host.owners(pairs, [os.getpid()]) == [None, None], "not accepted yet"
            with server.accept()[0]:
                assert host.owners(pairs, [os.getpid()]) == [os.getpid(), None]
                assert host.owners(pairs, []) == [None, None]
                assert host.owners(pairs, [1]) == [None, None]
                assert host.owners([], [os.getpid()]) == []


class TestJournal:
    def test_one_datagram(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
            journald.bind(path)
            fields: dict[str, str | bytes | list[str]] = {"MESSAGE": "done", "NAMES": ["a", "b"]}
            fields |= {"TRACE": "one\ntwo", "RAW": b"\xff"}
            assert host.journal_send(fields, path) is Delivery.SENT
            assert journald.recv(4096) == (
                b"MESSAGE=done\nNAMES=a\nNAMES=b\nTRACE\n" + struct.pack("<Q", 7) + b"one\ntwo\nRAW=\xff\n"
            )

    def test_a_large_entry_comes_as_a_sealed_file(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
            journald.bind(path)
            assert host.journal_send({"MESSAGE": "x" * 5_000_000}, path) is Delivery.SENT
            empty, [(_, _, rights)], _, _ = journald.recvmsg(16, socket.CMSG_SPACE(4))
            assert empty == b""
            with os.fdopen(array.array("i", rights)[0], "rb") as file:
                file.seek(0)
                seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
                assert fcntl.fcntl(file, fcntl.F_GET_SEALS) == seals
                assert file.read() == b"MESSAGE=" + b"x" * 5_000_000 + b"\n"

    def test_nobody_there(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        assert host.journal_send({"MESSAGE": "m"}, path) is Delivery.NO_SOCKET
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
            journald.bind(path)
        assert host.journal_send({"MESSAGE": "m"}, path) is Delivery.FAILED

    @pytest.mark.parametrize("name", ["", "_PID", "lower", "1ST", "A" * 65, "A=B", "A\n"])
    def test_refuses_names_that_journald_would_drop_or_misread(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not a journal field name"):
            host.journal_send({name: "v"}, str(tmp_path / "socket"))


def test_the_clock_tells_both_kinds_of_time() -> None:
    clock = host.SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.now().utcoffset() == timedelta(0)
    before = clock.monotonic()
    clock.wait(0.01)
    clock.wait(-1)
    assert 0.01 <= clock.monotonic() - before < 5
    assert abs(clock.now().timestamp() - time.time()) < 5
