"""Debian's certbot.service, run by its timer, with Pebble: hook, hand-over, proof, the journal's fields."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from lab.booted import Booted
from lab.process import until
from lab.responder import Responder
from lab.tools import executable, require
from served import STATE, WORKERS
from stapleguard.host import SystemClock

pytestmark = pytest.mark.systemd
NAME = "shop-1.site.test"  # a name that must be escaped
UNIT = r"stapleguard@shop\x2d1.site.test.service"
LIVE = f"/etc/letsencrypt/live/{NAME}"
API = "https://127.0.0.1:14000/dir"
TRUST = {"REQUESTS_CA_BUNDLE": "/etc/pebble/api.pem"}
NGINX = f"""user www-data;
worker_processes {WORKERS};
pid /run/nginx.pid;
error_log /var/log/nginx/error.log info;
events {{ worker_connections 256; }}
http {{ access_log off;
  server {{ listen 127.0.0.1:443 ssl; server_name {NAME}; include {STATE}/live/{NAME}/nginx.conf; }}
}}
"""


@pytest.fixture(scope="module")
def responder(box: Booted) -> Iterator[Responder]:
    """Pebble and the OCSP responder of its issuer."""
    require("pebble", "certbot")
    port = 14080
    pebble = {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": "/etc/pebble/api.pem",
        "privateKey": "/etc/pebble/api.key",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": f"http://127.0.0.1:{port}/",
    }
    box.write("/etc/pebble/pebble.json", json.dumps({"pebble": pebble}))
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=acme.test")
    files = ("-keyout", "/etc/pebble/api.key", "-out", "/etc/pebble/api.pem")
    box.run(*new, *files, "-addext", "subjectAltName=IP:127.0.0.1").succeeded()
    # It would sleep before each validation, and want a new one for every second order, at random.
    settings = ("VA_ALWAYS_VALID=1", "VA_NOSLEEP=1", "AUTHZREUSE=100", "WFE_NONCEREJECT=0")
    always = [f"Environment=PEBBLE_{one}" for one in settings]
    box.service("pebble", str(executable("pebble")), "-config", "/etc/pebble/pebble.json", properties=always)

    def fetch(kind: str) -> str:
        code = (
            "import ssl, sys, urllib.request as r;"
            "c = ssl.create_default_context(cafile='/etc/pebble/api.pem');"
            f"sys.stdout.write(r.urlopen('https://127.0.0.1:15000/{kind}/0', context=c).read().decode())"
        )
        return box.run("/usr/bin/python3", "-c", code).stdout

    until(lambda: fetch("roots").startswith("-----BEGIN"), "pebble")
    for kind, file in (
        ("intermediates", "issuer.pem"),
        ("intermediate-keys", "issuer.key"),
        ("roots", "root.pem"),
    ):
        box.write(f"/etc/pebble/{file}", fetch(kind), 0o600)
    certificate, key = (box.path_in(f"/etc/pebble/{name}") for name in ("issuer.pem", "issuer.key"))
    with box.on_its_network(lambda: Responder("127.0.0.1", port, certificate, key)) as made:
        yield made


@pytest.fixture(scope="module")
def issued(box: Booted, responder: Responder) -> x509.Certificate:
    """A lineage of certbot, deployed as the tutorial says; `install` has written certbot's hook entry."""
    box.write(
        "/etc/stapleguard/stapleguard.toml",
        'anchors = "/etc/pebble/root.pem"\n[fetch]\nallow_addresses = ["127.0.0.0/8"]\n',
    )
    account = ("--agree-tos", "--register-unsafely-without-email", "--server", API, "-n")
    words = ("certonly", "--standalone", "--cert-name", NAME, "-d", NAME)
    box.run("systemctl", "stop", "nginx")
    box.run("certbot", *words, *account, env=TRUST).succeeded()
    box.write("/etc/nginx/nginx.conf", "events {}\n")
    assert box.run("stapleguard", "deploy", LIVE).status == 7
    box.write("/etc/nginx/nginx.conf", NGINX)
    box.run("systemctl", "start", "nginx").succeeded()
    assert box.run("stapleguard", "deploy", LIVE).status == 0
    box.run("stapleguard", "install").succeeded()
    return leaf(box)


def leaf(box: Booted) -> x509.Certificate:
    return x509.load_pem_x509_certificate(box.path_in(f"{LIVE}/cert.pem").read_bytes())


def renewed_by_timer(box: Booted, old: x509.Certificate) -> x509.Certificate:
    """Make the renewal due, and let Debian's timer start Debian's service, at once."""
    conf = box.path_in(f"/etc/letsencrypt/renewal/{NAME}.conf")
    conf.write_text(f"renew_before_expiry = 20000 days\n{conf.read_text()}")
    box.write(
        "/etc/systemd/system/certbot.service.d/lab.conf",
        "[Service]\nEnvironment=REQUESTS_CA_BUNDLE=/etc/pebble/api.pem\n",
    )
    box.write(
        "/etc/systemd/system/certbot.timer.d/lab.conf",
        "[Timer]\nOnCalendar=\nOnActiveSec=100ms\nRandomizedDelaySec=0\nAccuracySec=1ms\nPersistent=false\n",
    )
    box.run("systemctl", "daemon-reload").succeeded()
    box.run("systemctl", "start", "certbot.timer").succeeded()
    until(lambda: leaf_of(box) != old, "a renewal", 60)
    return leaf(box)


def leaf_of(box: Booted) -> x509.Certificate | None:
    try:
        return leaf(box)
    except (OSError, ValueError):  # certbot removes a link before it makes the next
        return None


def test_certbots_timer_ends_in_a_proof(box: Booted, issued: x509.Certificate) -> None:
    before = box.cursor()
    begun = SystemClock().monotonic()
    renewed_by_timer(box, issued)
    ours = ("SYSLOG_IDENTIFIER=stapleguard", f"LINEAGE={NAME}")
    until(lambda: bool(box.journal(*ours, "VERDICT=verified", after=before)), "the verdict", 60)
    (told,) = box.journal(*ours, "VERDICT=verified", after=before)
    new = leaf(box)
    assert told["LEAF_SHA256"] == new.fingerprint(hashes.SHA256()).hex()
    assert told["_SYSTEMD_UNIT"] == UNIT
    assert told["ENDPOINT"] == f"{NAME} at 127.0.0.1:443"
    assert told["RUN_ID"]
    handed = box.journal(*ours, after=before)[0]
    assert handed["MESSAGE"] == f"{NAME}: handed over to {UNIT} (from certbot)"
    until(lambda: box.show("certbot.service", "ActiveState") == "inactive", "the end of certbot.service")
    assert box.show("certbot.service", "Result") == "success"
    asked = box.run("journalctl", "-t", "stapleguard", f"LINEAGE={NAME}", "VERDICT=verified", "-x").stdout
    assert f"Subject: {NAME}: the certificate is served and proved" in asked
    assert SystemClock().monotonic() - begun < 90
