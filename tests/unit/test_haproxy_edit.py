"""Our crt-lists in a bind line of HAProxy, where nobody else's certificate changes; our bundles in a list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stapleguard.rehearsal.authority import Authority
from stapleguard.servers.edit import Refusal
from stapleguard.servers.haproxy_config import Option, names_in
from stapleguard.servers.haproxy_edit import use_bundles, use_lists

pytestmark = pytest.mark.unit

LIVE = "/var/lib/stapleguard/live"


def on(
    text: str, options: Sequence[Option], *mine: str, names: dict[str, frozenset[str]] | None = None
) -> str | Refusal:
    owned = {path: f"{LIVE}/{Path(path).stem}" for path in mine}
    every = {path: frozenset({Path(path).stem}) for option in options for path in option.certificates}
    return use_lists(text, 2, options, owned, names or every)


def folder(path: Path, *files: str) -> tuple[Option, tuple[str, ...]]:
    path.mkdir()
    paths = tuple(str(path / file) for file in files)
    return Option("crt", f"{path}/", path, paths), paths


def file(path: str) -> Option:
    return Option("crt", path, Path("/etc/ssl/private", path), (str(Path("/etc/ssl/private", path)),))


def test_a_file_becomes_a_list_where_it_stands() -> None:
    text = "frontend f\n  bind :443 ssl crt a.pem  crt b.pem alpn h2 # crt a.pem\n  mode http\n"
    assert on(text, [file("a.pem"), file("b.pem")], "/etc/ssl/private/b.pem") == text.replace(
        "crt b.pem", f"crt-list {LIVE}/b/haproxy.crtlist"
    )
    both = on(text, [file("a.pem"), file("b.pem")], "/etc/ssl/private/a.pem", "/etc/ssl/private/b.pem")
    assert both == text.replace("crt a.pem", f"crt-list {LIVE}/a/haproxy.crtlist", 1).replace(
        "crt b.pem", f"crt-list {LIVE}/b/haproxy.crtlist"
    )


def test_lists_come_before_a_directory_that_begins_with_ours(tmp_path: Path) -> None:
    option, (a, _, c) = folder(tmp_path / "certs", "a.pem", "b.pem", "c.pem")
    text = f"frontend f\n  bind :443 ssl crt {option.value} alpn h2\n"
    lists = f"crt-list {LIVE}/a/haproxy.crtlist crt-list {LIVE}/c/haproxy.crtlist"
    assert on(text, [option], a, c) == text.replace("crt ", f"{lists} crt ")


def test_who_names_no_host_keeps_its_certificate(tmp_path: Path) -> None:
    option, (a, b) = folder(tmp_path / "certs", "a.pem", "b.pem")
    text = f"frontend f\n  bind :443 ssl crt {option.value}\n"
    refused = on(text, [option], b)
    assert isinstance(refused, Refusal)
    assert f"get {a} now" in refused.reason
    assert f"move {b} out of it and write crt-list {LIVE}/b/haproxy.crtlist behind it" in refused.hand
    # Nobody is served without a name, or an earlier certificate is: then nothing changes for anyone.
    assert isinstance(on(text.replace("\n  bind :443 ssl", "\n  bind :443 ssl strict-sni"), [option], b), str)
    first = file("first.pem")
    assert isinstance(on(text.replace("ssl crt", "ssl crt first.pem crt"), [first, option], b), str)


def test_who_has_a_name_in_common_keeps_its_certificate(tmp_path: Path) -> None:
    option, (a, b, c) = folder(tmp_path / "certs", "a.pem", "b.pem", "c.pem")
    text = f"frontend f\n  bind :443 ssl crt {option.value}\n"
    names = {a: frozenset({"a"}), b: frozenset({"b", "c"}), c: frozenset({"c"})}
    refused = on(text, [option], a, c, names=names)
    assert isinstance(refused, Refusal)
    assert f"{b} comes before {c} for c" in refused.reason


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('bind :443 ssl crt "a.pem"', "quotes"),
        ("bind :443 ssl crt a\\ b.pem", "quotes"),
        ("bind :443 ssl # crt a.pem", "not understood"),
        ("server s 127.0.0.1:1 crt a.pem", "not understood"),
    ],
)
def test_what_is_not_understood_is_refused(line: str, said: str) -> None:
    refused = on(f"frontend f\n{line}\n", [file("a.pem")], "/etc/ssl/private/a.pem")
    assert isinstance(refused, Refusal)
    assert said in refused.reason


def test_entries_of_a_list_keep_their_options() -> None:
    text = "# /a.pem\n/a.pem [alpn h2] a.test !b.test\n\nb.pem\n/a.pem\tother.test\n/c.pem\n"
    owned = {"/a.pem": f"{LIVE}/a", "/base/b.pem": f"{LIVE}/b"}
    assert use_bundles(text, "/base", owned) == (
        f"# /a.pem\n{LIVE}/a/bundle.pem [alpn h2] a.test !b.test\n\n{LIVE}/b/bundle.pem\n"
        f"{LIVE}/a/bundle.pem\tother.test\n/c.pem\n"
    )


@given(st.text(max_size=200))
def test_other_entries_stay_byte_for_byte(text: str) -> None:
    assert use_bundles(text, "", {"/a b": "/x"}) == text
    assert isinstance(use_lists(text, 30, [file("a.pem")], {"/etc/ssl/private/a.pem": "/x"}, {}), Refusal)


def test_names_are_read_beside_a_key(tmp_path: Path) -> None:
    issued = Authority.create(datetime.now(UTC)).issue(["a.test", "*.b.test"], datetime.now(UTC))
    whole = tmp_path / "a.pem"
    whole.write_bytes(issued.key_pem + issued.fullchain_pem)
    assert names_in(str(whole)) == {"a.test", "*.b.test"}
    whole.write_bytes(issued.key_pem)
    assert names_in(str(whole)) == names_in(str(tmp_path / "none")) == frozenset()
