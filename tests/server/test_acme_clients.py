"""Real ACME clients and a real CA: dehydrated, lego and uacme renew, and their hook proves it on the wire."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from lab import Completed, Lab, look, require
from lab.tools import REPOSITORY

pytestmark = pytest.mark.server

NAME = "www.site.test"


@pytest.fixture
def lab() -> Iterator[Lab]:
    require("pebble", "unbound", "nginx", "openssl", "mount-namespace", "ipv6")
    with Lab() as made:
        # curl and GnuTLS know no other way to trust the CA's own API.
        store = "/etc/ssl/certs/ca-certificates.crt"
        made.machine.run(["mount", "--bind", str(made.folder / "api.pem"), store]).succeeded()
        try:
            yield made
        except Exception as error:
            error.add_note(made.story())
            raise


class Kept:
    """A hook script that keeps how each call ended, by its first word."""

    def __init__(self, lab: Lab, *argv: str, words: str = '"$@"') -> None:
        self.folder = lab.folder / "kept"
        self.folder.mkdir()
        self.path = self.folder / "hook"
        source = f"PYTHONPATH={REPOSITORY / 'hook'}"
        command = shlex.join(["env", source, *lab.command("hook", *argv)])
        self.path.write_text(
            "#!/bin/sh\n"
            f"out={shlex.quote(str(self.folder))}/${{1:-call}}\n"
            f'{command} {words} >"$out.out" 2>"$out.err"; status=$?\necho $status >"$out.status"\n'
            "# What a client sees of a hook that hands over.\nexit 0\n"
        )
        self.path.chmod(0o755)

    def status(self, word: str = "call") -> int:
        return int((self.folder / f"{word}.status").read_text())

    def said(self, word: str = "call") -> str:
        return "".join((self.folder / f"{word}.{end}").read_text() for end in ("out", "err"))


def url(lab: Lab) -> str:
    return f"https://{lab.net.acme}:{lab.net.acme_port}/dir"


def prove(lab: Lab, kept: Kept, word: str, issue: Callable[[], Completed], leaf: Path) -> x509.Certificate:
    """Issue, let nginx use it, renew: the new leaf is served with a staple, and the hook has said so."""
    issue().succeeded()
    assert kept.status(word) == 7, kept.said(word)  # nothing uses it yet
    lab.configure_site(lab.https_site(NAME, (NAME,)))
    old = x509.load_pem_x509_certificate(leaf.read_bytes())
    issue().succeeded()
    assert kept.status(word) == 0, kept.said(word)
    new = x509.load_pem_x509_certificate(leaf.read_bytes())
    assert new != old
    seen = look(lab.net.web, lab.net.https_port, NAME)
    assert (seen.leaf, seen.proved) == (new, True)
    return new


def test_dehydrated(lab: Lab) -> None:
    require("dehydrated")
    kept = Kept(lab, "--wait", "--json", "--client", "dehydrated")
    base = lab.folder / "dehydrated"
    challenges = lab.www / ".well-known/acme-challenge"
    for folder in (base, challenges):
        folder.mkdir(parents=True)
    (base / "domains.txt").write_text(f"{NAME}\n")
    (base / "config").write_text(
        f'CA="{url(lab)}"\nBASEDIR="{base}"\nWELLKNOWN="{challenges}"\nHOOK="{kept.path}"\nOCSP_FETCH="yes"\n'
        f'DOMAINS_TXT="{base}/domains.txt"\nKEY_ALGO=prime256v1\n'
    )
    # It lets OpenSSL verify the answer, by the system's anchors, and from 3.0.22 on that has a say.
    trust = base / "trust.pem"
    trust.write_bytes(b"".join((lab.folder / one).read_bytes() for one in ("api.pem", "root.pem")))

    def dehydrated(*argv: str) -> Completed:
        words = ["dehydrated", "-f", str(base / "config"), *argv]
        return lab.machine.run(words, {"SSL_CERT_FILE": str(trust)})

    dehydrated("--register", "--accept-terms").succeeded()
    directory = base / "certs" / NAME
    prove(lab, kept, "deploy_cert", lambda: dehydrated("-c", "-x"), directory / "cert.pem")
    assert '"lineage": "www.site.test"' in kept.said("deploy_cert")
    # It fetched the OCSP answer itself and told us; all its other words end well and silently.
    assert kept.status("deploy_ocsp") == 0, kept.said("deploy_ocsp")
    for word in ("startup_hook", "deploy_challenge", "clean_challenge", "exit_hook"):
        assert (kept.status(word), kept.said(word)) == (0, ""), word
    (probe,) = kept.folder.glob("this_hookscript_is_broken__*.status")
    assert probe.read_text() == "0\n"
    dehydrated("-c").succeeded()
    assert kept.status("unchanged_cert") == 0, kept.said("unchanged_cert")


def test_lego(lab: Lab) -> None:
    require("lego")
    kept = Kept(lab, "--wait", "--json")
    home = lab.folder / "lego"
    common = ["lego", "--path", str(home), "--server", url(lab), "--email", "a@site.test", "--accept-tos"]
    common += ["--domains", NAME, "--http", "--http.webroot", str(lab.www)]
    trust = {"LEGO_CA_CERTIFICATES": str(lab.folder / "api.pem")}
    first = [True]

    def issue() -> Completed:
        last = (
            ["run", "--run-hook"]
            if first.pop()
            else ["renew", "--days", "3650", "--no-random-sleep", "--renew-hook"]
        )
        first.append(False)
        return lab.machine.run([*common, *last, str(kept.path)], trust)

    prove(lab, kept, "call", issue, home / "certificates" / f"{NAME}.crt")
    assert "sources" in (lab.state / "live" / NAME / "MANIFEST.json").read_text()


def test_uacme(lab: Lab) -> None:
    require("uacme")
    home = lab.folder / "uacme"
    kept = Kept(lab, "--wait", "--json", "--client", "uacme", "--store", str(home), words=NAME)
    common = ["uacme", "-y", "-c", str(home), "-a", url(lab)]
    challenge = lab.www / ".well-known/acme-challenge"
    challenge.mkdir(parents=True)
    env = {"UACME_CHALLENGE_PATH": str(challenge)}
    lab.machine.run([*common, "new"]).succeeded()
    issue = shlex.join([*common, "-f", "-h", "/usr/share/uacme/uacme.sh", "issue", NAME])

    def renew() -> Completed:
        return lab.machine.run(["sh", "-c", f"{issue} && {shlex.quote(str(kept.path))}"], env)

    prove(lab, kept, "call", renew, home / NAME / "cert.pem")
    # What did not renew calls nothing: uacme ends with 1 when it is not due.
    (kept.folder / "call.status").unlink()
    idle = lab.machine.run(["sh", "-c", f"{issue.replace(' -f ', ' ')} && {kept.path}"], env)
    assert idle.status == 1
    assert not (kept.folder / "call.status").exists()
