"""Where ACME clients keep their lineages, by the names that their own programs write."""

from __future__ import annotations

from pathlib import Path

import pytest
from stapleguard.clients.stores import look

pytestmark = pytest.mark.unit

PEMS = ["a.test/cert.pem", "a.test/chain.pem", "a.test/fullchain.pem", "a.test/privkey.pem"]
ACME_SH = ["a.test.cer", "a.test.key", "ca.cer", "fullchain.cer"]
KEPT = {
    "certbot": ("etc/letsencrypt/live", [*PEMS, "README"]),
    "dehydrated": ("var/lib/dehydrated/certs", PEMS),
    "lego": ("etc/lego/certificates", ["a.test.crt", "a.test.key", "a.test.issuer.crt", "a.test.json"]),
    "acme.sh": ("root/.acme.sh", [*(f"a.test_ecc/{file}" for file in ACME_SH), "acme.sh"]),
    "uacme": ("etc/ssl/uacme", ["a.test/cert.pem", "private/a.test/key.pem", "private/key.pem"]),
    "getssl": ("root/.getssl", ["a.test/a.test.crt", "a.test/a.test.key", "a.test/chain.crt", "getssl.cfg"]),
}


def write(root: Path, place: str, files: list[str]) -> None:
    for file in files:
        path = root / place / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("client", KEPT)
def test_a_lineage_is_found_where_its_client_keeps_it(client: str, tmp_path: Path) -> None:
    place, files = KEPT[client]
    write(tmp_path, place, files)
    (store,) = look(tmp_path)
    assert (store.client, store.directory) == (client, str(tmp_path / place))
    (one,) = store.lineages
    assert (one.name, one.client) == ("a.test", client)
    assert bool(store.entry) == (client != "certbot"), "certbot's hook entry is ours to write"
    named = one.files.values() if one.files else [f"{one.directory}/cert.pem"]
    assert all(Path(path).is_file() for path in named)
    assert not one.files or {"privkey", "fullchain"} <= {*one.files} or {"cert", "chain"} <= {*one.files}


@pytest.mark.parametrize("client", KEPT)
def test_half_a_lineage_is_none(client: str, tmp_path: Path) -> None:
    place, files = KEPT[client]
    write(tmp_path, place, files)
    key = next(
        path for path in sorted((tmp_path / place).rglob("*key*"), reverse=True) if "a.test" in str(path)
    )
    key.unlink()
    assert look(tmp_path) == ()


def test_a_name_that_no_lineage_may_have_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "etc/lego/certificates", ["-x.crt", "-x.key"])
    assert look(tmp_path) == ()
