"""Renewals on Apache, HAProxy and lighttpd while eight clients never stop; the figures are printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_servers import APACHE, HAPROXY, HAPROXY_WHEEL, LIGHTTPD, Guarded, Recipe, guarded
from stapleguard.rehearsal.responder import Mode
from test_load import CLIENTS, RENEWALS, Load, back_and_forth, load_on, renew_under

pytestmark = pytest.mark.server

# Fewer in `make test`, where there are many servers and others need the processor, too.
EIGHT_OR_LESS = CLIENTS if RENEWALS > 3 else 3

# How each keeps every client stapled; HAProxy 2.8 without a file fetches after its reload. It is HAProxy all
# the same, and so left to `make load`.
WAYS = [
    pytest.param((APACHE, "auto"), id="apache"),
    pytest.param((HAPROXY, "auto"), id="haproxy"),
    pytest.param((LIGHTTPD, "auto"), id="lighttpd"),
    *([pytest.param((HAPROXY_WHEEL, "file"), id="haproxy-wheel")] if RENEWALS > 3 else []),
]


@pytest.fixture(params=WAYS)
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    recipe, prime = request.param
    with guarded(recipe, tmp_path) as made:
        made.configure(f'prime = "{prime}"')
        yield made


def told(name: str, load: Load, seconds: float) -> None:
    print(f"\nload, {name}: {RENEWALS} renewals in {seconds:.0f} s under load: {load.summary()}")


def test_no_client_is_failed_or_left_bare(on: Guarded, request: pytest.FixtureRequest) -> None:
    on.open()
    with load_on(on.site, EIGHT_OR_LESS) as load:
        assert load.settle(), load.summary()
        seconds = renew_under(load, on.site)
        back_and_forth(load, on.site)
    told(request.node.callspec.id, load, seconds)
    assert not load.failed
    assert (load.bare, load.refused) == (0, Counter())
    assert len(load.leaves) == RENEWALS + 2


@pytest.fixture
def without_socket(tmp_path: Path) -> Iterator[Guarded]:
    recipe = Recipe(
        **{
            **{name: getattr(HAPROXY, name) for name in HAPROXY.__dataclass_fields__},
            "text": lambda *given: HAPROXY.text(*given).replace(" level admin", ""),
        }
    )
    with guarded(recipe, tmp_path) as made:
        yield made


def test_haproxy_without_an_admin_socket_is_reloaded_and_loses_nobody(without_socket: Guarded) -> None:
    without_socket.open()
    before = without_socket.server.said().count("New worker")
    with load_on(without_socket.site, EIGHT_OR_LESS) as load:
        assert load.settle(), load.summary()
        seconds = renew_under(load, without_socket.site)
    told("haproxy by reload", load, seconds)
    assert without_socket.server.said().count("New worker") == before + RENEWALS
    assert not load.failed
    assert (load.bare, load.refused) == (0, Counter())


def test_the_load_sees_what_a_server_without_a_staple_does(tmp_path: Path) -> None:
    """The twin: a staple that is taken away is seen as bare, and the proof does not pass."""
    with guarded(LIGHTTPD, tmp_path) as on:
        on.open()
        on.configure('prime = "warm"', "[responder]\npatience = 0\n")
        on.site.responder.set_mode(Mode.TRY_LATER)
        with load_on(on.site, EIGHT_OR_LESS) as load:
            assert load.settle(), load.summary()
            on.site.renew()
            ended = on.deploy()
            assert load.wait_for(lambda: load.bare > 0), load.summary()
        assert ended.status == 3, ended.out
        assert ended.json["cause"] in ("server.stapling-disabled", "ocsp.try-later")
