"""What certbot really leaves on Debian's own servers, and one command from there to a guarded site.

With STAPLEGUARD_SETUP=all there is more of it: lighttpd, a wildcard, a second lineage of one server, a plugin
that is run again, an Apache that would not start, and more renewals.
"""

from __future__ import annotations

import os
import time

import pytest
from cryptography import x509
from lab.booted import Booted
from lab.process import until
from lab.tools import require
from test_certbot_timer import API, TRUST, responder  # noqa: F401 - a fixture

pytestmark = pytest.mark.systemd

NAMES = ("www.site.test", "site.test")
LIVE = f"/etc/letsencrypt/live/{NAMES[0]}"
SITE = "/etc/nginx/sites-available/site"
APACHE = "/etc/apache2"
DEFAULT = f"""<VirtualHost *:80>
\tServerName {NAMES[0]}
\tServerAlias {NAMES[1]}
\tDocumentRoot /var/www/html
</VirtualHost>
"""
ALL = os.environ.get("STAPLEGUARD_SETUP") == "all"
WILD = "wild.test" if ALL else NAMES[0]
"""The lineage of the hosts that were written by hand."""
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
HAPROXY = "/etc/haproxy/haproxy.cfg"
CERTS = "/etc/haproxy/certs"
COPIES = f"""#!/bin/sh
# What people have: one file of key and chain for each lineage.
mkdir -p {CERTS}
for one in /etc/letsencrypt/live/*/; do
    cat "$one/privkey.pem" "$one/fullchain.pem" >{CERTS}/$(basename "$one").pem
done
"""
FRONTEND = """
frontend web
    bind 127.0.0.1:443 ssl %s alpn h2,http/1.1
    http-request return status 200 content-type text/plain string "pid 1"
"""
CONFIGURATION = 'anchors = "/etc/pebble/root.pem"\n[fetch]\nallow_addresses = ["127.0.0.0/8"]\n'
TEXT = f"""server {{
\tlisten 80;
\tserver_name {" ".join(NAMES)};

\troot /var/www/html;
\tindex index.nginx-debian.html;
}}
"""


def leaf(box: Booted) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(box.path_in(f"{LIVE}/cert.pem").read_bytes())
    except (OSError, ValueError):
        return None


def below(box: Booted, folder: str) -> dict[str, bytes]:
    """Everything below a folder: the bytes of files, and where links lead."""
    root = box.path_in(folder)
    return {
        str(path.relative_to(root)): bytes(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def certbot(box: Booted, *words: str) -> None:
    account = ("--agree-tos", "--register-unsafely-without-email", "--server", API, "-n")
    box.run("certbot", *words, *account, env=TRUST).succeeded()


def haproxy(box: Booted, certificates: str) -> None:
    """Start Debian's HAProxy, its configuration with a frontend added."""
    debians = box.path_in(f"{HAPROXY}.dist")
    if not debians.exists():
        debians.write_bytes(box.path_in(HAPROXY).read_bytes())
    box.write(HAPROXY, debians.read_text() + FRONTEND % certificates)
    box.run("systemctl", "restart", "haproxy").succeeded()


def only(box: Booted, server: str) -> None:
    """Let one server have the ports, and stapleguard begin anew."""
    others = {"nginx", "apache2", "haproxy", "lighttpd"} - {server}
    box.run("systemctl", "stop", *others)
    sites = ("/etc/nginx/sites-enabled/site", f"{APACHE}/sites-enabled/hand.conf")
    sites += (f"{APACHE}/sites-enabled/000-default-le-ssl.conf", "/etc/letsencrypt/live/wild.test")
    box.run("rm", "-rf", "/var/lib/stapleguard", *sites).succeeded()
    box.write("/etc/stapleguard/stapleguard.toml", CONFIGURATION)


def guarded(box: Booted, *lineages: str) -> None:
    """Take the step, by one command."""
    began = time.monotonic()
    done = box.run("stapleguard", "setup", "--write", "--yes", "--json")
    seconds = time.monotonic() - began
    verdicts = dict.fromkeys(lineages, "verified")
    assert done.stdout, done.stderr
    assert (done.status, done.json["verdicts"]) == (0, verdicts), done.stdout[-2000:] + done.stderr
    assert done.json["by_hand"] == []
    print(f"\none command, {seconds:.1f} s\n{done.stderr}")
    assert seconds < 60


def installed_again(box: Booted, plugin: str, path: str) -> None:
    """Run certbot's plugin for what is guarded: it writes its own lines beside our include, and into it."""
    before = box.path_in(path).read_text().split()
    certbot(box, plugin, "--reinstall", *(word for name in NAMES for word in ("-d", name)))
    assert box.path_in(path).read_text().split() != before
    guarded(box, NAMES[0])
    assert box.path_in(path).read_text().split() == before


def refused_without_a_cache(box: Booted) -> None:
    """Apache's own test says Syntax OK, and it would not start: the host is put back all the same."""
    ask = box.run("stapleguard", "setup", "--json").json["changes"]
    paths = [one["path"] for one in ask if one["path"].startswith(APACHE)]
    # Neither our own files nor the cache, but every host.
    given = "\\n".join(["n", *("n" if "/conf-" in path else "y" for path in paths)])
    script = f"printf '{given}\\n' | script -qec 'stapleguard --quiet setup --write' /dev/null"
    said = box.run("sh", "-c", script).stdout
    assert (
        "stays as it was: apache refuses it: SSLUseStapling is on, but there is no SSLStaplingCache" in said
    )


def proved_renewal(box: Booted, *words: str) -> None:
    """Renew, and wait for what the hook has come to."""
    old, before = leaf(box), box.cursor()
    certbot(box, "renew", "--cert-name", NAMES[0], "--force-renewal", "--no-random-sleep-on-renew", *words)
    assert leaf(box) != old
    ours = ("SYSLOG_IDENTIFIER=stapleguard", f"LINEAGE={NAMES[0]}", "VERDICT=verified")
    until(lambda: bool(box.journal(*ours, after=before)), "the proof of the renewal", 60)


@pytest.mark.usefixtures("responder")
def test_one_command_from_certbot_to_a_guarded_site(box: Booted) -> None:
    require("certbot-nginx")
    only(box, "nginx")
    box.write(SITE, TEXT)
    box.run("rm", "-f", "/etc/nginx/sites-enabled/default")
    box.run("ln", "-s", SITE, "/etc/nginx/sites-enabled/site").succeeded()
    box.run("systemctl", "restart", "nginx").succeeded()
    certbot(box, "--nginx", *(word for name in NAMES for word in ("-d", name)))
    left = box.path_in(SITE).read_text()
    assert "managed by Certbot" in left

    guarded(box, NAMES[0])
    (lineage,) = box.run("stapleguard", "setup", "--json").json["lineages"]
    assert set(lineage["names"]) == set(NAMES)
    proved_renewal(box)
    if ALL:
        installed_again(box, "--nginx", SITE)
    assert f"include /var/lib/stapleguard/live/{NAMES[0]}/nginx.conf;" in box.path_in(SITE).read_text()

    box.run("stapleguard", "setup", "--undo").succeeded()
    assert box.path_in(SITE).read_text() == left
    assert box.run("nginx", "-t").status == 0


@pytest.mark.usefixtures("responder")
def test_one_command_from_certbot_to_a_guarded_apache(box: Booted) -> None:
    require("certbot-apache", "apache2-unit")
    only(box, "apache2")
    box.run("a2enmod", "-q", "ssl").succeeded()
    box.write(f"{APACHE}/sites-available/000-default.conf", DEFAULT)
    box.run("systemctl", "restart", "apache2").succeeded()
    certbot(box, "--apache", "--force-renewal", *(word for name in NAMES for word in ("-d", name)))
    if ALL:
        dns = ("--manual", "--preferred-challenges", "dns", "--manual-auth-hook", "/bin/true")
        certbot(box, "certonly", *dns, "-d", f"*.{WILD}", "-d", WILD)
    box.write(f"{APACHE}/snippets.conf", "SSLEngine on\nSSLProtocol -all +TLSv1.2 +TLSv1.3\n")
    box.write(f"{APACHE}/sites-available/hand.conf", HAND_MADE)
    box.run("a2ensite", "-q", "hand").succeeded()
    box.run("systemctl", "reload", "apache2").succeeded()
    before = below(box, APACHE)
    left = before["sites-available/000-default-le-ssl.conf"]
    assert b"Include /etc/letsencrypt/options-ssl-apache.conf" in left
    seen = box.run("stapleguard", "setup", "--json").json
    assert {one["name"]: one["mode"] for one in seen["lineages"]} == {NAMES[0]: "watch", WILD: "watch"}
    assert [one["hook"] for one in seen["clients"]] == ["written by setup"]
    assert below(box, APACHE) == before, "looking changes nothing"

    if ALL:
        refused_without_a_cache(box)
        assert below(box, APACHE) == before
    guarded(box, *dict.fromkeys([NAMES[0], WILD]))
    assert "SSLStaplingCache" in box.path_in(f"{APACHE}/conf-enabled/stapleguard.conf").read_text()
    proved_renewal(box)
    if ALL:
        installed_again(box, "--apache", f"{APACHE}/sites-available/000-default-le-ssl.conf")
    changed = below(box, APACHE)
    again = box.run("stapleguard", "setup", "--write", "--yes", "--json").json
    assert (again["changes"], again["verdicts"]) == ([], {})
    assert {one["mode"] for one in again["lineages"]} == {"guard"}
    assert below(box, APACHE) == changed

    box.run("stapleguard", "setup", "--undo").succeeded()
    assert below(box, APACHE) == before
    assert box.run("apache2ctl", "configtest").status == 0


@pytest.mark.usefixtures("responder")
def test_one_command_from_certbot_to_a_guarded_haproxy(box: Booted) -> None:
    require("haproxy-unit")
    only(box, "haproxy")
    box.run("systemctl", "stop", "haproxy")
    if ALL or leaf(box) is None:
        certbot(
            box, "certonly", "--standalone", "--force-renewal", *(w for name in NAMES for w in ("-d", name))
        )
    box.write("/etc/letsencrypt/renewal-hooks/deploy/haproxy", COPIES, 0o755)
    box.run("/etc/letsencrypt/renewal-hooks/deploy/haproxy").succeeded()
    haproxy(box, f"crt {CERTS}/{NAMES[0]}.pem")
    before = below(box, "/etc/haproxy")
    guarded(box, NAMES[0])
    if ALL:
        proved_renewal(box)
    assert box.run("stapleguard", "setup", "--json").json["changes"] == []
    box.run("stapleguard", "setup", "--undo").succeeded()
    assert below(box, "/etc/haproxy")["haproxy.cfg"] == before["haproxy.cfg"]
    assert box.run("haproxy", "-c", "-f", HAPROXY).status == 0


@pytest.mark.skipif(not ALL, reason="STAPLEGUARD_SETUP=all runs it, too")
@pytest.mark.usefixtures("responder")
def test_one_command_from_certbot_to_a_guarded_lighttpd(box: Booted) -> None:
    require("lighttpd-unit")
    only(box, "lighttpd")
    if leaf(box) is None:
        certbot(box, "certonly", "--standalone", "-d", NAMES[0], "-d", NAMES[1])
    ssl = "/etc/lighttpd/conf-available/10-ssl.conf"
    pair = f'"{LIVE}/fullchain.pem"\nssl.privkey = "{LIVE}/privkey.pem"'
    debians = box.path_in(ssl).read_text()
    box.write(ssl, debians.replace('"/etc/lighttpd/server.pem"', pair))
    box.run("lighty-enable-mod", "ssl").succeeded()
    box.run("systemctl", "restart", "lighttpd").succeeded()
    before = below(box, "/etc/lighttpd")
    guarded(box, NAMES[0])
    line = f'include "/var/lib/stapleguard/live/{NAMES[0]}/lighttpd.conf"'
    assert box.path_in(ssl).read_text() == debians.replace('ssl.pemfile = "/etc/lighttpd/server.pem"', line)
    box.run("stapleguard", "setup", "--undo").succeeded()
    assert below(box, "/etc/lighttpd") == before
    assert box.run("lighttpd", "-tt", "-f", "/etc/lighttpd/lighttpd.conf").status == 0
