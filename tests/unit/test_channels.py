"""Alert channels as they are configured, and where their secrets are."""

from __future__ import annotations

from pathlib import Path

import pytest
from stapleguard.alerts.credentials import Missing, Redactor, resolve
from stapleguard.channels import CHANNEL_SCHEMA, Channel, Kind, Reference, Security, Source
from stapleguard.config import parse
from stapleguard.model import UsageError

pytestmark = pytest.mark.unit

SECRET = "xoxb-1234/very+secret"

GOOD = {
    "mail": 'kind = "mail"\nto = ["a@b.test"]\nserver = "[::1]:587"\nuser = "u"\npassword = { env = "P" }',
    "slack": 'kind = "slack"\nurl = { credential = "slack" }',
    "teams": 'kind = "teams"\nurl = { file = "/etc/teams" }\nproxy = "http://p.test:3128"',
    "pager": 'kind = "pagerduty"\ntoken = { credential = "pd" }',
    "am": 'kind = "alertmanager"\nurl = "http://localhost:9093"\nca_file = "/ca.pem"\ntimeout = 3',
    "own": 'kind = "command"\ncommand = ["/bin/tell", "--it"]',
    "more": 'kind = "apprise"\nurl = { env = "APPRISE" }',
}


def one(text: str) -> Channel:
    (channel,) = parse(f"[alerts.x]\n{text}\n", "the.toml").channels.values()
    return channel


@pytest.mark.parametrize("name", GOOD)
def test_what_fits(name: str) -> None:
    assert one(GOOD[name]).kind.value in GOOD[name]


def test_values() -> None:
    assert one(GOOD["mail"]) == Channel(
        "x", Kind.MAIL, to=("a@b.test",), server="[::1]:587", user="u", password=Reference(Source.ENV, "P")
    )
    assert one(GOOD["mail"]).place == ("::1", 587)
    assert one(GOOD["mail"]).security is Security.STARTTLS
    assert one(GOOD["am"]).timeout == 3
    several = parse(f"[alerts]\nrepeat = 5\n[alerts.a]\n{GOOD['own']}\n[alerts.b]\n{GOOD['slack']}", "f")
    assert ([*several.channels], several.alert_repeat) == (["a", "b"], 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("url = 'http://a.test'", "alerts.x has no kind"),
        ("kind = 'fax'", "alerts.x.kind must be one of mail"),
        ("kind = 'slack'", r"alerts.x \(slack\) has no url"),
        ("kind = 'mail'\nserver = 'a:25'", r"alerts.x \(mail\) has no to"),
        ("kind = 'pagerduty'", r"alerts.x \(pagerduty\) has no token"),
        ("kind = 'slack'\nurl = 'http://a'\ncommand = ['/a']", "command has no meaning for slack"),
        ("kind = 'slack'\nurl = 'http://a b'", "alerts.x.url must be a URL"),
        ("kind = 'slack'\nurl = { secret = 'a' }", "alerts.x.url must be { credential"),
        ("kind = 'slack'\nurl = { credential = '../a' }", "alerts.x.url must be { credential"),
        ("kind = 'pagerduty'\ntoken = 'abc'", "alerts.x.token must be { credential"),
        ("kind = 'mail'\nto = [\"a@b.test\\nBcc: c@d.test\"]", "alerts.x.to must be a string on one line"),
        ("kind = 'mail'\nto = ['a@b.test, c@d.test']", "alerts.x.to must be a mail address"),
        ("kind = 'mail'\nto = []", "alerts.x.to must be at least one"),
        ("kind = 'mail'\nto = ['a@b.test']\nserver = 'a'", "alerts.x.server must be HOST:PORT"),
        ("kind = 'mail'\nto = ['a@b.test']\nserver = 'a:25'\nuser = 'u'", "belong together"),
        ("kind = 'mail'\nto = ['a@b.test']\nuser = 'u'\npassword = { env = 'P' }", "a login needs a server"),
        (
            "kind = 'mail'\nto = ['a@b.test']\nserver = 'a:25'\nuser = 'u'\npassword = { env = 'P' }\n"
            "security = 'none'",
            "in clear",
        ),
        ("kind = 'command'\ncommand = ['tell']", "alerts.x.command must be a list"),
        ("kind = 'command'\ncommand = ['/tell']\nproxy = 'p:1'", "alerts.x.proxy must be http://"),
        ("kind = 'slack'\nurls = 1", "unknown key alerts.x.urls"),
    ],
)
def test_what_does_not_fit(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        one(text)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["../a", ".a", "a.b", "a b"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="not an alert channel"):
        parse(f'[alerts."{name}"]\nkind = "slack"', "f")


def test_every_key_is_read_by_some_kind() -> None:
    used = " ".join([*GOOD.values(), "from security sendmail token"])
    assert all(key in used for key in CHANNEL_SCHEMA)


# --- secrets ---------------------------------------------------------------------------------------------


def secret(path: Path, text: str = SECRET + "\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_secret_is_read_where_it_is(tmp_path: Path) -> None:
    given, store = tmp_path / "given", tmp_path / "store"
    given.mkdir()
    store.mkdir()
    file = secret(tmp_path / "file")
    secret(store / "a", "stored")
    reference = Reference(Source.CREDENTIAL, "a")
    assert resolve(Reference(Source.FILE, str(file)), {}) == SECRET
    assert resolve(Reference(Source.ENV, "A"), {"A": SECRET}) == SECRET
    assert resolve(Reference(Source.LITERAL, "http://a"), {}) == "http://a"
    # Where the unit names none, systemd's own store counts.
    assert resolve(reference, {"CREDENTIALS_DIRECTORY": str(given)}, store) == "stored"
    secret(given / "a")
    assert resolve(reference, {"CREDENTIALS_DIRECTORY": str(given)}, store) == SECRET
    assert SECRET not in repr(Reference(Source.LITERAL, SECRET))


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o600, "is empty"),
        (f"{SECRET}\nmore", 0o600, "more than one line"),
        (SECRET, 0o604, "anyone can read it"),
    ],
)
def test_a_secret_that_is_none(tmp_path: Path, text: str, mode: int, said: str) -> None:
    file = secret(tmp_path / "file", text, mode)
    with pytest.raises(Missing, match=said) as caught:
        resolve(Reference(Source.FILE, str(file)), {})
    assert SECRET not in caught.value.message


def test_a_secret_that_is_not_there(tmp_path: Path) -> None:
    for reference in (Reference(Source.FILE, f"{tmp_path}/none"), Reference(Source.ENV, "NONE")):
        with pytest.raises(Missing, match=r"none|NONE"):
            resolve(reference, {})
    with pytest.raises(Missing, match="no file"):
        resolve(Reference(Source.FILE, str(tmp_path)), {})


@pytest.mark.parametrize(
    "said",
    [
        f"bad token {SECRET}",
        "quoted xoxb-1234%2Fvery%2Bsecret",
        "POST /services/T000/B000/verysecretpath?key=abcdef failed",
        "the path services/T000/B000/verysecretpath",
        "only verysecretpath",
    ],
)
def test_secrets_are_taken_out_of_words(said: str) -> None:
    url = "https://hooks.test/services/T000/B000/verysecretpath?key=abcdef"
    redacted = Redactor([SECRET, url])(said)
    assert "[hidden]" in redacted
    assert "secret" not in redacted
    assert Redactor([])(said) == said
    assert "hooks.test" in Redactor([url])(f"cannot connect to hooks.test: {url}")
