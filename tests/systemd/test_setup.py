"""`setup` on Debian's own nginx layout: from a watched site to a guarded one in one command, and back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from lab.booted import Booted
from lab.process import until
from served import NAME, SOURCE, Served
from stapleguard.rehearsal.authority import LeafOptions

pytestmark = pytest.mark.systemd

SITE = "/etc/nginx/sites-available/site"
OTHER = "other.site.test"
BLOCK = """server {
    server_name %(name)s;
    location / { return 200 "pid $pid\\n"; }

    listen 127.0.0.1:443 ssl; # managed by Certbot
    ssl_certificate /etc/letsencrypt/live/%(name)s/fullchain.pem; # managed by Certbot
    ssl_certificate_key /etc/letsencrypt/live/%(name)s/privkey.pem; # managed by Certbot
    ssl_stapling on;
%(more)s}
"""
REDIRECT = """server {
    listen 127.0.0.1:80;
    server_name www.site.test;
    return 301 https://$host$request_uri; # managed by Certbot
}
"""


@pytest.fixture(scope="module")
def made(box: Booted) -> Iterator[Served]:
    with Served(box) as one:
        one.renew()
        one.renew(OTHER)
        box.run("rm", "-f", "/etc/nginx/sites-enabled/default")
        box.run("ln", "-sfn", "../sites-available/site", "/etc/nginx/sites-enabled/site").succeeded()
        yield one


@pytest.fixture
def site(made: Served) -> Iterator[Served]:
    yield made
    made.stapleguard("setup", "--undo")


def open_site(box: Booted, text: str) -> None:
    """As `certbot --nginx` leaves it."""
    box.write(SITE, text)
    box.run("systemctl", "restart", "nginx").succeeded()


def block(name: str = NAME, more: str = "") -> str:
    return BLOCK % {"name": name, "more": more}


def setup(site: Served, *argv: str) -> Any:
    return site.stapleguard("setup", "--json", *argv).json


def files(box: Booted) -> dict[str, bytes]:
    """Everything below /etc that can be changed, but for the state of the machine."""
    root = box.path_in("/etc")
    kept = {}
    for folder in ("nginx", "systemd/system", "letsencrypt", "stapleguard", "tmpfiles.d"):
        for path in (root / folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                kept[str(path.relative_to(root))] = path.read_bytes()
    return kept


def test_from_watch_to_guard_and_back(box: Booted, site: Served) -> None:
    open_site(box, block() + REDIRECT + block(OTHER))
    before = files(box)
    seen = setup(site)
    assert [(one["name"], one["mode"]) for one in seen["lineages"]] == [(OTHER, "watch"), (NAME, "watch")]
    assert seen["servers"][0]["running"]
    change = next(one for one in seen["changes"] if one["path"] == SITE)
    assert f"+    include /var/lib/stapleguard/live/{NAME}/nginx.conf;\n" in change["diff"]
    assert (
        f"-    ssl_certificate /etc/letsencrypt/live/{NAME}/fullchain.pem; # managed by Certbot\n"
        in change["diff"]
    )
    assert "-    ssl_stapling on;\n" in change["diff"]
    assert files(box) == before, "looking changes nothing"

    began = time.monotonic()
    done = setup(site, "--write", "--yes")
    print(f"\nsetup --write took {time.monotonic() - began:.1f} s")
    assert done["verdicts"] == {NAME: "verified", OTHER: "verified"}
    assert all(one["applied"] for one in done["changes"])
    assert "return 301" in box.path_in(SITE).read_text()
    assert box.path_in("/etc/nginx/sites-enabled/site").is_symlink()

    new = site.renew()  # and from here on every renewal is guarded
    env = {"RENEWED_LINEAGE": SOURCE, "RENEWED_DOMAINS": NAME}
    box.run("/etc/letsencrypt/renewal-hooks/deploy/stapleguard", env=env).succeeded()
    site.until_serves(new)

    guarded = files(box)
    again = setup(site, "--write", "--yes")
    assert (again["changes"], again["verdicts"]) == ([], {})
    assert {one["mode"] for one in again["lineages"]} == {"guard"}
    assert files(box) == guarded

    site.stapleguard("setup", "--undo").succeeded()
    after = files(box)
    assert {path: after.get(path) for path in before if "letsencrypt" not in path} == {
        path: data for path, data in before.items() if "letsencrypt" not in path
    }
    assert {path for path in after.keys() - before.keys() if "archive" not in path} == set()
    until(lambda: site.look().leaf == new.certificate, "the site goes on")
    assert site.stapleguard("setup", "--undo").stdout == "nothing to undo\n"


def test_what_nginx_refuses_is_put_back(box: Booted, site: Served) -> None:
    box.write("/etc/nginx/snippets/stapling.conf", "ssl_stapling on;\n")
    text = block(more="    include snippets/stapling.conf;\n").replace("    ssl_stapling on;\n", "")
    open_site(box, text)
    done = site.stapleguard("setup", "--json", "--write", "--yes")
    assert done.status == 3
    assert any("duplicate" in one for one in done.json["by_hand"]), done.json["by_hand"]
    assert box.path_in(SITE).read_text() == text
    assert box.run("nginx", "-t").status == 0


LINE = f"    ssl_certificate {SOURCE}/fullchain.pem; # managed by Certbot\n"
TWO = "    # x\n    ssl_protocols TLSv1.3; ssl_certificate_key"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (block().replace("    ssl_certificate_key", TWO), "holds more than ssl_certificate_key"),
        (block().replace(LINE, "    include snippets/cert.conf;\n"), "comes from an included file"),
    ],
)
def test_what_is_not_understood_is_left_alone(box: Booted, site: Served, text: str, said: str) -> None:
    box.write("/etc/nginx/snippets/cert.conf", f"ssl_certificate {SOURCE}/fullchain.pem;\n")
    open_site(box, text)
    done = setup(site, "--write", "--yes")
    assert any(said in one and "by hand, in the place" in one for one in done["by_hand"]), done["by_hand"]
    assert box.path_in(SITE).read_text() == text


def test_nobody_can_be_asked(site: Served) -> None:
    done = site.stapleguard("setup", "--write")
    assert done.status == 2
    assert "add --yes" in done.stderr


def test_each_change_is_asked_for_on_a_terminal(box: Booted, site: Served) -> None:
    open_site(box, block() + block(OTHER))
    before = files(box)
    ask = "script -qec 'stapleguard --quiet setup --write' /dev/null"
    refused = box.run("sh", "-c", f"printf 'n\\nn\\n' | {ask}")
    assert f"change {SITE}? [y/N]" in refused.stdout
    assert files(box) == before
    agreed = box.run("sh", "-c", f"printf 'n\\ny\\n' | {ask}")
    assert f"{NAME}: verified" in agreed.stdout
    assert files(box).keys() == before.keys(), "only the site's file was agreed to"
    assert f"include /var/lib/stapleguard/live/{NAME}/nginx.conf;" in box.path_in(SITE).read_text()


def test_a_change_by_a_person_is_not_undone(box: Booted, site: Served) -> None:
    open_site(box, block())
    setup(site, "--write", "--yes")
    box.path_in(SITE).write_text(box.path_in(SITE).read_text() + "# mine\n")
    said = site.stapleguard("setup", "--undo").stdout
    assert f"{SITE} was changed since: it stays" in said
    assert box.path_in(SITE).read_text().endswith("# mine\n")
    box.path_in(SITE).write_text(box.path_in(SITE).read_text().removesuffix("# mine\n"))
    assert f"restored {SITE}" in site.stapleguard("setup", "--undo").stdout
    assert box.path_in(SITE).read_text() == block()


def test_a_client_that_names_its_files_is_guarded_and_its_hook_is_told(box: Booted, site: Served) -> None:
    """lego, whose hook entry is on its own command line: what it renews is found by the timer without it."""
    store, name = "/etc/lego/certificates", "lego.site.test"

    def obtain() -> x509.Certificate:
        url = f"http://127.0.0.1:{site.responder.port}/"
        issued = site.authority.issue([name], datetime.now(UTC), LeafOptions(ocsp_url=url))
        box.write(f"{store}/{name}.crt", issued.fullchain_pem.decode())
        box.write(f"{store}/{name}.key", issued.key_pem.decode(), 0o600)
        return issued.certificate

    obtain()
    text = block().replace(f"{SOURCE}/fullchain.pem", f"{store}/{name}.crt").replace(NAME, name)
    open_site(box, text.replace(f"/etc/letsencrypt/live/{name}/privkey.pem", f"{store}/{name}.key"))
    seen = setup(site)
    (client,) = [one for one in seen["clients"] if one["client"] == "lego"]
    assert (client["directory"], client["lineages"]) == (store, [name])
    assert "--deploy-hook 'stapleguard hook'" in client["hook"]
    assert setup(site, "--write", "--yes")["verdicts"] == {name: "verified"}
    new = obtain()
    assert site.stapleguard("retry", name).status == 0
    assert site.look(name).leaf == new
    box.run("rm", "-r", store).succeeded()


def test_the_table_tells_of_resolvers_and_units(box: Booted, site: Served) -> None:
    issued = {"ocsp_url": f"http://ocsp.site.test:{site.responder.port}/"}
    site.renew(**issued)
    open_site(box, block())
    seen = site.stapleguard("setup").stdout
    assert "resolver none  of nginx: it keeps the responder's addresses of its last reload" in seen
    assert "unit     stapleguard-retry.timer  not installed" in seen
    assert "client   certbot  /etc/letsencrypt/live  " in seen
    open_site(box, block(more="    resolver 127.0.0.53;\n"))
    site.stapleguard("install").succeeded()
    told = setup(site)
    assert told["servers"][0]["resolvers"] == ["127.0.0.53"]
    assert not told["servers"][0]["lacks_resolver"]
    assert told["units"]["stapleguard-retry.timer"] == "enabled"
    site.stapleguard("uninstall").succeeded()
    site.renew()
