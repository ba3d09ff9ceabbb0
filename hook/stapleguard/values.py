"""How one value of the configuration is read: what fits, or a word on what would. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stapleguard.model import UsageError, escape


class Bad(Exception):
    """A value that does not fit; the text says what would."""


@dataclass(frozen=True, slots=True)
class Key:
    """One configuration key: the attribute that it sets, how its value is read, what it is for."""

    attribute: str
    parse: Callable[[object], object]
    about: str


def text(value: object) -> str:
    """Read a string without line ends."""
    if not isinstance(value, str) or any(ord(char) < 32 for char in value):
        raise Bad("a string on one line")
    return value


def path(value: object) -> str:
    """Read an absolute path."""
    read_text = text(value)
    if not read_text.startswith("/"):
        raise Bad("an absolute path")
    return read_text


def seconds(value: object) -> float:
    """Read a duration."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 31_536_000:
        raise Bad("a number of seconds, 0 or more")
    return float(value)


def timeout(value: object) -> float:
    """Read a duration in which something can happen."""
    if seconds(value) < 0.1:
        raise Bad("a number of seconds, 0.1 or more")
    return seconds(value)


def listed(value: object) -> tuple[str, ...]:
    """Read a list of strings."""
    if not isinstance(value, list):
        raise Bad("a list of strings")
    return tuple(text(item) for item in value)


def paths(value: object) -> tuple[str, ...]:
    """Read a list of absolute paths."""
    if not isinstance(value, list):
        raise Bad("a list of absolute paths")
    return tuple(path(item) for item in value)


def read(flat: Mapping[str, object], schema: Mapping[str, Key], file: str, prefix: str) -> dict[str, object]:
    """Read a table by its schema; UsageError names the key and what would fit, or the nearest key."""
    values: dict[str, object] = {}
    for key, value in flat.items():
        known = schema.get(key)
        if known is None:
            import difflib  # only who has mistyped waits for it

            near = difflib.get_close_matches(key, [*schema], n=1, cutoff=0)
            raise UsageError(
                f"{file}: unknown key {escape(prefix + key)}",
                f"did you mean {prefix}{near[0]}?" if near else "remove it",
            )
        try:
            values[known.attribute] = known.parse(value)
        except Bad as expected:
            raise UsageError(f"{file}: {prefix}{key} must be {expected}", known.about) from None
    return values
