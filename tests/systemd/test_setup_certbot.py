"""What `certbot --nginx` really leaves on Debian's own nginx, and one command from there to guarded."""

from __future__ import annotations

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


@pytest.mark.usefixtures("responder")
def test_one_command_from_certbot_to_a_guarded_site(box: Booted) -> None:
    require("certbot-nginx")
    box.write("/etc/stapleguard/stapleguard.toml", CONFIGURATION)
    box.write(SITE, TEXT)
    box.run("rm", "-f", "/etc/nginx/sites-enabled/default")
    box.run("ln", "-s", SITE, "/etc/nginx/sites-enabled/site").succeeded()
    box.run("systemctl", "restart", "nginx").succeeded()
    certbot(box, "--nginx", *(word for name in NAMES for word in ("-d", name)))
    left = box.path_in(SITE).read_text()
    assert "managed by Certbot" in left

    began = time.monotonic()
    done = box.run("stapleguard", "setup", "--write", "--yes", "--json")
    seconds = time.monotonic() - began
    assert (done.status, done.json["verdicts"]) == (0, {NAMES[0]: "verified"}), done.stdout + done.stderr
    assert done.json["by_hand"] == []
    (lineage,) = done.json["lineages"]
    assert set(lineage["names"]) == set(NAMES)
    print(f"\none command, {seconds:.1f} s")
    assert seconds < 60

    old = leaf(box)
    before = box.cursor()
    certbot(box, "renew", "--force-renewal", "--no-random-sleep-on-renew")
    assert leaf(box) != old
    ours = ("SYSLOG_IDENTIFIER=stapleguard", f"LINEAGE={NAMES[0]}", "VERDICT=verified")
    until(lambda: bool(box.journal(*ours, after=before)), "the proof of the renewal", 60)
    assert f"include /var/lib/stapleguard/live/{NAMES[0]}/nginx.conf;" in box.path_in(SITE).read_text()

    box.run("stapleguard", "setup", "--undo").succeeded()
    assert box.path_in(SITE).read_text() == left
    assert box.run("nginx", "-t").status == 0
