"""Certificate lines become one include, and every other byte stays."""

from __future__ import annotations

from pathlib import Path

import crossplane
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stapleguard.servers.edit import Refusal
from stapleguard.servers.nginx_edit import Statement, use_include

pytestmark = pytest.mark.unit

INCLUDE = "include /var/lib/stapleguard/live/a.test/nginx.conf;"
TEXT = """server {
\tlisten 443 ssl; # managed by Certbot
\tssl_certificate /etc/letsencrypt/live/a.test/fullchain.pem; # managed by Certbot
\tssl_certificate_key /etc/letsencrypt/live/a.test/privkey.pem; # managed by Certbot
\tssl_stapling on;
\tssl_stapling_verify on;
\tssl_trusted_certificate /etc/letsencrypt/live/a.test/chain.pem;
\t# ssl_certificate is above
\tlocation / { ssl_verify_client off; }
}
"""


def statements(text: str, folder: Path) -> list[Statement]:
    """As crossplane reads them."""
    file = folder / "site"
    file.write_bytes(text.encode())
    parsed = crossplane.parse(str(file), single=True, check_ctx=False, check_args=False)["config"][0][
        "parsed"
    ]
    return [Statement(one["directive"], one["line"], tuple(one["args"])) for one in parsed[0]["block"]]


def test_the_lines_are_replaced(tmp_path: Path) -> None:
    assert use_include(TEXT, statements(TEXT, tmp_path), INCLUDE) == (
        f"server {{\n\tlisten 443 ssl; # managed by Certbot\n\t{INCLUDE}\n"
        "\t# ssl_certificate is above\n\tlocation / { ssl_verify_client off; }\n}\n"
    )


def test_lines_beside_our_include_go(tmp_path: Path) -> None:
    """As `certbot --nginx` leaves it when it is run again."""
    text = TEXT.replace("\tssl_certificate ", f"\t{INCLUDE}\n\tssl_certificate ", 1)
    assert use_include(text, statements(text, tmp_path), INCLUDE) == use_include(
        TEXT, statements(TEXT, tmp_path), INCLUDE
    )


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    text = TEXT.replace("\n", "\r\n")
    changed = use_include(text, statements(TEXT, tmp_path), INCLUDE)
    assert isinstance(changed, str)
    assert changed.count("\r\n") == changed.count("\n") == TEXT.count("\n") - 4


def test_anchors_for_clients_stay(tmp_path: Path) -> None:
    text = TEXT.replace("\tssl_stapling on;\n", "\tssl_verify_client on;\n")
    changed = use_include(text, statements(text, tmp_path), INCLUDE)
    assert isinstance(changed, str)
    assert "ssl_trusted_certificate" in changed


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\tssl_certificate ", "\tinclude x;\n\t#", "included file"),
        ("\tssl_certificate_key ", "\t#", "included file"),
        ("\tssl_stapling on;", "\tssl_certificate /b;\n\tssl_certificate_key /c;", "several key types"),
        ("/live/a.test/fullchain.pem", "/live/$ssl_server_name/fullchain.pem", "a variable"),
        ("\tssl_stapling on;", "\tssl_stapling on; gzip on;", "holds more than ssl_stapling"),
        ("\tssl_stapling on;", "\tgzip on; ssl_stapling on;", "holds more than ssl_stapling"),
        ("\tssl_stapling on;", "\tssl_stapling\n\ton;", "holds more than ssl_stapling"),
    ],
)
def test_what_is_not_understood_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = TEXT.replace(old, new, 1)
    refused = use_include(text, statements(text, tmp_path), INCLUDE)
    assert isinstance(refused, Refusal)
    assert said in refused.reason


@given(st.text(max_size=200), st.lists(st.integers(-2, 30), max_size=4))
def test_lines_that_are_not_there_are_refused(text: str, lines: list[int]) -> None:
    found = [
        Statement(name, line, ("x",)) for line in lines for name in ("ssl_certificate", "ssl_certificate_key")
    ]
    result = use_include(text, found, INCLUDE)
    assert isinstance(result, Refusal) or "ssl_certificate" in text
