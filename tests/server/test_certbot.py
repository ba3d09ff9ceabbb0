"""The whole promise with real parts: certbot renews, its hook publishes, reloads, proves, or goes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from lab import Completed, Lab, Seen, look, require
from lab.client import ECDSA_ONLY, RSA_ONLY
from lab.lab import WORKERS
from lab.tools import REPOSITORY

pytestmark = pytest.mark.server

TOOLS = ("pebble", "unbound", "nginx", "openssl", "mount-namespace", "ipv6")
LOOKS = 24
HURRY = {"prove": "timeout = 8\nquiet = 2", "responder": "wait = 2\npatience = 0"}


@contextmanager
def laboratory(*, certbot: str = "certbot", ocsp_url: bool = True) -> Iterator[Lab]:
    """One laboratory; a failure in it comes with the daemons' logs."""
    require(*TOOLS, certbot)
    with Lab(certbot=certbot, ocsp_url=ocsp_url) as lab:
        try:
            yield lab
        except Exception as error:
            error.add_note(lab.story())
            raise


def guard(lab: Lab, *, listens: tuple[str, ...] = (), names: tuple[str, ...] = ("site.test",)) -> None:
    """Go the tutorial's way up to the first HTTPS: certonly, deploy, one line of include, reload."""
    deployed = lab.stapleguard("deploy", str(lab.issue("site", names)), "--json")
    assert deployed.status == 7, told(deployed)
    assert deployed.json["verdict"] == "inconclusive"
    lab.configure_site(lab.https_site("site", names, listens))


def renew(lab: Lab, lineage: str = "site", *extra: str) -> Completed:
    """`certbot renew` with the documented hook; how the hook ended."""
    hook = lab.hook("hook", "--wait", "--json")
    renewed = lab.renew(lineage, hook.path, *extra)
    assert hook.ran, told(renewed)
    return hook.result()


def told(done: Completed) -> str:
    """Everything that a command said."""
    return f"{' '.join(done.argv)}: {done.status} in {done.seconds:.1f} s\n{done.stdout}\n{done.stderr}"


def looks(
    lab: Lab, *options: str, address: str = "", name: str = "site.test", times: int = LOOKS
) -> list[Seen]:
    """Several fresh handshakes by `openssl s_client`, at most four at a time."""
    where = address or lab.net.web
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda _: look(where, lab.net.https_port, name, options), range(times)))


def look_at_each_worker(lab: Lab) -> list[Seen]:
    """One fresh handshake with every worker by itself."""
    seen = []
    for worker in sorted(lab.workers()):
        with lab.only_worker(worker):
            seen.append(look(lab.net.web, lab.net.https_port, "site.test"))
        assert seen[-1].worker == worker
    assert len(seen) == WORKERS
    return seen


def sha256(leaf: x509.Certificate) -> str:
    return leaf.fingerprint(hashes.SHA256()).hex()


def exact(endpoint: dict[str, Any]) -> dict[str, Any]:
    """What the report says of the workers, without what it does not promise for this case."""
    return {key: endpoint["workers"][key] for key in ("seen", "stapled", "total", "method")}


ALL_WORKERS = {"seen": WORKERS, "stapled": WORKERS, "total": WORKERS, "method": "exact"}


def footprint(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, time and size of everything below a directory, and of the directory."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        seen = path.lstat()
        found[str(path)] = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
    return found


@pytest.mark.parametrize("certbot", ["certbot", "certbot-current"])
def test_renewal_is_proved_on_every_worker_and_a_second_run_touches_nothing(certbot: str) -> None:
    with laboratory(certbot=certbot) as lab:
        guard(lab)
        old = lab.leaf("site")
        # The twin: a reload that nobody warms leaves every worker without a staple.
        assert {(seen.leaf, seen.status) for seen in look_at_each_worker(lab)} == {(old, None)}

        done = renew(lab)

        new = lab.leaf("site")
        assert new != old
        assert done.status == 0, told(done)
        report = done.json
        assert (report["schema"], report["verdict"], report["exit"]) == ("stapleguard.hook/1", "verified", 0)
        assert report["cause"] is None
        assert (report["before"], report["after"]) == (sha256(old), sha256(new))
        [endpoint] = report["endpoints"]
        assert exact(endpoint) == ALL_WORKERS
        assert endpoint["leaf_sha256"] == sha256(new)
        assert endpoint["staple"]["status"] == "good"
        assert all(seen.proved and seen.leaf == new for seen in look_at_each_worker(lab))
        for seen in looks(lab):
            assert (seen.leaf, seen.proved) == (new, True)
            assert seen.worker in lab.workers()

        before, workers = footprint(lab.state), lab.workers()
        again = lab.stapleguard("deploy", str(lab.live / "site"), "--json")
        assert (again.status, again.json["verdict"]) == (0, "verified"), told(again)
        assert footprint(lab.state) == before
        assert lab.workers() == workers

        checked = lab.stapleguard("check", "site", "--json")
        assert (checked.status, checked.json["endpoints"][0]["leaf_sha256"]) == (0, sha256(new)), told(
            checked
        )


def test_without_a_staple_the_old_certificate_comes_back_where_the_policy_says_so() -> None:
    with laboratory() as lab:
        lab.configure(policy='missing_staple = "rollback"', **HURRY)
        guard(lab)
        old = lab.leaf("site")
        lab.responder.know_only(old.serial_number)

        done = renew(lab)

        assert lab.leaf("site") != old
        assert lab.leaf("site").serial_number in lab.responder.asked
        assert done.status == 5, told(done)
        assert done.json["verdict"] == "rolled-back"
        assert done.json["after"] == sha256(old)
        after = looks(lab)
        assert {seen.leaf for seen in after} == {old}
        assert {seen.worker for seen in after} <= lab.workers()
        assert all(seen.proved for seen in after)
        assert all(seen.proved and seen.leaf == old for seen in look_at_each_worker(lab))


def test_without_a_staple_the_new_certificate_stays_and_is_proved_once_the_responder_knows_it() -> None:
    with laboratory() as lab:
        lab.configure(prove=HURRY["prove"])
        guard(lab)
        old = lab.leaf("site")
        lab.responder.know_only(old.serial_number)

        done = renew(lab)

        new = lab.leaf("site")
        assert done.status == 8, told(done)
        assert done.json["verdict"] == "pending"
        after = looks(lab)
        assert {seen.leaf for seen in after} == {new}
        assert {seen.status for seen in after} == {None}

        lab.configure(**HURRY)
        late = lab.stapleguard("retry", "--json")
        assert late.status == 3, told(late)

        lab.responder.know_all()
        cured = lab.stapleguard("retry", "--json")
        assert cured.status == 0, told(cured)
        assert all(seen.proved and seen.leaf == new for seen in looks(lab))


def test_a_certificate_without_a_responder_is_not_applicable_at_once() -> None:
    with laboratory(ocsp_url=False) as lab:
        guard(lab)
        old = lab.leaf("site")

        done = renew(lab)

        new = lab.leaf("site")
        assert done.status == 0, told(done)
        assert done.json["verdict"] == "not-applicable"
        [endpoint] = done.json["endpoints"]
        workers = exact(endpoint)
        assert (workers["seen"], workers["total"], workers["method"]) == (WORKERS, WORKERS, "exact")
        assert endpoint["staple"] is None
        assert done.seconds < 5
        assert new != old
        assert {(seen.leaf, seen.status) for seen in looks(lab)} == {(new, None)}
        assert lab.responder.asked == ()


def test_rsa_and_ecdsa_in_one_block_are_proved_one_by_one() -> None:
    with laboratory() as lab:
        ecdsa, rsa = lab.live / "site", lab.live / "site-rsa"
        lab.configure(f'[lineage.site]\nsources = ["{ecdsa}", "{rsa}"]')
        lab.issue("site-rsa", ["site.test"], "rsa")
        guard(lab)

        for renewed in ("site", "site-rsa"):
            done = renew(lab, renewed)
            assert done.status == 0, told(done)
            shown = {endpoint["key_type"]: endpoint for endpoint in done.json["endpoints"]}
            assert {key: one["leaf_sha256"] for key, one in shown.items()} == {
                "ecdsa": sha256(lab.leaf("site")),
                "rsa": sha256(lab.leaf("site-rsa")),
            }
            assert [exact(one) for one in shown.values()] == [ALL_WORKERS, ALL_WORKERS]

        for leaf, options in ((lab.leaf("site"), ECDSA_ONLY), (lab.leaf("site-rsa"), RSA_ONLY)):
            # In either version the signature algorithms that we offer choose the certificate.
            for version in ("-tls1_2", "-tls1_3"):
                assert all(
                    seen.proved and seen.leaf == leaf for seen in looks(lab, version, *options, times=12)
                )


def test_both_address_families_are_proved() -> None:
    with laboratory() as lab:
        port = lab.net.https_port
        guard(lab, names=("dual.test",), listens=(f"{lab.net.web}:{port}", f"[::1]:{port}"))

        done = renew(lab)

        new = lab.leaf("site")
        assert done.status == 0, told(done)
        shown = {endpoint["address"]: endpoint for endpoint in done.json["endpoints"]}
        assert set(shown) == {lab.net.web, "::1"}
        assert [exact(one) for one in shown.values()] == [ALL_WORKERS, ALL_WORKERS]
        for address in shown:
            assert all(
                seen.proved and seen.leaf == new for seen in looks(lab, address=address, name="dual.test")
            )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        pytest.param({}, "RENEWED_LINEAGE is not set", id="unset"),
        pytest.param({"RENEWED_LINEAGE": "/etc/letsencrypt/live/../x"}, "outside", id="outside"),
    ],
)
def test_a_hook_that_certbot_did_not_call_touches_nothing(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    (tmp_path / "empty.toml").write_text("")
    state = tmp_path / "state"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stapleguard", "--config", str(tmp_path / "empty.toml")),
            *("--state-dir", str(state), "hook", "--wait", "--json"),
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "hook"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not state.exists()
