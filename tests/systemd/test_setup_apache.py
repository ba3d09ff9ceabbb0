"""What `certbot --apache` really leaves on Debian's own Apache, and one command from there to guarded."""

from __future__ import annotations

import os
import time

import pytest
from lab.booted import Booted
from lab.process import until
from lab.tools import require
from test_certbot_timer import responder  # noqa: F401 - a fixture
from test_setup_certbot import CONFIGURATION, below, certbot, leaf

pytestmark = pytest.mark.systemd

NAMES = ("www.site.test", "site.test")
ALL = os.environ.get("STAPLEGUARD_SETUP") == "all"
WILD = "wild.test" if ALL else NAMES[0]
"""The lineage of the hand-made site: with STAPLEGUARD_SETUP=all one of its own, for a wildcard."""
SITES = "/etc/apache2/sites-available"
CACHE = "/etc/apache2/conf-enabled/stapleguard.conf"
DEFAULT = f"""<VirtualHost *:80>
\tServerName {NAMES[0]}
\tServerAlias {NAMES[1]}
\tDocumentRoot /var/www/html
</VirtualHost>
"""
HAND_MADE = f"""# Two more hosts of one certificate, written by hand.
<IfModule mod_ssl.c>
<VirtualHost *:443>
    ServerName {"a.wild.test" if ALL else NAMES[0]}
    Include /etc/apache2/snippets.conf
    SSLCertificateFile    /etc/letsencrypt/live/{WILD}/cert.pem
    SSLCertificateKeyFile /etc/letsencrypt/live/{WILD}/privkey.pem
    SSLCertificateChainFile /etc/letsencrypt/live/{WILD}/chain.pem
    SSLUseStapling off
</VirtualHost>
<VirtualHost *:443>
    ServerName {"b.wild.test" if ALL else NAMES[1]}
    <IfModule mod_ssl.c>
        SSLEngine on
        SSLCertificateFile    /etc/letsencrypt/live/{WILD}/fullchain.pem
        SSLCertificateKeyFile /etc/letsencrypt/live/{WILD}/privkey.pem
    </IfModule>
</VirtualHost>
</IfModule>
"""


@pytest.fixture(scope="module")
def apache(box: Booted, responder: object) -> Booted:  # noqa: F811 - the fixture
    """Debian's Apache with a site that `certbot --apache` has made, and one by hand with a wildcard."""
    del responder
    require("certbot-apache", "apache2-unit")
    box.write("/etc/stapleguard/stapleguard.toml", CONFIGURATION)
    box.run("systemctl", "stop", "nginx")
    box.run("a2enmod", "-q", "ssl").succeeded()
    box.write(f"{SITES}/000-default.conf", DEFAULT)
    box.run("systemctl", "restart", "apache2").succeeded()
    certbot(box, "--apache", *(word for name in NAMES for word in ("-d", name)))
    if ALL:
        dns = ("--manual", "--preferred-challenges", "dns", "--manual-auth-hook", "/bin/true")
        certbot(box, "certonly", *dns, "-d", f"*.{WILD}", "-d", WILD)
    box.write("/etc/apache2/snippets.conf", "SSLEngine on\nSSLProtocol -all +TLSv1.2 +TLSv1.3\n")
    box.write(f"{SITES}/wild.conf", HAND_MADE)
    box.run("a2ensite", "-q", "wild").succeeded()
    box.run("systemctl", "reload", "apache2").succeeded()
    return box


def test_one_command_from_certbot_to_a_guarded_apache(apache: Booted) -> None:
    box = apache
    before = below(box, "/etc/apache2")
    left = before["sites-available/000-default-le-ssl.conf"]
    assert b"Include /etc/letsencrypt/options-ssl-apache.conf" in left
    seen = box.run("stapleguard", "setup", "--json").json
    assert {one["name"]: one["mode"] for one in seen["lineages"]} == {NAMES[0]: "watch", WILD: "watch"}
    assert [one["hook"] for one in seen["clients"]] == ["written by setup"]
    assert below(box, "/etc/apache2") == before, "looking changes nothing"

    began = time.monotonic()
    done = box.run("stapleguard", "setup", "--write", "--yes", "--json")
    seconds = time.monotonic() - began
    verdicts = {NAMES[0]: "verified", WILD: "verified"}
    assert (done.status, done.json["verdicts"]) == (0, verdicts), done.stdout[-2000:] + done.stderr
    assert done.json["by_hand"] == []
    print(f"\none command, {seconds:.1f} s")
    assert seconds < 60
    assert "SSLStaplingCache" in box.path_in(CACHE).read_text()

    old = leaf(box)
    cursor = box.cursor()
    again = ("--cert-name", NAMES[0], "--force-renewal", "--no-random-sleep-on-renew")
    certbot(box, "renew", *again)
    assert leaf(box) != old
    ours = ("SYSLOG_IDENTIFIER=stapleguard", f"LINEAGE={NAMES[0]}", "VERDICT=verified")
    until(lambda: bool(box.journal(*ours, after=cursor)), "the proof of the renewal", 60)

    guarded = below(box, "/etc/apache2")
    again = box.run("stapleguard", "setup", "--write", "--yes", "--json").json
    assert (again["changes"], again["verdicts"]) == ([], {})
    assert {one["mode"] for one in again["lineages"]} == {"guard"}
    assert below(box, "/etc/apache2") == guarded

    box.run("stapleguard", "setup", "--undo").succeeded()
    assert below(box, "/etc/apache2") == before
    assert box.run("apache2ctl", "configtest").status == 0
