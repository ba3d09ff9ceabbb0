"""Three real hosts behind one name, IPv4 and IPv6: one cut off from the responder, one with an old leaf."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from lab.cluster import Cluster, Host, drop, pass_all, with_hosts
from lab.tools import require
from stapleguard.rehearsal.authority import Authority, LeafOptions
from stapleguard.rehearsal.responder import Responder
from stapleguard.rehearsal.webserver import Nginx, find_nginx

pytestmark = pytest.mark.server

NAME = "www.cluster.test"
PORT = 443


class Site:
    """The cluster with nginx on each of its web hosts."""

    def __init__(self, cluster: Cluster, directory: Path, stack: ExitStack) -> None:
        self.cluster = cluster
        self.directory = directory
        self.authority = Authority.create(datetime.now(UTC))
        client = cluster.client
        self.responder = client.do(
            lambda: Responder(self.authority, lambda: datetime.now(UTC), client.ipv4).__enter__()
        )
        stack.callback(self.responder.__exit__, None, None, None)
        root = self.authority.root.public_bytes(serialization.Encoding.PEM)
        (directory / "root.pem").write_bytes(root)
        addresses = [one for host in cluster.web for one in (host.ipv4, host.ipv6)]
        (directory / "hosts").write_text("".join(f"{one} {NAME}\n" for one in addresses))
        self.servers: dict[Host, Nginx] = {}
        binary = find_nginx()
        assert binary is not None
        for host in cluster.web:
            (directory / str(host.number)).mkdir(mode=0o700)
            self.servers[host] = Nginx(binary, directory / str(host.number), 2)
            stack.callback(host.do, self.servers[host].stop)

    def lineage(self, number: int, age: timedelta) -> Path:
        """Issue a certificate that long ago."""
        now = datetime.now(UTC)
        url = f"http://{self.cluster.client.ipv4}:{self.responder.port}/"
        options = LeafOptions(ocsp_url=url)
        issued = self.authority.issue([NAME], now - age, options)
        issued.write_lineage(self.directory / "acme", NAME, number)
        return self.directory / "acme" / "archive" / NAME

    def serve(self, host: Host, version: int) -> None:
        archive = self.directory / "acme" / "archive" / NAME
        server = self.servers[host]
        server.write_config(
            f"server {{ listen {host.ipv4}:{PORT} ssl; listen [{host.ipv6}]:{PORT} ssl;"
            f" listen 127.0.0.1:{PORT} ssl; server_name {NAME};"
            f' ssl_certificate "{archive}/fullchain{version}.pem";'
            f' ssl_certificate_key "{archive}/privkey{version}.pem";'
            " ssl_protocols TLSv1.2 TLSv1.3; ssl_stapling on; return 204; }"
        )
        host.do(lambda: server.start(PORT))

    def check(self, *words: str, config: str = "") -> Any:
        text = f'anchors = "{self.directory}/root.pem"\n[prove]\nassumed_workers = 2\n{config}'
        (self.directory / "c.toml").write_text(text)
        argv = [sys.executable, "-m", "stapleguard", "--config", str(self.directory / "c.toml")]
        argv += ["--state-dir", str(self.directory / "state"), "check", "--json", *words]
        argv = with_hosts(self.directory / "hosts", argv)
        run = lambda: subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)  # noqa: E731
        done = self.cluster.client.do(run)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require("nginx", "ip", "nft", "unshare", "mount-namespace")
    directory = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(3))
        made = Site(cluster, directory, stack)
        made.lineage(1, timedelta(days=20))
        made.lineage(2, timedelta())
        good, old, cut = cluster.web
        drop(cut, made.responder.port)
        for host, version in ((good, 2), (old, 1), (cut, 2)):
            made.serve(host, version)
        yield made


def named(document: Any) -> dict[str, set[str]]:
    """The codes of the findings by the address they are about."""
    found: dict[str, set[str]] = {}
    for one in document["findings"]:
        address = one["subject"].partition(" at ")[2].removeprefix("[").partition(f":{PORT}")[0].rstrip("]")
        found.setdefault(address, set()).add(one["code"])
    return found


def both(host: Host, *codes: str) -> dict[str, set[str]]:
    return {host.ipv4: set(codes), host.ipv6: set(codes)}


def test_each_odd_node_is_named_by_what_is_wrong_with_it(site: Site) -> None:
    good, old, cut = site.cluster.web
    document = site.check(f"{NAME}:{PORT}")
    assert named(document) == {
        **both(old, "served.node-differs"),
        **both(cut, "staple.absent", "served.node-differs"),
    }
    assert (document["verdict"], document["exit"]) == ("degraded", 3)
    assert document["cause"] == "served.node-differs"
    assert len(document["endpoints"]) == 6
    assert {one["address"] for one in document["endpoints"] if one["staple"]} >= {good.ipv4, good.ipv6}
    assert {one["workers"]["method"] for one in document["endpoints"]} == {"statistical"}


def test_a_lineage_with_nodes_knows_which_certificate_is_old(site: Site) -> None:
    _, old, cut = site.cluster.web
    nodes = [f'"{host.ipv4}:{PORT}", "[{host.ipv6}]:{PORT}"' for host in site.cluster.web]
    live = site.directory / "acme" / "live" / NAME
    config = f'[lineage."{NAME}"]\nsources = ["{live}"]\nnodes = [{", ".join(nodes)}]\n'
    document = site.check(NAME, config=config)
    found = named(document)
    assert {**both(old, "served.old-certificate", "served.node-differs")}.items() <= found.items()
    assert found[cut.ipv4] == found[cut.ipv6] == {"staple.absent", "served.node-differs"}
    assert document["exit"] == 3
    assert {one["server_name"] for one in document["endpoints"]} == {NAME}


def test_a_healed_cluster_is_no_news(site: Site) -> None:
    _, old, cut = site.cluster.web
    pass_all(cut)
    site.serve(old, 2)
    site.serve(cut, 2)
    document = site.check(f"{NAME}:{PORT}")
    assert (document["verdict"], document["findings"]) == ("verified", [])
    assert len({one["leaf_sha256"] for one in document["endpoints"]}) == 1
