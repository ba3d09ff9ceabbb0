"""Edits of a server's own configuration: the step from a certificate's lines to the one line that is ours.

Every server has a module `KIND_edit`, an `Editor`. Its decisions are text in, text or a `Refusal` out; only
lines that it understands as a whole are touched, and every other byte of a file stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from os.path import realpath
from pathlib import Path
from typing import Protocol

from stapleguard.disk import read_bounded
from stapleguard.finding import Finding
from stapleguard.servers.words import Instance, Site


@dataclass(frozen=True, slots=True)
class Wanted:
    """One place of a configuration that is to serve a generation.

    `certificates` are those of the site's paths that hold the lineage's certificate, `live` is the link to
    the generation that is published.
    """

    site: Site
    certificates: tuple[str, ...]
    lineage: str
    live: str

    @property
    def file(self) -> str:
        """The file of the site, links followed: sites-enabled holds links."""
        return realpath(self.site.where.rpartition(":")[0])

    @property
    def foreign(self) -> tuple[str, ...]:
        """The site's certificates that are not those of our generation."""
        ours = str(Path(self.live).parent.parent / "generations" / self.lineage)
        return tuple(path for path in self.site.certificates if not path.startswith(f"{ours}/"))

    @property
    def line(self) -> int:
        """The line of the site, from 1."""
        number = self.site.where.rpartition(":")[2]
        return int(number) if number.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a place is left alone, and what a person must do instead."""

    reason: str
    hand: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A symlink in the place of a file."""

    target: str


@dataclass(frozen=True, slots=True)
class Edit:
    """One file after the step; `why` is for files that serve no lineage themselves."""

    path: str
    after: bytes | Link
    lineages: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """One place that is left alone."""

    where: str
    refusal: Refusal
    wanted: tuple[Wanted, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole step of one installation: files in the order in which they are to be changed."""

    edits: tuple[Edit, ...] = ()
    left: tuple[Left, ...] = ()


class Editor(Protocol):
    """What the edits of one kind of server offer."""

    def plan(self, instance: Instance, wanted: Sequence[Wanted]) -> Plan:
        """Plan the step for these places of one installation; nothing is written."""
        ...


Change = Callable[[str, str, Sequence[Wanted]], str | Refusal]
"""Path and text of a file, and what is wanted of one site in it -> the text after, or why not."""


def file_by_file(wanted: Sequence[Wanted], change: Change) -> Plan:
    """Change every site that is understood in the file that it stands in, and tell of the others."""
    edits: list[Edit] = []
    left: list[Left] = []
    for path, of_file in groupby(sorted(wanted, key=_place), key=lambda one: one.file):
        places = [list(of_site) for _, of_site in groupby(of_file, key=lambda one: one.line)]
        data = read_bounded(Path(path))
        if isinstance(data, Finding):
            left += [Left(group[0].site.where, Refusal(data.message), tuple(group)) for group in places]
            continue
        text = data.decode("utf-8", "surrogateescape")
        done: list[str] = []
        # From the bottom up: the lines of what stands above stay where they were.
        for group in reversed(places):
            changed = change(path, text, group)
            if isinstance(changed, Refusal):
                left.append(Left(group[0].site.where, changed, tuple(group)))
            else:
                text = changed
                done += [one.lineage for one in group]
        if done:
            after = text.encode("utf-8", "surrogateescape")
            edits.append(Edit(path, after, tuple(sorted(set(done)))))
    return Plan(tuple(edits), tuple(left))


def _place(one: Wanted) -> tuple[str, int]:
    return one.file, one.line


def only_lineage(group: Sequence[Wanted]) -> Wanted | Refusal:
    """Return what is wanted of a site that can serve one lineage only."""
    if len({one.lineage for one in group}) > 1:
        return Refusal("it has certificates of several lineages")
    return group[0]


def lines_of(text: str) -> list[str]:
    """Split a text as servers count its lines: at line feeds, and nowhere else."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def replaced(text: str, gone: Sequence[int], statement: str) -> str:
    """Put a statement in the place of lines (from 1): where the first of those given is, indented alike."""
    return "".join(
        _in_its_place(line, statement) if number == gone[0] else line
        for number, line in enumerate(lines_of(text), 1)
        if number == gone[0] or number not in gone
    )


def removed(text: str, gone: Sequence[int]) -> str:
    """Take lines (from 1) away."""
    return "".join(line for number, line in enumerate(lines_of(text), 1) if number not in gone)


def _in_its_place(line: str, statement: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    end = line[len(line.rstrip("\r\n")) :]
    return f"{indent}{statement}{end}"
