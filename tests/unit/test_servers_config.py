"""Configuration files of Apache, HAProxy and lighttpd, read as the servers read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from stapleguard.servers import apache_config, haproxy_config, lighttpd_config
from stapleguard.servers.words import Site

pytestmark = pytest.mark.unit


def apache(folder: Path, text: str, *defined: str) -> tuple[apache_config.Config, tuple[Site, ...]]:
    main = folder / "apache2.conf"
    main.write_text(text)
    read = apache_config.load(
        str(main), str(folder), defined, {"APACHE_RUN_DIR": "/run/a"}, f"{folder}/state"
    )
    return read, apache_config.sites(read, str(folder))


HOST = "<VirtualHost *:443>\nServerName https://a.test:443\nServerAlias b.test *.c.test\n%s\n</VirtualHost>\n"


def test_apache_follows_includes_definitions_and_conditions(tmp_path: Path) -> None:
    (tmp_path / "ports.conf").write_text(
        "Listen 80\n<IfModule ssl_module>\nListen 127.0.0.2:443\n</IfModule>\n"
    )
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "a.conf").write_text(HOST % "SSLCertificateFile ${certs}/a.pem\nSSLUseStapling on")
    text = (
        "Include ports.conf\nDefine certs \\\n /c\nIncludeOptional sites/*.conf\n"
        "<IfDefine !QUIET>\nSSLStaplingCache shmcb:${APACHE_RUN_DIR}/s\n</IfDefine>\n"
    )
    read, (site,) = apache(tmp_path, text)
    assert (site.names, site.listens) == (("a.test", "b.test", "*.c.test"), (("127.0.0.2", 443),))
    assert (site.certificates, site.stapling, read.cached) == (("/c/a.pem",), True, True)
    quiet, _ = apache(tmp_path, text, "QUIET")
    assert not quiet.cached


def test_apache_leaves_out_what_is_not_of_the_server(tmp_path: Path) -> None:
    inner = (
        "<Directory /x>\n<IfModule y>\nSSLCertificateFile /no.pem\n</IfModule>\n</Directory>\nSSLEngine on"
    )
    _, sites = apache(tmp_path, f"Listen 443\n{HOST % inner}")
    assert sites == ()


def test_apache_knows_a_lineage_that_is_not_published_yet(tmp_path: Path) -> None:
    (tmp_path / "state" / "live").mkdir(parents=True)
    _, (site,) = apache(tmp_path, f"Listen 443\n{HOST % f'Include {tmp_path}/state/live/a.test/apache.conf'}")
    assert (site.guards, site.listens) == (("a.test",), (("127.0.0.1", 443),))


def test_apache_speaks_tls_on_some_ports_only(tmp_path: Path) -> None:
    text = "Listen 80\nListen 8443 https\n<VirtualHost *>\nSSLCertificateFile a.pem\n</VirtualHost>\n"
    _, (site,) = apache(tmp_path, text)
    assert site.listens == (("127.0.0.1", 8443),)


@pytest.mark.parametrize(
    ("lines", "managed"),
    [
        ("MDStapling on", True),
        ("MDStapling on\nMDStapleOthers off", False),
        ("MDStapling off", False),
        ("", False),
    ],
)
def test_apache_knows_mod_mds_stapling(tmp_path: Path, lines: str, managed: bool) -> None:
    _, (site,) = apache(tmp_path, f"{lines}\nListen 443\n{HOST % 'SSLCertificateFile a.pem'}")
    assert site.stapling is managed


@pytest.mark.parametrize(
    ("domain", "host", "kept"),
    [
        ("MDomain a.test b.test manual", "ServerName b.test\nSSLEngine on", ("a.test",)),
        (
            "<MDomainSet a.test>\nMDMember b.test\n</MDomainSet>",
            "ServerName a.test\nSSLEngine on",
            ("a.test",),
        ),
        ("MDomain a.test", "ServerName c.test\nSSLEngine on", ()),
        ("MDomain a.test", "ServerName a.test", ()),
        ("MDomain a.test manual", "ServerName manual\nSSLEngine on", ()),
        ("", "ServerName a.test\nSSLEngine on", ()),
    ],
)
def test_apache_knows_the_certificates_that_mod_md_keeps(
    tmp_path: Path, domain: str, host: str, kept: tuple[str, ...]
) -> None:
    folder = tmp_path / "store" / "domains" / "a.test"
    folder.mkdir(parents=True)
    for file in ("pubcert.pem", "pubcert.secp256r1.pem", "privkey.pem", "fallback-pubcert.pem"):
        (folder / file).touch()
    text = f"MDStoreDir {tmp_path}/store\nMDStapling on\nMDStapleOthers off\n{domain}\nListen 443\n"
    _, sites = apache(tmp_path, f"{text}<VirtualHost *:443>\n{host}\n</VirtualHost>\n")
    assert [one.keeper for one in sites] == ["mod_md" for _ in kept]
    for site in sites:
        assert site.certificates == (f"{folder}/pubcert.pem", f"{folder}/pubcert.secp256r1.pem")
        assert site.stapling  # MDStapleOthers is about certificates that are not its own


def test_apache_with_files_of_its_own_is_not_kept_by_mod_md(tmp_path: Path) -> None:
    _, (site,) = apache(tmp_path, f"MDomain a.test\nListen 443\n{HOST % 'SSLCertificateFile a.pem'}")
    assert site.keeper == ""


def test_haproxy_reads_bind_lines_as_its_tokeniser_does(tmp_path: Path) -> None:
    (tmp_path / "state" / "live").mkdir(parents=True)
    listed = tmp_path / "list"
    listed.write_text("# none\nb.pem [ocsp-update on] b.test\n")
    config, mixed = tmp_path / "h.cfg", tmp_path / "mixed"
    ours = f"{tmp_path}/state/live/a.test"
    config.write_text(
        "global\n crt-base /c\n stats socket /run/a.sock mode 600 level admin # yes\n"
        " stats socket unix@/run/b.sock level admin\n stats socket /run/c.sock level operator\n"
        f"frontend f\n bind :443,[::]:8443 ssl crt a.pem crt-list {listed}\n"
        f" bind 127.0.0.1:444 ssl crt-list {ours}/haproxy.crtlist\n"
        f" bind 127.0.0.3:445 ssl crt {ours}/bundle.pem\n"
        f" bind 127.0.0.4:446 ssl crt-list {mixed}\n"
        " bind :80\n bind :446 accept-proxy ssl crt a.pem\nbackend b\n bind :1 ssl crt x.pem\n"
    )
    mixed.write_text(f"b.pem\n{ours}/bundle.pem [alpn h2] a.test\n")
    both, guarded, bundle, theirs, hidden = haproxy_config.sites([str(config)], str(tmp_path / "state"))
    assert both.listens == (("127.0.0.1", 443), ("::1", 8443))
    assert both.certificates == ("/c/a.pem", "/c/b.pem")
    assert (guarded.guards, guarded.included) == (("a.test",), "haproxy.crtlist")
    assert (bundle.guards, bundle.included) == (("a.test",), "bundle.pem")
    assert (theirs.guards, theirs.included) == (("a.test",), "bundle.pem")
    assert hidden.listens == ()
    assert haproxy_config.admin_sockets([str(config)]) == ("/run/a.sock", "/run/b.sock")


def test_haproxy_updates_by_itself_from_2_8_on() -> None:
    known = {
        version: haproxy_config.may_update(version) for version in ("2.6.12", "2.8.25", "3.0.1", "", "x")
    }
    assert known == {"2.6.12": False, "2.8.25": True, "3.0.1": True, "": False, "x": False}


def test_lighttpd_merges_conditions_and_joins_strings(tmp_path: Path) -> None:
    config = tmp_path / "l.conf"
    config.write_text(
        'var.certs = "/c"\nserver.modules = ("mod_openssl", "mod_x")\n'
        '$SERVER["socket"] == "127.0.0.2:443" {\n ssl.engine = "enable"\n'
        ' ssl.pemfile = var.certs + "/a.pem" # so\n'
        ' $HTTP["host"] == "b.test" { ssl.pemfile = "/b.pem"\n ssl.stapling-file = "/b.der" }\n}\n'
        '$SERVER["socket"] == ":80" { ssl.pemfile = "/none.pem" }\n'
    )
    first, second, plain = lighttpd_config.sites(str(config), str(tmp_path))
    assert (first.certificates, first.listens, first.stapling) == (
        ("/c/a.pem",),
        (("127.0.0.2", 443),),
        False,
    )
    assert (second.names, second.certificates, second.staple_file) == (("b.test",), ("/b.pem",), "/b.der")
    assert second.listens == first.listens
    assert plain.listens == ()
