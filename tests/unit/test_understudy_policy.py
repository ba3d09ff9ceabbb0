"""What an understudy showed and what becomes of the generation; and what its configuration is made of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import crossplane
import pytest
from stapleguard.diagnosis import NEAR_EXPIRY, Previous, may_pass
from stapleguard.diagnosis.understudy import (
    Course,
    Showing,
    Standing,
    beside,
    choose,
    may_mend_itself,
    only_here,
)
from stapleguard.finding import Code, Finding, find
from stapleguard.model import KeyType, LeafFacts, Severity
from stapleguard.servers import (
    Account,
    Instance,
    Site,
    Stage,
    apache_config,
    apache_understudy,
    haproxy_config,
    haproxy_understudy,
    nginx_config,
    nginx_understudy,
)

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LEAF = LeafFacts(
    "aa", 1, "CN=a.test", "CN=ca", ("a.test",), NOW, NOW + timedelta(days=9), KeyType.ECDSA, (), (), False
)
WELL = Standing(Previous(LEAF, served_before=True), served=True, stapled=True)
HOLDING = (
    Code.SERVER_RESOLVER_BROKEN,
    Code.SERVER_BLOCKED_ONLY,
    Code.SERVER_STAPLING_DISABLED,
    Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD,
    Code.SERVER_VARIABLE_CERTIFICATE,
    Code.SERVER_UNSUPPORTED,
    Code.OCSP_EXPIRED,
    Code.OCSP_WRONG_CERTIFICATE,
    Code.OCSP_BAD_SIGNATURE,
    Code.OCSP_UNAUTHORIZED_RESPONDER,
)
UNFIT = (
    Code.SERVER_ISSUER_MISSING,
    Code.SERVER_TRUST_MISSING,
    Code.SERVER_STAPLE_FILE_BAD,
    Code.SERVER_CONFIG_INVALID,
    Code.MATERIAL_KEY_MISMATCH,
    Code.SERVED_CHAIN_INCOMPLETE,
    Code.SERVED_TLS_FAILURE,
)
PASSING = tuple(code for code in Code if may_pass(code))


def critical(code: Code) -> Finding:
    return find(code, "x", "it is so", severity=Severity.CRITICAL)


def chosen(showing: Showing, code: Code | None, standing: Standing = WELL) -> Course:
    return choose(showing, [critical(code)] if code else [], standing, NOW)


class TestChoose:
    @pytest.mark.parametrize("showing", [Showing.GOOD, Showing.NOTHING])
    def test_what_worked_or_could_not_play_holds_nothing_up(self, showing: Showing) -> None:
        assert chosen(showing, Code.SERVER_RESOLVER_BROKEN) is Course.PUBLISH

    @pytest.mark.parametrize("code", HOLDING)
    def test_what_waiting_does_not_mend_is_held(self, code: Code) -> None:
        assert chosen(Showing.BARE, code) is Course.HOLD

    @pytest.mark.parametrize("code", UNFIT)
    def test_what_is_wrong_with_the_files_is_refused(self, code: Code) -> None:
        assert chosen(Showing.BARE, code) is Course.REFUSE

    @pytest.mark.parametrize("code", PASSING)
    def test_what_may_pass_is_published(self, code: Code) -> None:
        assert chosen(Showing.BARE, code) is Course.PUBLISH

    def test_without_a_known_cause_it_is_published(self) -> None:
        assert chosen(Showing.BARE, None) is Course.PUBLISH
        warned = [find(Code.STAPLE_ABSENT, "x", "none", severity=Severity.WARNING)]
        assert choose(Showing.BARE, warned, WELL, NOW) is Course.PUBLISH

    def test_what_clients_refuse_is_held_whatever_its_cause(self) -> None:
        assert chosen(Showing.BAD, Code.RESPONDER_SLOW) is Course.HOLD  # Apache's handshakes wait for it
        assert chosen(Showing.BAD, Code.SERVER_SERVES_BAD_STAPLE) is Course.HOLD
        assert chosen(Showing.BAD, Code.OCSP_UNKNOWN) is Course.HOLD

    @pytest.mark.parametrize(
        "standing",
        [
            Standing(None, served=True, stapled=True),
            replace(WELL, served=False),
            replace(WELL, stapled=False),
            replace(WELL, previous=replace(WELL.previous, faults=(critical(Code.SERVER_STAPLE_FILE_BAD),))),  # type: ignore[type-var]
            Standing(
                Previous(
                    replace(LEAF, not_after=NOW + NEAR_EXPIRY - timedelta(seconds=1)), served_before=True
                ),
                served=True,
                stapled=True,
            ),
        ],
        ids=["none", "not served", "bare itself", "unfit", "near its end"],
    )
    def test_nothing_is_held_where_the_previous_one_is_no_better(self, standing: Standing) -> None:
        assert chosen(Showing.BARE, Code.SERVER_RESOLVER_BROKEN, standing) is Course.PUBLISH

    def test_a_broken_handshake_is_refused_also_where_the_previous_one_is_bare(self) -> None:
        bare = replace(WELL, stapled=False)
        assert chosen(Showing.BAD, Code.SERVED_TLS_FAILURE, bare) is Course.REFUSE
        assert chosen(Showing.BAD, Code.SERVER_SERVES_BAD_STAPLE, bare) is Course.HOLD

    def test_a_day_of_life_is_enough(self) -> None:
        leaf = replace(LEAF, not_after=NOW + NEAR_EXPIRY)
        standing = Standing(Previous(leaf, served_before=True), served=True, stapled=True)
        assert chosen(Showing.BARE, Code.SERVER_RESOLVER_BROKEN, standing) is Course.HOLD


class TestWords:
    @pytest.mark.parametrize(
        ("code", "told"),
        [
            (Code.DNS_NAME_NOT_FOUND, Code.SERVER_RESOLVER_BROKEN),
            (Code.NET_REFUSED, Code.SERVER_BLOCKED_ONLY),
            (Code.RESPONDER_SLOW, Code.SERVER_BLOCKED_ONLY),
            (Code.SERVER_TRUST_MISSING, Code.SERVER_TRUST_MISSING),
            (Code.OCSP_BAD_SIGNATURE, Code.OCSP_BAD_SIGNATURE),
        ],
    )
    def test_what_only_the_server_met_is_the_servers(self, code: Code, told: Code) -> None:
        assert [one.code for one in only_here([critical(code)])] == [told]

    def test_the_codes_of_a_staple_stand_beside_the_fact_that_it_is_served(self) -> None:
        both = beside([critical(Code.SERVER_SERVES_BAD_STAPLE), critical(Code.OCSP_UNKNOWN)])
        assert [one.severity for one in both] == [Severity.CRITICAL, Severity.WARNING]
        assert [one.severity for one in beside([critical(Code.OCSP_UNKNOWN)])] == [Severity.CRITICAL]

    @pytest.mark.parametrize(("code", "may"), [(Code.OCSP_UNKNOWN, True), (Code.OCSP_BAD_SIGNATURE, False)])
    def test_only_a_lagging_responder_mends_what_is_held(self, code: Code, *, may: bool) -> None:
        assert may_mend_itself([critical(Code.SERVER_SERVES_BAD_STAPLE), critical(code)]) is may
        assert not may_mend_itself([critical(Code.SERVER_RESOLVER_BROKEN)])
        assert may_mend_itself([critical(Code.RESPONDER_SLOW)])
        assert not may_mend_itself([critical(Code.SERVER_SERVES_BAD_STAPLE)])


# --- what it is made of ----------------------------------------------------------------------------------


class Made:
    """A state directory with a live generation and a candidate, and a place to play in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.live = root / "state" / "live" / "a.test"
        self.live.parent.mkdir(parents=True)
        self.old, self.new = (root / "state" / "generations" / "a.test" / one for one in ("old", "new"))
        self.work = root / "work"
        for one in (self.old, self.new, self.work):
            one.mkdir(parents=True)
        self.live.symlink_to(self.old)

    def stage(self, sites: tuple[Site, ...], account: Account = Account.SERVER) -> Stage:
        ports = tuple(range(4001, 4001 + len(sites)))
        return Stage(str(self.work), str(self.new), str(self.live), sites, ports, account)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


NGINX = """
user www-data; worker_processes 8; load_module modules/x.so;
events { worker_connections 9; }
http {
  resolver 192.0.2.53 valid=5s; ssl_dhparam dh.pem; access_log /var/log/a.log; lua_thing on;
  server { listen 443 ssl; server_name a.test; ssl_protocols TLSv1.3; include LIVE/nginx.conf;
           ssl_stapling_verify on; location / { proxy_pass http://app; } }
  server { listen 444 ssl; server_name b.test; ssl_certificate other.pem; }
}
"""


class TestNginx:
    def composed(self, made: Made, account: Account = Account.SERVER) -> tuple[list[str], dict[str, str]]:
        (made.old / "nginx.conf").write_text("ssl_certificate /old/fullchain.pem; ssl_stapling on;")
        main = made.root / "main.conf"
        main.write_text(NGINX.replace("LIVE", str(made.live)))
        sites = tuple(one for one in nginx_config.sites(str(main), str(made.root / "state")) if one.guards)
        instance = Instance("nginx", "/bin/nginx", str(main), (), "1.22.1", 1)
        told = nginx_understudy.compose(instance, made.stage(sites, account), frozenset({"scgi"}))
        assert told is not None
        assert told.argv[0] == "/bin/nginx"
        (made.work / "nginx.conf").write_text(told.files["nginx.conf"])
        assert not crossplane.parse(str(made.work / "nginx.conf"), single=True)["errors"]
        return told.files["nginx.conf"].splitlines(), dict(told.origins)

    def test_it_has_what_stapling_depends_on_and_nothing_else(self, made: Made) -> None:
        lines, origins = self.composed(made)
        server = lines.index("server {")
        wanted = [
            "listen 127.0.0.1:4001 ssl;",
            f"include {made.new}/nginx.conf;",
            "ssl_protocols TLSv1.3;",
            "ssl_stapling_verify on;",
            "}",
        ]
        assert lines[server + 1 : server + 1 + len(wanted)] == wanted
        assert {"user www-data;", "resolver 192.0.2.53 valid=5s;", f"ssl_dhparam {made.root}/dh.pem;"} <= {
            *lines
        }
        text = "\n".join(lines)
        for absent in ("/old/", "other.pem", "proxy_pass", "lua", "load_module", "/var/log", "scgi", "live/"):
            assert absent not in text
        where = lines.index("ssl_stapling_verify on;") + 1
        assert origins[f"{made.work}/nginx.conf:{where}"] == f"{made.root}/main.conf:7"

    def test_as_our_own_user_there_is_no_worker_that_would_have_to_change(self, made: Made) -> None:
        lines, _ = self.composed(made, Account.OURS)
        assert {"user root;", "master_process off;"} <= {*lines}
        assert "user www-data;" not in lines


APACHE = """
ServerRoot "/srv"
LoadModule ssl_module modules/mod_ssl.so
LoadModule php_module modules/mod_php.so
LoadModule mpm_event_module modules/mod_mpm_event.so
User www-data
CustomLog /var/log/a combined
SSLStaplingCache "shmcb:/run/real(128000)"
<VirtualHost *:443>
ServerName a.test
SSLProtocol TLSv1.3
Include "LIVE/apache.conf"
SSLStaplingResponderTimeout 2
DocumentRoot /srv/www
</VirtualHost>
"""


class TestApache:
    def config(self, made: Made, text: str) -> tuple[apache_config.Config, Instance]:
        (made.old / "apache.conf").write_text("SSLEngine on\nSSLCertificateFile /old/fullchain.pem\n")
        main = made.root / "main.conf"
        main.write_text(text.replace("LIVE", str(made.live)))
        read = apache_config.load(str(main), "/srv", [], {}, str(made.root / "state"))
        return read, Instance("apache", "/bin/apache2", str(main), (), "2.4.71", 1)

    def composed(self, made: Made, text: str) -> list[str] | None:
        config, instance = self.config(made, text)
        sites = tuple(one for one in apache_config.sites(config, "/srv") if one.guards)
        told = apache_understudy.compose(instance, made.stage(sites), config, {})
        return told.files["apache.conf"].splitlines() if told else None

    def test_it_has_what_stapling_depends_on_and_nothing_else(self, made: Made) -> None:
        lines = self.composed(made, APACHE)
        assert lines is not None
        host = lines.index("<VirtualHost 127.0.0.1:4001>")
        wanted = [
            'sslprotocol "TLSv1.3"',
            f'Include "{made.new}/apache.conf"',
            'sslstaplingrespondertimeout "2"',
            "</VirtualHost>",
        ]
        assert lines[host + 1 :] == wanted
        assert f'SSLStaplingCache "shmcb:{made.work}/stapling(512000)"' in lines
        text = "\n".join(lines)
        for absent in ("/old/", "php", "/var/log", "/srv/www", "/run/real", "live/"):
            assert absent not in text

    def test_without_a_stapling_cache_it_has_none_either(self, made: Made) -> None:
        lines = self.composed(made, APACHE.replace("SSLStaplingCache", "#"))
        assert lines is not None
        assert not any("SSLStaplingCache" in line for line in lines)

    @pytest.mark.parametrize("line", ["MDStapling on", 'SSLStaplingCache "memcache:192.0.2.1:11211"'])
    def test_what_is_shared_with_the_real_one_is_not_played_with(self, made: Made, line: str) -> None:
        assert self.composed(made, f"{APACHE}{line}\n") is None


HAPROXY = """
global
  user haproxy
  stats socket /run/real.sock level admin
  tune.ssl.ocsp-update.mindelay 5
defaults
  mode tcp
resolvers default
  nameserver a 192.0.2.53:53
frontend f
  bind :443 ssl crt-list LIVE/haproxy.crtlist crt /other.pem alpn h2 interface eth0 no-tlsv13
  default_backend app
"""


class TestHaproxy:
    def test_it_has_what_stapling_depends_on_and_nothing_else(self, made: Made) -> None:
        for one in (made.old, made.new):
            (one / "haproxy.crtlist").write_text(f"{made.live}/bundle.pem [ocsp-update on]\n")
        main = made.root / "main.cfg"
        main.write_text(HAPROXY.replace("LIVE", str(made.live)))
        sites = haproxy_config.sites([str(main)], str(made.root / "state"))
        instance = Instance("haproxy", "/bin/haproxy", str(main), ("-f", str(main)), "2.8.1", 1)
        told = haproxy_understudy.compose(instance, made.stage(sites), [str(main)])
        assert told is not None
        assert told.files["haproxy.crtlist"] == f"{made.new}/bundle.pem [ocsp-update on]\n"
        text = told.files["haproxy.cfg"]
        bind = f"bind 127.0.0.1:4001 ssl crt-list {made.work}/haproxy.crtlist alpn h2 no-tlsv13\n"
        assert text.endswith(bind)
        for kept in ("user haproxy", "tune.ssl.ocsp-update.mindelay 5", "nameserver a 192.0.2.53:53"):
            assert f"  {kept}\n" in text
        for absent in ("/run/real.sock", "/other.pem", "eth0", "app", "live/"):
            assert absent not in text
