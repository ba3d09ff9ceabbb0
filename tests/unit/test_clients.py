"""What each ACME client says to its hook: recorded calls, the same with a part missing, and who is who.

As lego 4.35.2 and 5.3.1, acme.sh 3.1.4, dehydrated 0.7.2, mod_md 2.6.11, uacme 1.7.4, getssl 2.51 and
caddy-events-exec document or set it; those that Debian packages run in tests/server/test_acme_clients.py and
tests/server/test_mod_md.py. The paths of Caddy are those that its 2.6.2 wrote for a certificate of Pebble.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from lab.tools import REPOSITORY
from stapleguard.cli import main
from stapleguard.cli.arguments import parser
from stapleguard.clients import CLIENTS, Call, Idle, links, receive
from stapleguard.disk import StateDirectory
from stapleguard.model import Renewal, UsageError

pytestmark = pytest.mark.unit

NAME = "www.a.test"


@dataclass(frozen=True)
class Recorded:
    """One call; `{home}` stands for a directory that has the files named."""

    files: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    client: str = ""

    def call(self, home: Path) -> Call:
        def full(text: str) -> str:
            return text.replace("{home}", str(home))

        for file in self.files:
            path = home / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file)
        environment = {key: full(value) for key, value in self.environment.items()}
        options = {key: full(value) for key, value in self.options.items()}
        return Call(environment, tuple(map(full, self.words)), **options)


LEGO = (f"{NAME}.crt", f"{NAME}.key", f"{NAME}.issuer.crt")
DEHYDRATED = tuple(f"certs/{NAME}/{kind}.pem" for kind in ("privkey", "cert", "fullchain", "chain"))
CADDY = f"certificates/127.77.1.1-20016-dir/{NAME}/{NAME}"
RECORDED = {
    "lego 4": Recorded(
        LEGO,
        {
            "LEGO_ACCOUNT_EMAIL": "a@a.test",
            "LEGO_CERT_DOMAIN": NAME,
            "LEGO_CERT_PATH": "{home}/www.a.test.crt",
            "LEGO_CERT_KEY_PATH": "{home}/www.a.test.key",
            "LEGO_ISSUER_CERT_PATH": "{home}/www.a.test.issuer.crt",
        },
    ),
    "lego 5": Recorded(
        LEGO,
        {
            "LEGO_HOOK_ACCOUNT_ID": "a@a.test",
            "LEGO_HOOK_ACCOUNT_SERVER": "https://ca.test/directory",
            "LEGO_HOOK_CERT_NAME": NAME,
            "LEGO_HOOK_CERT_NAME_SANITIZED": NAME,
            "LEGO_HOOK_CERT_KEY_TYPE": "EC256",
            "LEGO_HOOK_CERT_DOMAINS": f"{NAME},a.test",
            "LEGO_HOOK_CERT_PATH": "{home}/www.a.test.crt",
            "LEGO_HOOK_CERT_KEY_PATH": "{home}/www.a.test.key",
            "LEGO_HOOK_ISSUER_CERT_PATH": "{home}/www.a.test.issuer.crt",
        },
    ),
    "acme.sh": Recorded(
        (f"{NAME}.key", f"{NAME}.cer", "ca.cer", "fullchain.cer"),
        {
            "Le_Domain": NAME,
            "CERT_PATH": "{home}/www.a.test.cer",
            "CERT_KEY_PATH": "{home}/www.a.test.key",
            "CA_CERT_PATH": "{home}/ca.cer",
            "CERT_FULLCHAIN_PATH": "{home}/fullchain.cer",
        },
    ),
    "dehydrated": Recorded(
        DEHYDRATED,
        words=("deploy_cert", NAME, *(f"{{home}}/{file}" for file in DEHYDRATED), "1763000000"),
    ),
    "dehydrated unchanged": Recorded(
        DEHYDRATED, words=("unchanged_cert", NAME, *(f"{{home}}/{file}" for file in DEHYDRATED))
    ),
    "dehydrated ocsp": Recorded(
        (*DEHYDRATED, f"certs/{NAME}/ocsp.der"),
        words=("deploy_ocsp", NAME, f"{{home}}/certs/{NAME}/ocsp.der", "1763000000"),
    ),
    "mod_md": Recorded(
        (f"domains/{NAME}/privkey.pem", f"domains/{NAME}/pubcert.pem"),
        words=("installed", NAME),
        options={"store": "{home}"},
    ),
    "uacme": Recorded(
        (f"{NAME}/cert.pem", f"private/{NAME}/key.pem"),
        words=(NAME,),
        options={"store": "{home}"},
        client="uacme",
    ),
    "getssl": Recorded(
        tuple(f".getssl/{NAME}/{file}" for file in (f"{NAME}.key", f"{NAME}.crt", "chain.crt")),
        {"HOME": "{home}"},
        words=(NAME,),
        client="getssl",
    ),
    "caddy": Recorded(
        tuple(f"{CADDY}.{end}" for end in ("crt", "key", "json")),
        words=(NAME, f"{CADDY}.crt", f"{CADDY}.key"),
        options={"store": "{home}"},
        client="caddy",
    ),
    "files (step)": Recorded(
        (f"{NAME}.crt", f"{NAME}.key"),
        options={"cert": f"{{home}}/{NAME}.crt", "key": f"{{home}}/{NAME}.key"},
    ),
    "files with a chain": Recorded(
        (f"{NAME}/cert.pem", f"{NAME}/key.pem", f"{NAME}/ca.pem"),
        options={kind: f"{{home}}/{NAME}/{file}.pem" for kind, file in
                 (("cert", "cert"), ("key", "key"), ("chain", "ca"))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", RECORDED)
def test_a_recorded_call(which: str, tmp_path: Path) -> None:
    recorded = RECORDED[which]
    taken = receive(recorded.call(tmp_path), recorded.client)
    assert isinstance(taken, Renewal)
    assert (taken.name, taken.client) == (NAME, which.split()[0])
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    folder = Path(links.directory(state, taken))
    assert folder.name == NAME
    assert (folder / "privkey.pem").read_text().endswith(("key", "privkey.pem", "key.pem"))
    assert (folder / "fullchain.pem").exists() or (folder / "chain.pem").exists()
    assert (folder / "cert.pem").exists() or (folder / "fullchain.pem").exists()
    # The same again changes nothing.
    before = {path: path.lstat().st_ino for path in folder.iterdir()}
    assert links.directory(state, taken) == str(folder)
    assert {path: path.lstat().st_ino for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("which", "variable"),
    [
        ("lego 4", "LEGO_CERT_PATH"),
        ("lego 4", "LEGO_CERT_KEY_PATH"),
        ("lego 4", "LEGO_CERT_DOMAIN"),
        ("lego 5", "LEGO_HOOK_CERT_PATH"),
        ("lego 5", "LEGO_HOOK_CERT_KEY_PATH"),
        ("lego 5", "LEGO_HOOK_CERT_NAME"),
        ("acme.sh", "Le_Domain"),
        ("acme.sh", "CERT_PATH"),
        ("acme.sh", "CERT_KEY_PATH"),
        ("acme.sh", "CA_CERT_PATH"),
        ("acme.sh", "CERT_FULLCHAIN_PATH"),
    ],
)
def test_half_an_environment_names_what_is_missing(which: str, variable: str, tmp_path: Path) -> None:
    call = RECORDED[which].call(tmp_path)
    for environment in (
        {key: value for key, value in call.environment.items() if key != variable},
        {**call.environment, variable: ""},
    ):
        with pytest.raises(UsageError, match=f"^{variable} is not set") as caught:
            receive(replace(call, environment=environment))
        assert caught.value.hint
    if variable.endswith("PATH"):
        gone = {**call.environment, variable: f"{tmp_path}/gone"}
        with pytest.raises(UsageError, match=f"^{variable} is not a file"):
            receive(replace(call, environment=gone))
        for path in (f"{tmp_path}/x\n", f"{tmp_path}/../{tmp_path.name}/{LEGO[0]}"):
            with pytest.raises(UsageError, match=f"^{variable} is no usable path") as caught:
                receive(replace(call, environment={**call.environment, variable: path}))
            assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("which", "file", "said"),
    [
        ("uacme", f"{NAME}/cert.pem", "the certificate of uacme"),
        ("uacme", f"private/{NAME}/key.pem", "the key of uacme"),
        ("getssl", f".getssl/{NAME}/{NAME}.key", "the key of getssl"),
        ("getssl", f".getssl/{NAME}/{NAME}.crt", "the certificate of getssl"),
        ("getssl", f".getssl/{NAME}/chain.crt", "the chain of getssl"),
        ("caddy", f"{CADDY}.crt", "certificate_path"),
        ("caddy", f"{CADDY}.key", "private_key_path"),
        ("mod_md", f"domains/{NAME}/privkey.pem", "the key in the store"),
        ("files (step)", f"{NAME}.crt", "--cert"),
        ("files (step)", f"{NAME}.key", "--key"),
        ("files with a chain", f"{NAME}/ca.pem", "--chain"),
    ],
)
def test_a_file_that_is_missing_is_named(which: str, file: str, said: str, tmp_path: Path) -> None:
    call = RECORDED[which].call(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(UsageError, match=f"^{said} is not a file: .*{file}$") as caught:
        receive(call, RECORDED[which].client)
    assert "has the client written it" in (caught.value.hint or "")


def test_mod_md_without_its_certificate_and_certbot_without_its_lineage(tmp_path: Path) -> None:
    call = RECORDED["mod_md"].call(tmp_path)
    (tmp_path / f"domains/{NAME}/pubcert.pem").unlink()
    with pytest.raises(UsageError, match=f"the store of mod_md has no certificate of {NAME}") as caught:
        receive(call)
    assert str(tmp_path) in (caught.value.hint or "")
    with pytest.raises(UsageError, match=r"^RENEWED_LINEAGE is not set$") as caught:
        receive(Call({"RENEWED_DOMAINS": NAME}))
    assert "--deploy-hook 'stapleguard hook'" in (caught.value.hint or "")


@pytest.mark.parametrize("which", ["dehydrated", "dehydrated unchanged", "dehydrated ocsp"])
def test_half_a_word_names_what_is_missing(which: str, tmp_path: Path) -> None:
    call = RECORDED[which].call(tmp_path)
    names = (
        ["DOMAIN", "OCSPFILE"]
        if "ocsp" in which
        else ["DOMAIN", "KEYFILE", "CERTFILE", "FULLCHAINFILE", "CHAINFILE"]
    )
    for position, name in enumerate(names, 1):
        with pytest.raises(UsageError, match=f"without {name}"):
            receive(replace(call, words=call.words[:position]))


@pytest.mark.parametrize(
    ("words", "client", "said"),
    [
        (("installed",), "", "without a domain"),
        (("installed", "../x"), "", "is no name for a lineage"),
        (("installed", NAME), "", "no store of mod_md has"),
        ((), "uacme", "needs the certificate's name"),
        (("../x",), "uacme", "is no name for a lineage"),
        ((NAME,), "getssl", "is not a file"),
        ((NAME,), "caddy", "without certificate_path"),
        ((NAME, "x.crt"), "caddy", "without private_key_path"),
        ((), "dehydrated", "dehydrated gave no word"),
        (("frobnicate",), "", "no ACME client calls its hook with frobnicate"),
        ((), "lego", "LEGO_CERT_PATH is not set"),
        ((), "", "RENEWED_LINEAGE is not set, nor"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], client: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        receive(Call({"HOME": str(tmp_path)}, words, store=str(tmp_path)), client)
    assert caught.value.hint


def hooked(capsys: pytest.CaptureFixture[str], tmp_path: Path, *words: str) -> tuple[int, str]:
    common = ["--config", str(tmp_path / "none.toml"), "--state-dir", str(tmp_path / "state")]
    (tmp_path / "none.toml").touch()
    with pytest.raises(SystemExit) as ended:
        main([*common, "hook", "--store", str(tmp_path), *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


def test_mod_md_is_never_made_to_wait_for_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    RECORDED["mod_md"].call(tmp_path)
    status, said = hooked(capsys, tmp_path, "installed", NAME)
    assert (status, said) == (0, f"stapleguard: queued {NAME} from mod_md; `stapleguard retry` proves it\n")
    assert [*StateDirectory(tmp_path / "state").queue()] == [NAME]
    status, said = hooked(capsys, tmp_path, "--wait", "installed", NAME)
    assert status == 2
    assert "--wait cannot be used by mod_md" in said
    assert "hint: " in said


@pytest.mark.parametrize(("given", "missing"), [("cert", "--key"), ("key", "--cert"), ("chain", "--cert")])
def test_files_come_together(given: str, missing: str) -> None:
    with pytest.raises(UsageError, match=f"^{missing} is missing"):
        receive(replace(Call({}), **{given: "/x"}))


@pytest.mark.parametrize(
    "words",
    [
        (
            "this_hookscript_is_broken__dehydrated_is_working_fine__please_ignore_unknown_hooks_in_your_script",
        ),
        ("startup_hook",),
        ("exit_hook", "an error\nof many lines"),
        ("deploy_challenge", NAME, "token", "value"),
        ("sync_cert", "a", "b", "c", "d", "e"),
        ("request_failure", "404", "--reason", "HEAD", "x: y"),
        ("renewed", NAME),
        ("errored", NAME),
        ("ocsp-renewed", NAME),
        ("challenge-setup:http-01:a.test", NAME),
    ],
)
def test_what_is_none_of_our_business_is_a_success(words: tuple[str, ...]) -> None:
    assert isinstance(receive(Call({}, words)), Idle)


def test_a_word_of_tomorrow_is_a_success_where_dehydrated_is_named() -> None:
    assert receive(Call({}, ("deploy_moon", "x")), "dehydrated") == Idle("dehydrated", "deploy_moon")


def test_getssl_is_looked_for_where_it_looks_and_in_a_store(tmp_path: Path) -> None:
    call = RECORDED["getssl"].call(tmp_path)
    (tmp_path / "etc").mkdir()
    moved = (tmp_path / ".getssl").rename(tmp_path / "etc" / "getssl")
    with pytest.raises(UsageError, match=r"^the key of getssl is not a file: .*/\.getssl/"):
        receive(call, "getssl")
    taken = receive(replace(call, store=str(moved)), "getssl")
    assert isinstance(taken, Renewal)
    assert taken.files["chain"] == f"{moved}/{NAME}/chain.crt"


def test_two_at_once_are_refused_unless_one_is_named(tmp_path: Path) -> None:
    lego, acmesh = (RECORDED[one].call(tmp_path).environment for one in ("lego 4", "acme.sh"))
    both = Call({**lego, **acmesh})
    with pytest.raises(UsageError, match=r"could be that of lego and acme\.sh"):
        receive(both)
    assert receive(both, "acme.sh").client == "acme.sh"
    # What is given by hand counts before an environment that may be left over.
    by_hand = RECORDED["files (step)"].call(tmp_path)
    assert receive(replace(both, cert=by_hand.cert, key=by_hand.key)).client == "files"


def test_a_name_of_ones_own(tmp_path: Path) -> None:
    call = RECORDED["dehydrated"].call(tmp_path)
    taken = receive(replace(call, name="own"))
    assert isinstance(taken, Renewal)
    assert (taken.name, taken.directory) == ("own", "")
    with pytest.raises(UsageError, match="--name is no name"):
        receive(replace(call, name="../x"))


def test_links_follow_the_client(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    folder = Path(
        links.directory(state, Renewal("a", "", (), "x", {"privkey": "/k1", "cert": "/c", "chain": "/h"}))
    )
    links.directory(state, Renewal("a", "", (), "x", {"privkey": "/k2", "fullchain": "/f"}))
    assert {one.name: str(one.readlink()) for one in folder.iterdir()} == {
        "privkey.pem": "/k2",
        "fullchain.pem": "/f",
    }
    assert folder.stat().st_mode & 0o777 == 0o700


def written(line: str, recorded: Recorded) -> list[str]:
    """What our program is called with where a person has written this line, `hook` not included."""
    command = line.partition("stapleguard hook")[2].replace('"$@"', "").rstrip("'\" ")
    given = shlex.split(command.replace("example.org", NAME))
    # The client itself puts these in, or behind.
    words = iter(recorded.words)
    filled = [next(words) if one.startswith("{") else one for one in given]
    return filled if "{" in line or NAME in filled else [*filled, *recorded.words]


@pytest.mark.parametrize("client", [one for one in CLIENTS if one != "certbot"])
def test_the_line_that_we_name_is_one_that_we_take(
    client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = {"lego": "lego 5", "files": "files (step)"}.get(client, client)
    recorded = RECORDED[which]
    call = recorded.call(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = parser().parse_args(["hook", *written(CLIENTS[client].line, recorded)])
    words = [one.replace("{home}", str(tmp_path)) for one in arguments.words]
    given = (arguments.name, arguments.cert, arguments.key, arguments.chain, call.store)
    taken = receive(Call(call.environment, tuple(words), *given), arguments.client)
    assert isinstance(taken, Renewal)
    assert (taken.client, taken.name) == (client, NAME)


def test_the_page_and_the_help_have_every_line() -> None:
    page = (REPOSITORY / "docs/how-to/acme-clients.md").read_text()
    argv = [sys.executable, "-m", "stapleguard", "hook", "--help"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    for one in CLIENTS.values():
        assert one.line in page, one.name
        assert f"  {one.line}\n" in shown


def test_every_client_has_a_recorded_call() -> None:
    assert {one.split()[0] for one in RECORDED} | {"certbot"} == set(CLIENTS)
