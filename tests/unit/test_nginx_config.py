"""nginx's files read, written and its words understood; no nginx is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import crossplane
import pytest
from stapleguard.finding import Code
from stapleguard.model import Severity, StapleguardError
from stapleguard.servers import SERVERS, Include, Site, Stapling, nginx, nginx_config
from stapleguard.servers.nginx_log import log_findings

pytestmark = pytest.mark.unit


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    (tmp_path / "state" / "live").mkdir(parents=True)
    return tmp_path / "conf" / "nginx.conf"


def read(conf: Path, text: str) -> tuple[Site, ...]:
    conf.write_text(text)
    return nginx_config.sites(str(conf), str(conf.parent.parent / "state"))


def listens(conf: Path, *lines: str) -> tuple[tuple[str, int], ...] | None:
    block = " ".join(f"listen {line};" for line in lines)
    found = read(conf, f"http {{ server {{ {block} ssl_certificate /c.pem; }} }}")
    return found[0].listens if found else None


class TestSites:
    def test_reads_a_whole_block(self, conf: Path) -> None:
        text = """
        events {}
        http {
            resolver 192.0.2.1 valid=10s ipv6=off;
            ssl_stapling on;
            server {
                listen 443 ssl default_server;
                listen [::]:443 ssl http2;
                server_name example.org "www.example.org";
                server_name ~^a;
                ssl_certificate tls/rsa.pem; ssl_certificate /abs/ec.pem;
                ssl_trusted_certificate tls/trusted.pem;
                ssl_stapling_file tls/o.der;
            }
        }"""
        here = conf.parent
        assert read(conf, text) == (
            Site(
                names=("example.org", "www.example.org", "~^a"),
                listens=(("127.0.0.1", 443), ("::1", 443)),
                certificates=(f"{here}/tls/rsa.pem", "/abs/ec.pem"),
                variable=False,
                stapling=True,
                staple_file=f"{here}/tls/o.der",
                trusted=f"{here}/tls/trusted.pem",
                resolvers=("192.0.2.1",),
                where=f"{conf}:6",
                guards=(),
                verifies_clients=False,
            ),
        )

    def test_a_server_overrides_and_never_adds(self, conf: Path) -> None:
        text = """http { ssl_certificate h.pem; resolver 192.0.2.1; ssl_stapling on; ssl_verify_client on;
        server { listen 1 ssl; }
        server { listen 2 ssl; ssl_certificate s.pem; resolver off; ssl_stapling off; ssl_verify_client off; }
        }"""
        outer, inner = read(conf, text)
        assert (outer.certificates, inner.certificates) == (
            (f"{conf.parent}/h.pem",),
            (f"{conf.parent}/s.pem",),
        )
        assert (outer.resolvers, inner.resolvers) == (("192.0.2.1",), ())
        assert (outer.stapling, inner.stapling) == (True, False)
        assert (outer.verifies_clients, inner.verifies_clients) == (True, False)

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            (["8443 ssl"], (("127.0.0.1", 8443),)),
            (["*:8443 ssl", "0.0.0.0:8443 ssl"], (("127.0.0.1", 8443),)),
            (["127.0.0.2:443 ssl", "[::1]:444 ssl"], (("127.0.0.2", 443), ("::1", 444))),
            (["[::]:443 ssl ipv6only=off"], (("::1", 443), ("127.0.0.1", 443))),
            (["localhost:443 ssl"], (("localhost", 443),)),
            (["127.0.0.2 ssl", "[::1] ssl"], (("127.0.0.2", 80), ("::1", 80))),
            (["127.0.0.1:7000-7002 ssl"], tuple(("127.0.0.1", port) for port in (7000, 7001, 7002))),
            (["443 quic reuseport", "443 ssl"], (("127.0.0.1", 443),)),
            (["80", "443 ssl"], (("127.0.0.1", 443),)),
            (["unix:/run/x.sock ssl"], ()),
            (["443 ssl proxy_protocol", "444 ssl"], (("127.0.0.1", 444),)),
            (["443 quic"], None),
            (["443", "444 http2"], None),
            ([], None),
        ],
    )
    def test_listens(
        self, conf: Path, lines: list[str], expected: tuple[tuple[str, int], ...] | None
    ) -> None:
        assert listens(conf, *lines) == expected

    def test_ssl_belongs_to_the_socket(self, conf: Path) -> None:
        """TLS is served in the second block too; another port or address is another socket."""
        text = """http { ssl_certificate c.pem;
        server { listen 443 ssl; server_name one; } server { listen *:443; server_name two; }
        server { listen 444; server_name plain; } server { listen 127.0.0.9:443; server_name other; } }"""
        assert [site.names for site in read(conf, text)] == [("one",), ("two",)]

    def test_the_old_ssl_directive(self, conf: Path) -> None:
        text = "http { ssl %s; server { listen 443; ssl_certificate c.pem; } }"
        assert len(read(conf, text % "on")) == 1
        assert read(conf, text % "off") == ()

    def test_computed_certificates_are_noted(self, conf: Path) -> None:
        text = "http { server { listen 1 ssl; ssl_certificate %s; ssl_certificate /fixed.pem; } }"
        for value in ("/certs/$ssl_server_name.pem", "data:$certificate"):
            [site] = read(conf, text % value)
            assert (site.certificates, site.variable) == (("/fixed.pem",), True)

    def test_streams_and_mail_serve_certificates_too(self, conf: Path) -> None:
        block = "server {{ listen {} ssl; ssl_certificate c.pem; }}"
        text = f"stream {{ {block.format(993)} }} mail {{ {block.format(995)} }}"
        assert [site.listens for site in read(conf, text)] == [(("127.0.0.1", 993),), (("127.0.0.1", 995),)]

    def test_a_block_without_certificates_presents_none(self, conf: Path) -> None:
        assert read(conf, "http { server { listen 443 ssl default_server; ssl_reject_handshake on; } }") == ()


class TestIncludes:
    def test_start_at_the_main_file_wherever_they_stand(self, conf: Path) -> None:
        """Quotes, spaces and globs; a file included in two places counts in both."""
        (conf.parent / "sites on").mkdir()
        (conf.parent / "sites on" / "b.conf").write_text(
            "server { listen 2 ssl;\n include 'sites on/tls'; }\n"
            "server { listen 3 ssl; include 'sites on/tls'; }"
        )
        (conf.parent / "sites on" / "a.conf").write_text("server { listen 1 ssl; ssl_certificate a.pem; }")
        (conf.parent / "sites on" / "tls").write_text("ssl_certificate t.pem;")
        found = read(conf, 'http { include "sites on/*.conf"; }')
        assert [(site.certificates[0], site.where) for site in found] == [
            (f"{conf.parent}/a.pem", f"{conf.parent}/sites on/a.conf:1"),
            (f"{conf.parent}/t.pem", f"{conf.parent}/sites on/b.conf:1"),
            (f"{conf.parent}/t.pem", f"{conf.parent}/sites on/b.conf:3"),
        ]

    def test_a_circle_ends(self, conf: Path) -> None:
        (conf.parent / "round").write_text("include round; include nginx.conf;")
        assert len(read(conf, "http { server { listen 1 ssl; ssl_certificate c; include round; } }")) == 1

    def test_ours_is_seen_before_the_first_deploy(self, conf: Path) -> None:
        state = conf.parent.parent / "state"
        block = "http {{ server {{ listen 1 ssl; include {}; }} }}"
        [site] = read(conf, block.format(f"{state}/live/example.org/nginx.conf"))
        assert (site.guards, site.certificates) == (("example.org",), ())
        assert read(conf, block.format(f"{state}/live/example.org/apache.conf")) == ()
        assert read(conf, block.format(f"{state}/other/example.org/nginx.conf")) == ()

    def test_ours_is_seen_through_links_and_globs_and_read(self, conf: Path) -> None:
        state = conf.parent.parent / "state"
        generation = state / "generations" / "example.org" / "1"
        generation.mkdir(parents=True)
        (generation / "nginx.conf").write_text(f"ssl_certificate {generation}/fullchain.pem;")
        (state / "live" / "example.org").symlink_to("../generations/example.org/1")
        (conf.parent / "link").symlink_to(state)
        for path in ("link/live/example.org/nginx.conf", "link/live/*/nginx.conf"):
            [site] = read(conf, f"http {{ server {{ listen 1 ssl; include {path}; }} }}")
            assert (site.guards, site.certificates) == (("example.org",), (f"{generation}/fullchain.pem",))

    def test_another_missing_include_hides_nothing(self, conf: Path) -> None:
        text = "include /none; http { include nothing; server { listen 1 ssl; ssl_certificate c; } }"
        assert len(read(conf, text)) == 1

    def test_no_configuration_is_an_error(self, conf: Path) -> None:
        with pytest.raises(StapleguardError, match="cannot read"):
            nginx_config.sites(str(conf), "/nonexistent")
        with pytest.raises(StapleguardError, match="cannot read"):
            read(conf, "}")

    def test_main_error_log(self, conf: Path) -> None:
        conf.write_text("error_log logs/one info; error_log two; http { error_log three; }")
        assert nginx_config.main_error_log(str(conf)) == "logs/one"
        conf.write_text("http { error_log three; }")
        assert nginx_config.main_error_log(str(conf)) is None


def directives(text: str, tmp_path: Path) -> list[tuple[str, ...]]:
    file = tmp_path / "rendered.conf"
    file.write_text(text)
    parsed = crossplane.parse(str(file), check_ctx=False)["config"][0]["parsed"]
    return [(one["directive"], *one["args"]) for one in parsed]


class TestRender:
    INCLUDE = Include("/state/generations/example.org/1", comments=("example.org, do not edit",))

    def test_the_least(self) -> None:
        text = nginx.render(self.INCLUDE)
        assert text.startswith("# example.org, do not edit\n#")
        assert [line for line in text.splitlines() if not line.startswith("#")] == [
            "ssl_certificate /state/generations/example.org/1/fullchain.pem;",
            "ssl_certificate_key /state/generations/example.org/1/privkey.pem;",
        ]

    def test_fetching(self, tmp_path: Path) -> None:
        include = replace(
            self.INCLUDE,
            suffixes=("", ".ecdsa"),
            stapling=Stapling.FETCH,
            resolvers=("127.0.0.53", "::1", "[::1]:5353", "valid=30s"),
            resolver_timeout=2.5,
        )
        here = self.INCLUDE.directory
        assert directives(nginx.render(include), tmp_path) == [
            ("ssl_certificate", f"{here}/fullchain.pem"),
            ("ssl_certificate_key", f"{here}/privkey.pem"),
            ("ssl_certificate", f"{here}/fullchain.ecdsa.pem"),
            ("ssl_certificate_key", f"{here}/privkey.ecdsa.pem"),
            ("ssl_stapling", "on"),
            ("ssl_stapling_verify", "on"),
            ("ssl_trusted_certificate", f"{here}/trusted.pem"),
            ("resolver", "127.0.0.53", "[::1]", "[::1]:5353", "valid=30s"),
            ("resolver_timeout", "2500ms"),
        ]

    def test_no_anchors_where_clients_would_be_measured_by_them(self) -> None:
        text = nginx.render(replace(self.INCLUDE, stapling=Stapling.FETCH, trusted=None))
        assert "ssl_stapling on;" in text
        assert "trusted" not in text
        assert "verify" not in text

    def test_a_file_asks_nobody(self, tmp_path: Path) -> None:
        include = replace(self.INCLUDE, stapling=Stapling.FILE, resolvers=("127.0.0.53",), resolver_timeout=5)
        assert directives(nginx.render(include), tmp_path)[2:] == [
            ("ssl_stapling", "on"),
            ("ssl_stapling_file", f"{self.INCLUDE.directory}/ocsp.der"),
        ]

    def test_a_file_serves_one_certificate(self) -> None:
        with pytest.raises(StapleguardError, match="one file"):
            nginx.render(replace(self.INCLUDE, suffixes=("", ".ecdsa"), stapling=Stapling.FILE))

    @pytest.mark.parametrize("directory", ["/a b", "/a;b", "/a{b}", "/a#b", "/bücher"])
    def test_odd_paths_survive(self, directory: str, tmp_path: Path) -> None:
        text = nginx.render(replace(self.INCLUDE, directory=directory))
        assert directives(text, tmp_path)[0] == ("ssl_certificate", f"{directory}/fullchain.pem")

    @pytest.mark.parametrize("directory", ['/a"b', "/a'b", "/a$b", "/a\\b", "/a\nb", "/a\x7fb", "relative"])
    def test_paths_that_nginx_would_misread_are_refused(self, directory: str) -> None:
        with pytest.raises(StapleguardError, match="cannot be told"):
            nginx.render(replace(self.INCLUDE, directory=directory))

    def test_nothing_is_smuggled_in(self) -> None:
        fetch = replace(self.INCLUDE, stapling=Stapling.FETCH)
        with pytest.raises(StapleguardError, match="resolver"):
            nginx.render(replace(fetch, resolvers=("127.0.0.1; load_module x",)))
        with pytest.raises(StapleguardError, match="comment"):
            nginx.render(replace(fetch, comments=("fine\nload_module x;",)))


TAIL = 'while requesting certificate status, responder: ocsp.test, peer: 127.0.0.8:80, certificate: "/c.pem"'
STAMP = "2026/11/22 14:03:01 [error] 4711#4711:"
IGNORED = 'nginx: [warn] "ssl_stapling" ignored,'
VERIFY = "OCSP_basic_verify() failed (SSL: error:13800065:OCSP routines::"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f"{STAMP} OCSP response not successful (6: unauthorized) {TAIL}", Code.OCSP_UNAUTHORIZED),
        (f"{STAMP} OCSP response not successful (3: trylater) {TAIL}", Code.OCSP_TRY_LATER),
        (f"{STAMP} OCSP response not successful (2: internalerror) {TAIL}", Code.OCSP_INTERNAL_ERROR),
        (f"{STAMP} OCSP response not successful (1: malformedrequest) {TAIL}", Code.OCSP_MALFORMED_REQUEST),
        (f"{STAMP} OCSP response not successful (5: sigrequired) {TAIL}", Code.OCSP_SIG_REQUIRED),
        (f'{STAMP} certificate status "revoked" in the OCSP response {TAIL}', Code.OCSP_REVOKED),
        (f'{STAMP} certificate status "unknown" in the OCSP response {TAIL}', Code.OCSP_UNKNOWN),
        (f"{STAMP} certificate status not found in the OCSP response {TAIL}", Code.OCSP_WRONG_CERTIFICATE),
        (f"{STAMP} {VERIFY}certificate verify error:Verify error: unable) {TAIL}", Code.SERVER_TRUST_MISSING),
        (f"{STAMP} {VERIFY}signer certificate not found) {TAIL}", Code.SERVER_ISSUER_MISSING),
        (f"{STAMP} {VERIFY}missing ocspsigning usage) {TAIL}", Code.OCSP_UNAUTHORIZED_RESPONDER),
        (f"{STAMP} {VERIFY}signature failure) {TAIL}", Code.OCSP_BAD_SIGNATURE),
        (f"{STAMP} OCSP_check_validity() failed (SSL: x::status expired) {TAIL}", Code.OCSP_EXPIRED),
        (
            f"{STAMP} OCSP_check_validity() failed (SSL: x::status not yet valid) {TAIL}",
            Code.OCSP_NOT_YET_VALID,
        ),
        (f"{STAMP} d2i_OCSP_RESPONSE() failed (SSL: error:068000E0:asn1) {TAIL}", Code.RESPONDER_NOT_OCSP),
        (
            f'{STAMP} OCSP responder sent invalid "Content-Type" header: "text/html" {TAIL}',
            Code.RESPONDER_NOT_OCSP,
        ),
        (f"{STAMP} OCSP responder prematurely closed connection {TAIL}", Code.NET_RESET),
        (f"{STAMP} OCSP responder timed out (110: Connection timed out) {TAIL}", Code.RESPONDER_SLOW),
        (f"{STAMP} recv() failed (111: Connection refused) {TAIL}", Code.NET_REFUSED),
        (f"{STAMP} connect() failed (113: No route to host) {TAIL}", Code.NET_BLOCKED),
        (f"{STAMP} connect() failed (101: Network is unreachable) {TAIL}", Code.NET_BLOCKED),
        (f"{STAMP} recv() failed (104: Connection reset by peer) {TAIL}", Code.NET_RESET),
        (f"{STAMP} ocsp.test could not be resolved (3: Host not found) {TAIL}", Code.DNS_NAME_NOT_FOUND),
        (f"{STAMP} ocsp.test could not be resolved (2: Server failure) {TAIL}", Code.DNS_SERVER_FAILURE),
        (f"{STAMP} ocsp.test could not be resolved (110: Operation timed out) {TAIL}", Code.DNS_TIMEOUT),
        (
            f"{STAMP} ocsp.test could not be resolved (5: Operation refused) {TAIL}",
            Code.SERVER_RESOLVER_BROKEN,
        ),
        (f"{STAMP} no resolver defined to resolve ocsp.test {TAIL}", Code.SERVER_RESOLVER_MISSING),
        (
            f'{IGNORED} issuer certificate not found for certificate "/c.pem"',
            Code.SERVER_ISSUER_MISSING,
        ),
        (
            f'{IGNORED} host not found in OCSP responder "o.test:80" in the certificate "/c.pem"',
            Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD,
        ),
        (
            f'{IGNORED} no OCSP responder URL in the certificate "/c.pem"',
            Code.STAPLE_NOT_APPLICABLE,
        ),
        (
            f'{IGNORED} invalid URL prefix in OCSP responder "https://o" in the certificate "/c.pem"',
            Code.SERVER_UNSUPPORTED,
        ),
        (
            'nginx: [emerg] SSL_CTX_use_PrivateKey("/c.pem") failed (SSL: x::key values mismatch)',
            Code.MATERIAL_KEY_MISMATCH,
        ),
        (
            'nginx: [emerg] cannot load certificate "/c.pem": BIO_new_file() failed (SSL: error:80000002)',
            Code.MATERIAL_UNREADABLE,
        ),
        ('nginx: [emerg] d2i_OCSP_RESPONSE_bio("/c.pem") failed', Code.SERVER_STAPLE_FILE_BAD),
    ],
)
def test_each_complaint_has_its_code(line: str, code: Code) -> None:
    [found] = log_findings(f"unrelated\n{line}\n")
    assert (found.code, found.subject, found.evidence["count"]) == (code, "/c.pem", 1)
    assert found.evidence["line"] == line
    assert not found.message.startswith(("nginx says: 2026", "nginx says: ["))


def test_lines_without_a_certificate_are_about_nginx() -> None:
    resolver = "recv() failed (111: Connection refused) while resolving, resolver: 127.0.0.53:5999"
    [broken, invalid] = log_findings(f'{STAMP} {resolver}\nnginx: [emerg] unknown directive "x" in /n:1')
    assert (broken.code, broken.subject, broken.evidence["peer"]) == (
        Code.SERVER_RESOLVER_BROKEN,
        "nginx",
        "127.0.0.53:5999",
    )
    assert (invalid.code, invalid.subject) == (Code.SERVER_CONFIG_INVALID, "nginx")


def test_other_matters_give_nothing() -> None:
    other = 'open() "/x" failed (2: No such file or directory), client: 127.0.0.1, request: "GET / HTTP/1.1"'
    upstream = "connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1"
    assert (
        log_findings(f"{STAMP} *3 {other}\n{STAMP} *4 {upstream}\n[notice] 1#1: signal 1 (SIGHUP) received")
        == ()
    )


def test_the_same_thing_again_is_counted() -> None:
    line = f"{STAMP} OCSP response not successful (6: unauthorized) {TAIL}"
    other = line.replace("/c.pem", "/d.pem")
    first, second = log_findings(f"{line}\n{other}\n{line}")
    assert (first.subject, first.evidence["count"]) == ("/c.pem", 2)
    assert (second.subject, second.evidence["count"]) == ("/d.pem", 1)
    assert (first.evidence["responder"], first.evidence["peer"]) == ("ocsp.test", "127.0.0.8:80")


def test_the_echo_of_a_refused_connection_is_not_a_second_cause() -> None:
    refused = f"{STAMP} recv() failed (111: Connection refused) {TAIL}"
    echo = f"{STAMP} OCSP responder prematurely closed connection {TAIL}"
    assert [found.code for found in log_findings(f"{refused}\n{echo}")] == [Code.NET_REFUSED]
    assert [found.code for found in log_findings(echo)] == [Code.NET_RESET]


def test_a_missing_resolver_only_warns() -> None:
    [found] = log_findings(f"[warn] 1#1: no resolver defined to resolve ocsp.test {TAIL}")
    assert found.severity is Severity.WARNING


def test_the_table_knows_nginx() -> None:
    assert SERVERS["nginx"].KIND == "nginx"
