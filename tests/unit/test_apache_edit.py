"""A virtual host of Apache gets one Include, and every other byte stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stapleguard.servers.apache_edit import CACHE, plan, use_include
from stapleguard.servers.edit import Link, Refusal, Wanted
from stapleguard.servers.words import Instance, Site

pytestmark = pytest.mark.unit

LIVE = "/var/lib/stapleguard/live/a.test"
INCLUDE = f'Include "{LIVE}/apache.conf"'
TEXT = """<IfModule mod_ssl.c>
<VirtualHost *:80>
\tServerName a.test
</VirtualHost>
<VirtualHost *:443>
\tServerName a.test
\t<Directory /var/www>
\t\tSSLOptions +StdEnvVars
\t</Directory>
Include /etc/letsencrypt/options-ssl-apache.conf
\tSSLCertificateFile /etc/letsencrypt/live/a.test/fullchain.pem
\t# SSLCertificateKeyFile /old
SSLCertificateKeyFile /etc/letsencrypt/live/a.test/privkey.pem
SSLUseStapling on
</VirtualHost>
</IfModule>
"""
HEAD = 5


def test_the_lines_are_replaced() -> None:
    assert use_include(TEXT, HEAD, 1, INCLUDE) == (
        "<IfModule mod_ssl.c>\n<VirtualHost *:80>\n\tServerName a.test\n</VirtualHost>\n<VirtualHost *:443>\n"
        "\tServerName a.test\n\t<Directory /var/www>\n\t\tSSLOptions +StdEnvVars\n\t</Directory>\n"
        f"Include /etc/letsencrypt/options-ssl-apache.conf\n\t{INCLUDE}\n"
        "\t# SSLCertificateKeyFile /old\n</VirtualHost>\n</IfModule>\n"
    )


def test_line_ends_stay_as_they_are() -> None:
    changed = use_include(TEXT.replace("\n", "\r\n"), HEAD, 1, INCLUDE)
    assert isinstance(changed, str)
    assert changed.count("\r\n") == changed.count("\n") == TEXT.count("\n") - 2


def test_lines_beside_our_include_go() -> None:
    """As `certbot --apache` leaves it when it is run again."""
    text = TEXT.replace("\tSSLCertificateFile", f"{INCLUDE}\n\tSSLCertificateFile", 1)
    changed = use_include(text, HEAD, 1, INCLUDE)
    assert changed == use_include(TEXT, HEAD, 1, INCLUDE).replace(f"\t{INCLUDE}", INCLUDE)  # type: ignore[union-attr]


def test_mod_ssl_is_no_condition() -> None:
    text = TEXT.replace("\tSSLCert", "<IfModule ssl_module>\n\tSSLCert", 1)
    text = text.replace("SSLUseStapling on\n", "SSLUseStapling on\n</IfModule>\n")
    changed = use_include(text, HEAD, 1, INCLUDE)
    assert isinstance(changed, str)
    assert f"<IfModule ssl_module>\n\t{INCLUDE}\n" in changed


@pytest.mark.parametrize(
    ("old", "new", "certificates", "said"),
    [
        ("\tSSLCertificateFile", "\tInclude snippet.conf\n#", 1, "from an included file"),
        ("SSLUseStapling on", "SSLCertificateFile /b.pem", 2, "several certificates"),
        ("SSLUseStapling on", "SSLUseStapling on", 2, "several certificates"),
        ("SSLUseStapling on", '<If "true">\nSSLUseStapling on\n</If>', 1, "under a condition"),
        ("SSLUseStapling on", "<IfModule mod_x.c>\nSSLUseStapling on\n</IfModule>", 1, "under a condition"),
        ("SSLUseStapling on", "SSLUseStapling \\\non", 1, "goes on in the next"),
        ("</VirtualHost>\n</IfModule>\n", "", 1, "not understood"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(old: str, new: str, certificates: int, said: str) -> None:
    refused = use_include(TEXT.replace(old, new), HEAD, certificates, INCLUDE)
    assert isinstance(refused, Refusal)
    assert said in refused.reason


@given(st.text(max_size=200), st.integers(-2, 20))
def test_lines_that_are_not_there_are_refused(text: str, line: int) -> None:
    assert isinstance(use_include(text, line, 1, INCLUDE), Refusal)


@pytest.mark.parametrize("line", [1, 2, 6, 10])
def test_another_line_is_no_host_with_a_certificate(line: int) -> None:
    assert isinstance(use_include(TEXT, line, 1, INCLUDE), Refusal)


def layout(folder: Path, main: str) -> tuple[Instance, Wanted]:
    for name in ("conf-available", "conf-enabled"):
        (folder / name).mkdir()
    (folder / "site").write_text(TEXT)
    (folder / "apache2.conf").write_text(f"Include {folder}/site\n{main}\n")
    binary = "/usr/sbin/apache2"
    config = str(folder / "apache2.conf")
    instance = Instance("apache", binary, config, ("-f", config, "-d", str(folder)), "2.4", None)
    site = Site(("a.test",), (), ("/x",), False, False, None, None, (), f"{folder}/site:{HEAD}", (), False)
    return instance, Wanted(site, ("/x",), "a.test", LIVE)


def test_debians_layout_gets_a_cache(tmp_path: Path) -> None:
    instance, wanted = layout(tmp_path, "IncludeOptional conf-enabled/*.conf")
    made = plan(instance, [wanted])
    assert [Path(one.path).relative_to(tmp_path.resolve()) for one in made.edits] == [
        Path("conf-available/stapleguard.conf"), Path("conf-enabled/stapleguard.conf"), Path("site")
    ]  # fmt: skip
    assert isinstance(made.edits[0].after, bytes)
    assert CACHE.encode() in made.edits[0].after
    assert made.edits[1].after == Link("../conf-available/stapleguard.conf")


def test_a_cache_that_is_there_is_enough(tmp_path: Path) -> None:
    instance, wanted = layout(tmp_path, "SSLStaplingCache shmcb:x")
    assert [one.lineages for one in plan(instance, [wanted]).edits] == [("a.test",)]


def test_without_a_place_for_a_cache_nothing_is_changed(tmp_path: Path) -> None:
    instance, wanted = layout(tmp_path, "# IncludeOptional conf-enabled/*.conf")
    made = plan(instance, [wanted])
    assert made.edits == ()
    assert CACHE in made.left[0].refusal.hand


def test_a_cache_that_was_disabled_is_enabled_again_and_a_persons_file_stays(tmp_path: Path) -> None:
    instance, wanted = layout(tmp_path, "IncludeOptional conf-enabled/*.conf")
    file, link, host = plan(instance, [wanted]).edits
    assert isinstance(file.after, bytes)
    Path(file.path).write_bytes(file.after)
    assert plan(instance, [wanted]).edits == (link, host)
    Path(file.path).write_text("# mine\n")
    assert plan(instance, [wanted]).edits == ()
