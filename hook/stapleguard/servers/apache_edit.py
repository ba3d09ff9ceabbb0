"""One virtual host of Apache, from certificate lines to the one Include, and the cache that it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from stapleguard.disk import read_bounded
from stapleguard.servers import apache
from stapleguard.servers.edit import (
    Edit,
    Left,
    Link,
    Plan,
    Refusal,
    Wanted,
    file_by_file,
    lines_of,
    only_lineage,
    removed,
    replaced,
)
from stapleguard.servers.words import Instance

_CERTIFICATE: Final = "sslcertificatefile"
_BROUGHT: Final = frozenset(
    {
        _CERTIFICATE, "sslcertificatekeyfile", "sslcertificatechainfile", "sslusestapling",
        "sslstaplingreturnrespondererrors", "sslstaplingfaketrylater", "sslstaplingrespondertimeout",
        "sslstaplingerrorcachetimeout",
    }
)  # fmt: skip
"""Directives that the include brings itself, or that would go before what it brings."""
_OF_SSL: Final = re.compile(r"<ifmodule\s+\"?(?:mod_ssl\.c|ssl_module)\"?\s*>", re.IGNORECASE)

CACHE: Final = 'SSLStaplingCache "shmcb:${APACHE_RUN_DIR}/ssl_stapling(128000)"'
_NAME: Final = "stapleguard.conf"
_CONF_ENABLED: Final = re.compile(r"^\s*IncludeOptional\s+\"?conf-enabled/\*\.conf\"?\s*$", re.I | re.M)
_WHY: Final = "the cache without which Apache does not start once a virtual host staples"


@dataclass(frozen=True, slots=True)
class _Line:
    """One logical line: its first physical one, how many they are, and its words."""

    number: int
    height: int
    text: str

    @property
    def name(self) -> str:
        return (self.text.split(None, 1) or [""])[0].lower()


def plan(instance: Instance, wanted: Sequence[Wanted]) -> Plan:
    """Plan the include of each virtual host, and before all the cache; see `edit.Editor`."""
    loose = tuple(
        Left(one.site.where, Refusal(f"in {instance.config} it stands outside of every virtual host"), (one,))
        for one in wanted
        if not one.line
    )
    made = file_by_file([one for one in wanted if one.line], _change)
    if not made.edits or apache.cached(instance):
        return replace(made, left=(*made.left, *loose))
    cache = _cache(Path(instance.config))
    if not cache:
        hand = f"write {CACHE} outside of every virtual host, and run setup again"
        refusal = Refusal("Apache has no SSLStaplingCache, and setup knows no place for it", hand)
        return Plan((), (*made.left, *loose, *(Left(one.path, refusal) for one in made.edits)))
    return Plan((*cache, *made.edits), (*made.left, *loose))


def _cache(config: Path) -> tuple[Edit, ...]:
    """Add a file of configuration the way `a2enconf` does; nothing where it would not be read."""
    available, enabled = config.parent / "conf-available", config.parent / "conf-enabled"
    read = _CONF_ENABLED.search(config.read_text("utf-8", "replace"))
    if read is None or not available.is_dir() or not enabled.is_dir():
        return ()
    text = f"# Written by `stapleguard setup`: {_WHY}.\n<IfModule mod_ssl.c>\n    {CACHE}\n</IfModule>\n"
    file = Edit(str(available / _NAME), text.encode(), (), _WHY)
    link = Edit(str(enabled / _NAME), Link(f"../conf-available/{_NAME}"), (), _WHY)
    if (enabled / _NAME).is_symlink():
        return ()  # a person's, since it leads to no cache
    there = read_bounded(available / _NAME) if (available / _NAME).exists() else None
    if there == file.after:
        return (link,)  # a2disconf has taken the link away
    return (file, link) if there is None else ()


def _change(path: str, text: str, group: Sequence[Wanted]) -> str | Refusal:
    del path
    one = only_lineage(group)
    if isinstance(one, Refusal):
        return one
    return use_include(text, one.line, len(one.foreign), apache.line(one.live))


def use_include(text: str, line: int, certificates: int, include: str) -> str | Refusal:
    """Put an include in the place of the certificate and stapling lines of the virtual host at a line.

    `certificates` is how many it has besides ours, those of its own includes among them.
    """
    brought: list[_Line] = []
    included = False
    sections: list[str] = []
    for one in _host(text, line):
        if one.text.startswith("</"):
            if not sections:
                break
            sections.pop()
        elif one.text.startswith("<"):
            sections.append(one.text)
        elif one.text == include:
            included = True
        elif one.name in _BROUGHT:
            if not all(_OF_SSL.match(section) for section in sections):
                return Refusal(f"line {one.number} stands under a condition of its own")
            if one.height > 1:
                return Refusal(f"line {one.number} goes on in the next one")
            brought.append(one)
    else:
        return Refusal("it is not understood")
    own = [one for one in brought if one.name == _CERTIFICATE]
    if not own:
        return Refusal("its certificate comes from an included file")
    if len(own) != 1 or certificates != 1:
        return Refusal("it has several certificates")
    gone = [own[0].number, *(one.number for one in brought)]
    # `certbot --apache`, run again, has put its lines beside ours.
    return removed(text, gone) if included else replaced(text, gone, include)


def _host(text: str, line: int) -> Iterator[_Line]:
    """Yield what follows the head of the virtual host at a line; nothing when none is there."""
    found = iter(_logical(text))
    for one in found:
        if one.number == line and one.name == "<virtualhost":
            yield from found


def _logical(text: str) -> Iterator[_Line]:
    """Join lines that end in a backslash, as httpd does, and leave comments and blank ones out."""
    held, first = "", 0
    for number, line in enumerate(lines_of(text), 1):
        plain = line.rstrip("\r\n")
        first = first or number
        if plain.endswith("\\"):
            held += f"{plain[:-1]} "
            continue
        whole = (held + plain).strip()
        if whole and not whole.startswith("#"):
            yield _Line(first, number - first + 1, whole)
        held, first = "", 0
