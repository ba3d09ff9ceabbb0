"""What `servers.nginx` promises, on two real versions of nginx."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from real_nginx import Authority, Nginx, free_port, until
from stapleguard import host
from stapleguard.finding import Code
from stapleguard.servers import ConfigOutcome, Include, Instance, Stapling, nginx

pytestmark = pytest.mark.server

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces and other users need root")


@pytest.fixture
def running(make_nginx: Callable[..., Nginx], authority: Authority) -> Nginx:
    """One nginx that serves a published generation through one include."""
    made = make_nginx()
    publish(made, authority.generation(made.directory / "state" / "generations" / "site" / "1"))
    made.configure(f"include {made.directory}/state/live/site/nginx.conf;")
    made.start()
    return made


def publish(made: Nginx, generation: Path, include: Include | None = None) -> None:
    (generation / "nginx.conf").write_text(nginx.render(include or Include(str(generation))))
    live = made.directory / "state" / "live"
    live.mkdir(exist_ok=True)
    new = live / ".new"
    new.symlink_to(generation)
    new.rename(live / "site")


def instance_of(made: Nginx) -> Instance:
    [found] = nginx.instances(binary=str(made.binary), config=str(made.config))
    return found


def leaf(made: Nginx) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", made.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="site.test") as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


class TestInstances:
    def test_tells_two_running_ones_apart(
        self, running: Nginx, make_nginx: Callable[..., Nginx], authority: Authority, binary: Path
    ) -> None:
        other = make_nginx("other one")
        generation = authority.generation(other.directory / "files")
        other.configure(
            f'ssl_certificate "{generation}/fullchain.pem"; ssl_certificate_key "{generation}/privkey.pem";'
        )
        other.start()
        for made in (running, other):
            found = instance_of(made)
            assert (found.kind, found.master, found.config) == ("nginx", made.pid, str(made.config))
            assert Path(found.binary) == binary.resolve()
            assert (
                found.version
                in subprocess.run([binary, "-v"], capture_output=True, check=True).stderr.decode()
            )
            assert found.arguments[-2:] == ("-g", "daemon off; timer_resolution 100ms;")
            assert nginx.test(found, 20).outcome is ConfigOutcome.ACCEPTED
            assert nginx.error_log(found) == str(made.log)
        assert {running.pid, other.pid} <= {one.master for one in nginx.instances()}
        assert {running.pid, other.pid} <= {one.master for one in nginx.instances(binary=str(binary))}

    def test_relative_paths_start_where_nginx_was_started(
        self, make_nginx: Callable[..., Nginx], authority: Authority
    ) -> None:
        made = make_nginx()
        authority.generation(made.directory)
        made.configure("ssl_certificate fullchain.pem; ssl_certificate_key privkey.pem;")
        made.start("-p", ".", "-qc", "nginx.conf", "-estart.log")
        found = instance_of(made)
        assert found.master == made.pid
        assert found.arguments[:6] == (
            "-p",
            f"{made.directory}/",
            "-c",
            str(made.config),
            "-e",
            "start.log",
        )
        assert nginx.test(found, 20).outcome is ConfigOutcome.ACCEPTED
        assert (made.directory / "start.log").exists()
        assert nginx.reload(found, 20).status == 0
        made.config.write_text(made.config.read_text().replace(f'error_log "{made.log}" info;', ""))
        assert nginx.error_log(found) == str(made.directory / "start.log")

    def test_without_a_master_it_is_not_running(self, make_nginx: Callable[..., Nginx], binary: Path) -> None:
        made = make_nginx()
        made.configure("")
        [found] = nginx.instances(binary=str(binary), config=str(made.config))
        assert (found.master, found.binary, found.config) == (None, str(binary), str(made.config))
        assert found.arguments[-2:] == ("-c", str(made.config))
        assert nginx.workers(found) == ()
        assert nginx.reload(found, 20).status != 0
        assert nginx.instances(binary=str(made.directory / "nothing"), config=str(made.config)) == ()

    @root_only
    def test_a_title_of_another_user_is_not_believed(self, tmp_path: Path) -> None:
        """The same title from root is: it is the owner that makes the difference."""
        config = tmp_path / "nginx.conf"
        for user, believed in ((65534, False), (0, True)):
            title = [f"nginx: master process /bin/sleep -c {config}", "60"]
            with subprocess.Popen(title, executable="/bin/sleep", user=user) as forger:
                masters = {one.master for one in nginx.instances()}
                forger.kill()
            assert (forger.pid in masters) is believed


class TestSites:
    def test_finds_the_block_that_serves(self, running: Nginx) -> None:
        [site] = nginx.sites(instance_of(running), str(running.directory / "state"))
        generation = running.directory / "state" / "generations" / "site" / "1"
        assert site.names == ("site.test",)
        assert site.listens == (("127.0.0.1", running.port),)
        assert site.certificates == (f"{generation}/fullchain.pem",)
        assert site.guards == ("site",)


class TestWorkers:
    def test_connections_belong_to_them(self, running: Nginx) -> None:
        found = nginx.workers(instance_of(running))
        assert len(found) == running.workers
        with ExitStack() as stack:
            tied = [stack.enter_context(handshake(running)) for _ in range(12)]
            pairs = [(end.getsockname(), end.getpeername()) for end in tied]
            owners = host.owners(pairs, found)
            assert set(owners) <= set(found)
            assert None not in owners
            assert host.owners(pairs, [running.pid]) == [None] * 12, "the master accepts nothing"
        until(lambda: host.owners(pairs, found) == [None] * 12)
        assert {running.pid, *found} <= host.listeners(running.port)
        assert not host.listeners(free_port())

    def test_a_reload_swaps_them_and_the_certificate(self, running: Nginx, authority: Authority) -> None:
        found = instance_of(running)
        before, old = nginx.workers(found), leaf(running)
        publish(running, authority.generation(running.directory / "state" / "generations" / "site" / "2"))
        assert leaf(running) == old
        assert nginx.reload(found, 20).status == 0
        until(lambda: set(before).isdisjoint(now := nginx.workers(found)) and len(now) == 4)
        assert leaf(running) != old

    def test_one_that_shuts_down_is_none(self, running: Nginx) -> None:
        """An open connection keeps an old worker alive; it accepts nothing any more."""
        found = instance_of(running)
        before = nginx.workers(found)
        with handshake(running) as tied:
            tied.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n")
            [owner] = host.owners([(tied.getsockname(), tied.getpeername())], before)
            assert owner is not None
            nginx.reload(found, 20)
            until(lambda: set(before).isdisjoint(nginx.workers(found)))
            assert (still := host.process(owner)) is not None
            assert "shutting down" in still.command

    def test_a_bad_configuration_changes_nothing(self, running: Nginx) -> None:
        found = instance_of(running)
        before, old = nginx.workers(found), leaf(running)
        running.config.write_text(running.config.read_text() + "\nnonsense on;\n")
        tested = nginx.test(found, 20)
        assert tested.outcome is ConfigOutcome.REFUSED
        assert 'unknown directive "nonsense"' in tested.refusals[0]
        assert [one.code for one in nginx.log_findings(tested.text)] == [Code.SERVER_CONFIG_INVALID]
        done = nginx.reload(found, 20)
        assert done.status == 1
        assert nginx.workers(found) == before
        assert leaf(running) == old

    def test_what_cannot_be_run_is_not_refused(self, running: Nginx) -> None:
        gone = replace(instance_of(running), binary="/nonexistent/nginx")
        assert nginx.test(gone, 20).outcome is ConfigOutcome.UNTESTED


def handshake(made: Nginx) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(
        socket.create_connection(("127.0.0.1", made.port), 10), server_hostname="site.test"
    )


class TestRender:
    @pytest.fixture
    def generation(self, make_nginx: Callable[..., Nginx], authority: Authority) -> tuple[Nginx, Path]:
        made = make_nginx("a b; {c} #")
        directory = authority.generation(made.directory / "1", ocsp_url=f"http://127.0.0.1:{free_port()}")
        made.directory.chmod(0o755)
        made.configure(f'include "{directory}/nginx.conf";')
        return made, directory

    @pytest.mark.parametrize("stapling", Stapling)
    def test_is_accepted(self, generation: tuple[Nginx, Path], stapling: Stapling) -> None:
        made, directory = generation
        include = Include(
            str(directory), stapling=stapling, resolvers=("127.0.0.1:5353", "::1"), resolver_timeout=1.5
        )
        (directory / "nginx.conf").write_text(nginx.render(include))
        tested = nginx.test(instance_of(made), 20)
        assert (tested.outcome, tested.refusals, tested.warnings) == (ConfigOutcome.ACCEPTED, (), ())

    def test_two_certificates_are_accepted(
        self, generation: tuple[Nginx, Path], authority: Authority
    ) -> None:
        made, directory = generation
        authority.generation(directory, key=rsa.generate_private_key(65537, 2048), suffix=".rsa")
        (directory / "nginx.conf").write_text(nginx.render(Include(str(directory), suffixes=("", ".rsa"))))
        assert nginx.test(instance_of(made), 20).outcome is ConfigOutcome.ACCEPTED

    def test_a_staple_that_is_none_is_refused(self, generation: tuple[Nginx, Path]) -> None:
        made, directory = generation
        (directory / "nginx.conf").write_text(nginx.render(Include(str(directory), stapling=Stapling.FILE)))
        for damaged in (b"no DER", None):
            (directory / "ocsp.der").unlink()
            if damaged is not None:
                (directory / "ocsp.der").write_bytes(damaged)
            tested = nginx.test(instance_of(made), 20)
            assert tested.outcome is ConfigOutcome.REFUSED
            assert [one.code for one in nginx.log_findings(tested.text)] == [Code.SERVER_STAPLE_FILE_BAD]

    def test_a_staple_file_is_on_the_very_first_handshake(self, generation: tuple[Nginx, Path]) -> None:
        made, directory = generation
        for stapling, expected in (
            (Stapling.FILE, (directory / "ocsp.der").read_bytes()),
            (Stapling.OFF, b""),
        ):
            (directory / "nginx.conf").write_text(nginx.render(Include(str(directory), stapling=stapling)))
            made.start()
            assert staple(made) == expected
            made.stop()


def staple(made: Nginx) -> bytes:
    """Take the OCSP response of one fresh handshake, b'' for none."""
    got: list[bytes] = []
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)

    def receive(_connection: SSL.Connection, data: bytes, _: object) -> bool:
        got.append(data)
        return True

    context.set_ocsp_client_callback(receive)
    with socket.create_connection(("127.0.0.1", made.port), 10) as plain:
        plain.settimeout(None)
        connection = SSL.Connection(context, plain)
        connection.set_connect_state()
        connection.set_tlsext_host_name(b"site.test")
        connection.request_ocsp()
        connection.do_handshake()
    return got[0]


class TestWords:
    def test_the_log_tells_why_there_is_no_staple(
        self, make_nginx: Callable[..., Nginx], authority: Authority
    ) -> None:
        """Fetching is logged at the main level, whatever a server block says."""
        made = make_nginx()
        responder = free_port()
        directory = authority.generation(made.directory / "1", ocsp_url=f"http://127.0.0.1:{responder}")
        (directory / "nginx.conf").write_text(nginx.render(Include(str(directory), stapling=Stapling.FETCH)))
        elsewhere = made.directory / "elsewhere.log"
        made.configure(f"error_log {elsewhere};\ninclude {directory}/nginx.conf;")
        made.start()
        assert staple(made) == b""
        path = nginx.error_log(instance_of(made))
        assert path is not None
        until(lambda: nginx.log_findings(Path(path).read_text()))
        [found] = nginx.log_findings(Path(path).read_text())
        assert (found.code, found.subject) == (Code.NET_REFUSED, f"{directory}/fullchain.pem")
        assert found.evidence["peer"] == f"127.0.0.1:{responder}"
        assert nginx.log_findings(elsewhere.read_text()) == ()

    def test_the_test_warns_of_staples_that_will_never_be(
        self, make_nginx: Callable[..., Nginx], authority: Authority
    ) -> None:
        made = make_nginx()
        directory = made.directory / "1"
        for url, code in (
            (None, Code.STAPLE_NOT_APPLICABLE),
            ("https://127.0.0.1/", Code.SERVER_UNSUPPORTED),
            ("http://none.invalid/", Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD),
        ):
            authority.generation(directory, ocsp_url=url)
            (directory / "nginx.conf").write_text(
                nginx.render(Include(str(directory), stapling=Stapling.FETCH))
            )
            made.configure(f"include {directory}/nginx.conf;")
            tested = nginx.test(instance_of(made), 30)
            assert tested.outcome is ConfigOutcome.ACCEPTED
            assert len(tested.warnings) == 1
            assert [one.code for one in nginx.log_findings(tested.text)] == [code]


@root_only
class TestCandidates:
    def ask(self, made: Nginx, candidate: Path) -> ConfigOutcome:
        live = made.directory / "state" / "live" / "site" / "nginx.conf"
        before = live.read_bytes()
        tested = nginx.test_candidate(instance_of(made), str(candidate / "nginx.conf"), str(live), 20)
        if tested is None:
            pytest.skip("root may not make mount namespaces here")
        assert live.read_bytes() == before
        return tested.outcome

    def test_a_fault_is_seen_before_it_is_published(self, running: Nginx, authority: Authority) -> None:
        candidate = authority.generation(running.directory / "state" / "generations" / "site" / "2")
        (candidate / "nginx.conf").write_text(nginx.render(Include(str(candidate))))
        assert self.ask(running, candidate) is ConfigOutcome.ACCEPTED
        stranger = authority.generation(running.directory / "stranger")
        (candidate / "privkey.pem").write_bytes((stranger / "privkey.pem").read_bytes())
        assert self.ask(running, candidate) is ConfigOutcome.REFUSED
        assert nginx.test(instance_of(running), 20).outcome is ConfigOutcome.ACCEPTED

    def test_nothing_published_yet_means_no_answer(self, running: Nginx) -> None:
        live = running.directory / "state" / "live" / "site" / "nginx.conf"
        candidate = running.directory / "candidate.conf"
        candidate.write_bytes(live.read_bytes())
        live.unlink()
        assert nginx.test_candidate(instance_of(running), str(candidate), str(live), 20) is None
