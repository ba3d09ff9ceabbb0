"""`check` for many endpoints: streamed lines, a plugin line, metrics, a screen; and the exporter, scraped."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from lab.process import until
from lab.tools import REPOSITORY, executable, require
from site_lab import NAME, Site
from stapleguard.rehearsal.webserver import find_nginx, free_port
from stapleguard.report.metrics import FAMILIES

pytestmark = pytest.mark.server


def configured(site: Site, more: str = "") -> None:
    """Give up soon on what will not come: most of these tests have an endpoint that is dead on purpose."""
    site.configure("", more)
    file = site.directory / "c.toml"
    file.write_text(file.read_text().replace("quiet = 1.5", "quiet = 0.2"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all tests of this file: none of them changes it."""
    require("nginx")
    binary = find_nginx()
    assert binary
    made = Site(binary, tmp_path_factory.mktemp("fleet"))
    made.open()
    configured(made)
    yield made
    made.close()


class Silent:
    """Accepts and says nothing until it is let go."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.kept: list[socket.socket] = []
        self.met = threading.Event()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            if self.over.is_set():
                peer.close()
            self.kept.append(peer)
            self.met.set()

    def let_go(self) -> None:
        self.over.set()
        for one in self.kept:
            one.close()

    def close(self) -> None:
        self.let_go()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.close()


def listed(site: Site, *lines: str) -> Path:
    file = site.directory / "endpoints"
    file.write_text("\n".join([f"127.0.0.1:{site.port} {NAME}", *lines]) + "\n")
    return file


def refusing() -> str:
    return f"127.0.0.1:{free_port()}"


# --- NDJSON ----------------------------------------------------------------------------------------------


def test_lines_come_while_a_stalled_peer_keeps_the_last_one_waiting(site: Site, silent: Silent) -> None:
    configured(site, "handshake_timeout = 60\n")
    argv = site.argv("check", "--jsonl", "--timeout", "300", "--file", "-")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # With this set, lines would come at once whether or not the program sends them.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(argv, text=True, env=environment, **pipes) as child:  # type: ignore[call-overload]
        child.stdin.write(f"127.0.0.1:{silent.port} stalled.test\n127.0.0.1:{site.port} {NAME}\n")
        child.stdin.close()
        assert select.select([child.stdout], [], [], 30)[0]  # the silent one holds it for sixty
        first = json.loads(child.stdout.readline())
        assert (first["server_name"], first["verdict"], first["cause"]) == (NAME, "verified", None)
        assert silent.met.wait(10)
        assert child.poll() is None
        assert not select.select([child.stdout], [], [], 0)[0]
        silent.let_go()
        second = json.loads(child.stdout.readline())
        assert (second["server_name"], second["verdict"]) == ("stalled.test", "inconclusive")
        assert child.stdout.read() == ""
        assert re.fullmatch(
            r"stapleguard: 2 endpoints: 1 verified, 1 inconclusive; [0-9.]+ s\n", child.stderr.read()
        )
        assert child.wait(10) == 7
    configured(site)


def test_an_interrupted_run_does_not_wait_for_the_stalled_peer(site: Site, silent: Silent) -> None:
    argv = site.argv("check", "--jsonl", "--timeout", "600", f"127.0.0.1:{silent.port}", "127.0.0.1:1")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert silent.met.wait(20)
        child.send_signal(signal.SIGINT)
        assert child.wait(5) == 130


def test_one_object_holds_them_all_in_the_order_of_the_inventory(site: Site) -> None:
    dead = refusing()
    ended = site.run("check", "--json", "--file", str(listed(site, dead, "smtp://127.0.0.1:1")))
    assert ended.status == 7
    assert [one["verdict"] for one in ended.json["endpoints"]] == ["verified", "inconclusive", "inconclusive"]
    assert (ended.json["verdict"], ended.json["cause"]) == ("inconclusive", "served.unreachable")
    assert [one["port"] for one in ended.json["endpoints"]] == [site.port, int(dead.rpartition(":")[2]), 1]
    assert ended.err == ""


def test_an_inventory_of_ansible_is_read_with_the_name_to_ask_for(site: Site) -> None:
    file = site.directory / "hosts"
    file.write_text(f"[web]\n{NAME} ansible_host=127.0.0.1\n[web:vars]\nstapleguard_port={site.port}\n")
    ended = site.run("check", "--file", str(file), "--json")
    assert ended.status == 0
    [shown] = ended.json["endpoints"]
    assert (shown["host"], shown["address"], shown["server_name"]) == (NAME, "127.0.0.1", NAME)
    file.write_text(f"[web]\nother.site.test ansible_host=127.0.0.1 stapleguard_port={site.port}\n")
    assert site.run("check", "--file", str(file), "--json").json["cause"] == "served.name-mismatch"


def test_a_plain_check_loads_nothing_that_it_does_not_need(site: Site) -> None:
    words = site.argv("check", f"127.0.0.1:{site.port}", "--sni", NAME)
    told = subprocess.run(
        [words[0], "-X", "importtime", *words[1:]], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.stderr.splitlines()}
    assert loaded.isdisjoint({"rich", "prometheus_client", "structlog"})
    assert "OpenSSL" in loaded


# --- the plugin and the metrics --------------------------------------------------------------------------


def test_the_plugin_ends_with_its_own_statuses(site: Site) -> None:
    fine = site.run("check", "--nagios", f"127.0.0.1:{site.port}", "--sni", NAME)
    data = "staple_life=[0-9]+s certificate_life=[0-9]+s;1209600:;259200: endpoints=1;;;0 verified=1;;;0;1"
    assert re.fullmatch(rf"STAPLEGUARD OK - 1 endpoint: 1 verified \| {data}\n", fine.out)
    assert fine.status == 0
    short = site.run("check", "--nagios", "--warning", "1000", f"127.0.0.1:{site.port}", "--sni", NAME)
    assert (short.status, short.out.startswith("STAPLEGUARD WARNING")) == (1, True)


def promtool(text: bytes) -> tuple[int, str]:
    done = subprocess.run(
        [executable("promtool"), "check", "metrics"], input=text, capture_output=True, check=False, timeout=20
    )
    return done.returncode, (done.stdout + done.stderr).decode()


@contextmanager
def daemon(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """In the foreground, as a child of this test, never as a service."""
    with log.open("wb") as output, subprocess.Popen(argv, stdout=output, stderr=output) as child:
        try:
            yield child
        finally:
            child.terminate()
            child.wait(10)


def got(url: str) -> bytes:
    with urlopen(url, timeout=20) as answer:
        return bytes(answer.read())


def answers(url: str) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            got(url)
        except OSError:
            return False
        return True

    return ask


def test_metrics_are_a_file_that_node_exporter_takes(site: Site) -> None:
    require("prometheus-node-exporter", "promtool")
    folder = site.directory / "textfiles"
    folder.mkdir()
    target = folder / "stapleguard.prom"
    target.write_text("old\n")
    ended = site.run("check", "--file", str(listed(site, refusing())), "--metrics", str(target))
    assert ended.status == 7
    assert [one.name for one in folder.iterdir()] == ["stapleguard.prom"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert promtool(target.read_bytes()) == (0, "")
    assert promtool(b"badName_total 1\n")[0] != 0
    listen = f"127.0.0.1:{free_port()}"
    argv = [
        str(executable("prometheus-node-exporter")),
        f"--web.listen-address={listen}",
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={folder}",
    ]
    with daemon(argv, site.directory / "node.log"):
        until(answers(f"http://{listen}/metrics"), "node_exporter")
        page = got(f"http://{listen}/metrics").decode()
        assert "\nnode_textfile_scrape_error 0\n" in page
        assert (
            f'stapleguard_probe_success{{address="127.0.0.1",host="127.0.0.1",key_type="ecdsa",port="{site.port}"'
            in page
        )
        target.write_text("stapleguard_probe_success 1 1700000000000\n")  # a time of its own: refused
        assert "\nnode_textfile_scrape_error 1\n" in got(f"http://{listen}/metrics").decode()


# --- the screen ------------------------------------------------------------------------------------------


def test_the_screen_is_refreshed_and_the_terminal_left_as_it_was(site: Site) -> None:
    leader, follower = pty.openpty()
    before = subprocess.run(["stty", "-g"], stdin=follower, capture_output=True, check=True).stdout
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "30"}
    target = site.directory / "watched.prom"
    argv = site.argv(
        "check", f"127.0.0.1:{site.port}", "--sni", NAME, "--watch", "0.1", "--metrics", str(target)
    )
    with subprocess.Popen(
        argv, stdin=follower, stdout=follower, stderr=subprocess.PIPE, env=environment
    ) as child:
        seen = b""
        while seen.count(b"again in 0.1 s") < 2:
            assert select.select([leader], [], [], 20)[0], seen
            seen += os.read(leader, 65536)
        child.send_signal(signal.SIGINT)
        while b"\x1b[?1049l" not in seen or seen.rfind(b"\x1b[?25h") < seen.rfind(b"\x1b[?25l"):
            assert select.select([leader], [], [], 10)[0], seen
            seen += os.read(leader, 65536)
        assert child.wait(5) == 130
        assert child.stderr is not None
        assert child.stderr.read() == b""
    after = subprocess.run(["stty", "-g"], stdin=follower, capture_output=True, check=True).stdout
    os.close(leader)
    os.close(follower)
    assert after == before
    assert b"verified" in seen
    assert "stapleguard_probe_success{" in target.read_text()
    assert (seen.count(b"\x1b[?1049h"), seen.count(b"\x1b[?1049l")) == (1, 1)
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")


def test_a_bar_is_shown_on_a_terminal_after_a_second_and_leaves_nothing(site: Site, silent: Silent) -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    argv = site.argv("check", "--json", f"127.0.0.1:{silent.port}", refusing())
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=follower, env=environment) as child:
        seen = b""
        while b"/2" not in seen:
            assert select.select([leader], [], [], 20)[0], seen
            seen += os.read(leader, 65536)
        silent.let_go()
        assert child.stdout is not None
        assert len(json.loads(child.stdout.read())["endpoints"]) == 2
        child.wait(5)
    while select.select([leader], [], [], 0.2)[0]:
        seen += os.read(leader, 65536)
    os.close(leader)
    os.close(follower)
    assert seen.endswith(b"\x1b[2K") or seen.rindex(b"\x1b[2K") > seen.rindex(b"/2")


# --- the exporter ----------------------------------------------------------------------------------------

HOW_TO = REPOSITORY / "docs" / "how-to" / "monitoring.md"


def documented(beginning: str) -> str:
    [block] = [
        one
        for one in re.findall(r"```yaml\n(.+?)```", HOW_TO.read_text(), re.DOTALL)
        if one.startswith(beginning)
    ]
    return str(block)


@contextmanager
def exporter(site: Site) -> Iterator[tuple[subprocess.Popen[str], str]]:
    argv = site.argv("exporter", "--listen", "127.0.0.1:0")
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        try:
            said = re.fullmatch(r"stapleguard: listening on http://(.+)/\n", child.stderr.readline())
            assert said is not None
            yield child, said[1]
        finally:
            child.kill()


@contextmanager
def prometheus(site: Site, config: str) -> Iterator[Callable[[str], dict[str, float]]]:
    """Start it with a configuration; the function yielded asks a query and gives values by instance."""
    folder = site.directory / "prometheus"
    folder.mkdir()
    (folder / "prometheus.yml").write_text(config)
    listen = f"127.0.0.1:{free_port()}"
    argv = [
        str(executable("prometheus")),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={listen}",
    ]

    def ask(query: str) -> dict[str, float]:
        told = json.loads(got(f"http://{listen}/api/v1/query?query={quote(query)}"))["data"]["result"]
        return {one["metric"]["instance"]: float(one["value"][1]) for one in told}

    with daemon(argv, site.directory / "prometheus.log"):
        until(answers(f"http://{listen}/-/ready"), "prometheus")
        yield ask


def test_prometheus_scrapes_the_exporter_as_documented(site: Site, silent: Silent) -> None:
    require("prometheus", "promtool")
    dead, stalled, fine = refusing(), f"127.0.0.1:{silent.port}", f"127.0.0.1:{site.port}"
    configured(site, f'[exporter.modules.default]\nserver_name = "{NAME}"\n')
    targets = site.directory / "targets.json"
    targets.write_text(json.dumps([{"targets": [fine, dead, stalled], "labels": {"env": "test"}}]))
    with exporter(site) as (child, listen):
        config = (
            documented("global:").replace("127.0.0.1:9117", listen).replace("5m", "2s").replace("15s", "2s")
        )
        config = config.replace("/etc/prometheus/stapleguard/*.json", str(targets))
        with prometheus(site, config) as ask:
            until(lambda: ask("stapleguard_probe_success").get(fine) == 1, "a good endpoint", 30)
            until(lambda: ask("stapleguard_probe_success").get(dead) == 0, "a dead endpoint", 30)
            until(lambda: ask("stapleguard_probe_success").get(stalled) == 0, "a stalled endpoint", 30)
            # It answered in time, whatever its target did.
            assert ask('up{job="stapleguard"}') == {fine: 1, dead: 1, stalled: 1}
            causes = ask('stapleguard_verdict_info{cause="served.unreachable",env="test"}')
            assert causes.keys() == {dead, stalled}
            assert ask("stapleguard_ocsp_response_next_update_timestamp_seconds - time()")[fine] > 3600
            until(lambda: ask("stapleguard_exporter_build_info").get(listen) == 1, "its own metrics", 30)
        for path in (f"/probe?target={fine}", f"/probe?target={dead}", "/metrics"):
            assert promtool(got(f"http://{listen}{path}")) == (0, "")
        child.send_signal(signal.SIGTERM)
        assert child.wait(5) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""
    configured(site)


def test_the_documented_rules_are_rules(site: Site) -> None:
    require("promtool")
    for name, text, good in (("a", documented("groups:"), 0), ("b", documented("groups:") + "x: 1\n", 1)):
        rules = site.directory / f"{name}.yml"
        rules.write_text(text)
        argv = [executable("promtool"), "check", "rules", rules]
        assert subprocess.run(argv, capture_output=True, check=False).returncode == good
    named = set(re.findall(r"stapleguard_[a-z_]+", documented("groups:")))
    assert named <= FAMILIES.keys()


def test_an_interrupted_exporter_says_so(site: Site) -> None:
    with exporter(site) as (child, _):
        child.send_signal(signal.SIGINT)
        assert child.wait(5) == 130
