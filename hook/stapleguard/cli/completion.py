"""Completion for bash, zsh and fish, made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from stapleguard.cli.arguments import parser
from stapleguard.cli.manual import commands
from stapleguard.finding import Code

_PATHS: Final = frozenset({"FILE", "DIR", "PATH", "R.der", "LEAF.pem", "ISSUER.pem"})
"""Values that are paths, by how the parser calls them."""


class Value(Enum):
    """What follows an option."""

    NOTHING = "nothing"
    PATH = "path"
    WORD = "word"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its spellings, what follows it, and which words that may be where they are known."""

    spellings: tuple[str, ...]
    about: str
    value: Value
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """One command, of one word or two; `words` are fixed words that may follow it."""

    name: str
    about: str
    options: tuple[Option, ...]
    words: tuple[str, ...]

    def taking(self, value: Value) -> Iterator[str]:
        """Yield the spellings of every option that such a value follows."""
        yield from (each for one in self.options if one.value is value for each in one.spellings)

    @property
    def offered(self) -> str:
        """Everything that may follow, in one line."""
        return " ".join(sorted({*self.words, *(each for one in self.options for each in one.spellings)}))


def bash() -> str:
    """Return the completion for bash."""
    top, found = _program()
    return f"""# bash completion for stapleguard, made from its own parser.
_stapleguard() {{
    local command= offered= paths= word index previous=${{COMP_WORDS[COMP_CWORD-1]}}
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${{COMP_WORDS[index]}}
{_reading(top, found)}
    done
{_deciding(top, found)}
    COMPREPLY=()
    # Where there is nothing to offer, bash itself offers files (-o default).
    [[ $paths ]] || COMPREPLY=($(compgen -W "$offered" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _stapleguard stapleguard
"""


def zsh() -> str:
    """Return the completion for zsh, as the function `_stapleguard` of its search path."""
    top, found = _program()
    return f"""#compdef stapleguard
# zsh completion for stapleguard, made from its own parser.
local command= offered= paths= word index previous=$words[CURRENT-1]
for ((index = 2; index < CURRENT; index++)); do
        word=$words[index]
{_reading(top, found)}
done
{_deciding(top, found)}
if [[ -n $paths || -z $offered ]]; then _files; else compadd -- ${{=offered}}; fi
"""


def fish() -> str:
    """Return the completion for fish."""
    top, found = _program()
    lines = ["# fish completion for stapleguard, made from its own parser.", "complete -c stapleguard -f"]
    start = "complete -c stapleguard -n __fish_use_subcommand"
    lines += [f"{start} {_fish(one)}" for one in top.options]
    lines += [f"{start} -a {one.name} -d {_quoted(one.about)}" for one in found if " " not in one.name]
    lines += [f"{start} -a {name}" for name in _nested(found)]
    for name, inner in _nested(found).items():
        seen = f"__fish_seen_subcommand_from {name}; and not __fish_seen_subcommand_from {' '.join(inner)}"
        lines.append(f"complete -c stapleguard -n {_quoted(seen)} -a {_quoted(' '.join(inner))}")
    for one in found:
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in one.name.split())
        lines += [f"complete -c stapleguard -n {_quoted(seen)} {_fish(each)}" for each in one.options]
        if one.words:
            lines.append(f"complete -c stapleguard -n {_quoted(seen)} -a {_quoted(' '.join(one.words))}")
    return "\n".join(lines) + "\n"


def _program() -> tuple[Command, tuple[Command, ...]]:
    top = parser()
    return _command("", "", top), tuple(_command(*one) for one in commands(top))


def _command(name: str, about: str, one: argparse.ArgumentParser) -> Command:
    actions = [each for each in one._actions if not isinstance(each.choices, dict)]  # noqa: SLF001 - no public way
    options = tuple(_option(each) for each in actions if each.option_strings)
    fixed = [each for each in actions if not each.option_strings]
    words = [str(word) for each in fixed for word in each.choices or ()]
    words += [code.value for each in fixed if each.dest == "code" for code in Code]
    return Command(name, about, options, tuple(words))


def _option(action: argparse.Action) -> Option:
    value = Value.PATH if action.metavar in _PATHS else Value.WORD
    return Option(
        tuple(action.option_strings),
        (action.help or "").replace("%%", "%"),
        # A value that may be left out is not waited for.
        Value.NOTHING if action.nargs in (0, "?") else value,
        tuple(str(word) for word in action.choices or ()),
    )


def _nested(found: tuple[Command, ...]) -> dict[str, list[str]]:
    """Return the commands that have commands of their own, each with these."""
    inner: dict[str, list[str]] = {}
    for one in found:
        name, _, second = one.name.partition(" ")
        if second:
            inner.setdefault(name, []).append(second)
    return inner


def _reading(top: Command, found: tuple[Command, ...]) -> str:
    """Return lines for bash and zsh that read one word: the command is put together in `command`."""
    skipped = " | ".join([*top.taking(Value.PATH), *top.taking(Value.WORD)])
    nested = " ".join(_nested(found))
    return f"""        case $word in
        {skipped}) ((index++)) ;;
        -*) ;;
        *) command=${{command:+$command+}}$word; [[ " {nested} " == *" $word "* ]] || break ;;
        esac"""


def _deciding(top: Command, found: tuple[Command, ...]) -> str:
    """Return lines for bash and zsh that find what to offer: `offered` words, or `paths`."""
    first = sorted({*top.offered.split(), *(one.name.partition(" ")[0] for one in found)})
    lines = ["    case $command/$previous in"]
    for one in (top, *found):
        name = one.name.replace(" ", "+")
        known = [(each, " ".join(option.known)) for option in one.options for each in option.spellings]
        lines += [f"    {name}/{each}) offered='{words}' ;;" for each, words in known if words]
    for value, then in ((Value.PATH, "paths=yes"), (Value.WORD, "")):
        taking = {each for one in (top, *found) for each in one.taking(value)}
        lines.append(f"    {' | '.join(f'*/{each}' for each in sorted(taking))}) {then} ;;")
    lines += ["    *)", "        case $command in", f"        '') offered='{' '.join(first)}' ;;"]
    lines += [f"        {one.name.replace(' ', '+')}) offered='{one.offered}' ;;" for one in found]
    lines += [f"        {name}) offered='{' '.join(inner)}' ;;" for name, inner in _nested(found).items()]
    return "\n".join([*lines, "        esac ;;", "    esac"])


def _fish(option: Option) -> str:
    names = [f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in option.spellings]
    match option.value:
        case Value.NOTHING:
            taken = ""
        case Value.PATH:
            taken = " -r -F"
        case Value.WORD:
            taken = f" -x -a {_quoted(' '.join(option.known))}" if option.known else " -x"
        case _ as never:
            assert_never(never)
    return f"{' '.join(names)}{taken} -d {_quoted(option.about)}"


def _quoted(text: str) -> str:
    """Quote for fish, where only these two mean anything within single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
