"""A block of lighttpd gets one include, and every other byte stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from stapleguard.servers import lighttpd_config
from stapleguard.servers.edit import Refusal, Wanted
from stapleguard.servers.lighttpd_edit import plan, use_include
from stapleguard.servers.words import Instance

pytestmark = pytest.mark.unit

LIVE = "/var/lib/stapleguard/live/a.test"
INCLUDE = f'include "{LIVE}/lighttpd.conf"'
SSL = """server.modules += ( "mod_openssl" )

ssl.pemfile = "/etc/letsencrypt/live/a.test/fullchain.pem"
ssl.privkey = "/etc/letsencrypt/live/a.test/privkey.pem" # both
ssl.ca-file = "/etc/letsencrypt/live/a.test/chain.pem"

$SERVER["socket"] == "0.0.0.0:443" {
\tssl.engine  = "enable"
}
$HTTP["host"] == "b.test" {
\tssl.pemfile = "/b.pem"
}
"""
LINES = {"ssl.pemfile": 3, "ssl.privkey": 4, "ssl.ca-file": 5}


def wanted(folder: Path, text: str) -> tuple[Instance, list[Wanted]]:
    """Debian's layout: the main file includes those of conf-enabled, which are links."""
    for name in ("conf-available", "conf-enabled"):
        (folder / name).mkdir()
    (folder / "conf-available/10-ssl.conf").write_text(text)
    (folder / "conf-enabled/10-ssl.conf").symlink_to("../conf-available/10-ssl.conf")
    config = folder / "lighttpd.conf"
    config.write_text('server.port = 80\ninclude "conf-enabled/*.conf"\n')
    sites = lighttpd_config.sites(str(config), "/nonexistent")
    instance = Instance("lighttpd", "/usr/sbin/lighttpd", str(config), ("-f", str(config)), "1.4", None)
    return instance, [Wanted(site, site.certificates, "a.test", LIVE) for site in sites]


def test_the_lines_are_replaced_where_they_stand(tmp_path: Path) -> None:
    instance, places = wanted(tmp_path, SSL)
    made = plan(instance, places)
    (edit,) = made.edits
    assert edit.path == str((tmp_path / "conf-available/10-ssl.conf").resolve())
    old = "".join(SSL.splitlines(keepends=True)[2:5])
    assert edit.after == SSL.replace(old, f"{INCLUDE}\n").replace('ssl.pemfile = "/b.pem"', INCLUDE).encode()
    assert made.left == ()


def test_anchors_for_clients_stay(tmp_path: Path) -> None:
    instance, places = wanted(tmp_path, SSL + 'ssl.verifyclient.activate = "enable"\n')
    (edit,) = plan(instance, places).edits
    assert isinstance(edit.after, bytes)
    assert b"ssl.ca-file" in edit.after


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (" # both", ' ssl.engine = "enable"', "holds more than ssl.privkey"),
        ('"/etc/letsencrypt/live/a.test/chain.pem"', 'var.x + "/chain.pem"', "holds more than ssl.ca-file"),
        ("ssl.pemfile =", "ssl.pemfile =\n", "holds more than ssl.pemfile"),
    ],
)
def test_what_is_not_understood_is_refused(old: str, new: str, said: str) -> None:
    refused = use_include(SSL.replace(old, new, 1), LINES, INCLUDE)
    assert isinstance(refused, Refusal)
    assert said in refused.reason


def test_a_key_in_another_file_is_refused() -> None:
    refused = use_include(SSL, LINES | {"ssl.privkey": 0}, INCLUDE)
    assert isinstance(refused, Refusal)
    assert "ssl.privkey stands in another file" in refused.reason
