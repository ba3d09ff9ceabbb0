"""dehydrated's hook: a word and its arguments (dehydrated, docs/examples/hook.sh).

It aborts its whole run when a hook fails, and calls every hook with words that come with later versions, or
that are made up to find out whether a hook fails on them: what we do not know is a success without a word.
"""

from __future__ import annotations

from pathlib import Path

from stapleguard.clients.call import Call, Client, Idle, from_directory, from_files, named
from stapleguard.model import Renewal, UsageError

_KNOWN = frozenset(
    {
        "deploy_challenge",
        "clean_challenge",
        "sync_cert",
        "deploy_cert",
        "deploy_ocsp",
        "unchanged_cert",
        "invalid_challenge",
        "request_failure",
        "generate_csr",
        "startup_hook",
        "exit_hook",
    }
)
_PROBE = "this_hookscript_is_broken__"
_FILES = ("KEYFILE", "CERTFILE", "FULLCHAINFILE", "CHAINFILE")
_KINDS = ("privkey", "cert", "fullchain", "chain")


def _calls(call: Call) -> bool:
    return bool(call.words) and (call.words[0] in _KNOWN or call.words[0].startswith(_PROBE))


def _receive(call: Call) -> Renewal | Idle:
    match call.words:
        case ["deploy_cert" | "unchanged_cert" as word, *rest]:
            return _certificate(call, word, rest)
        case ["deploy_ocsp", *rest]:
            domain, file = _arguments("deploy_ocsp", ("DOMAIN", "OCSPFILE"), rest)
            folder = Path(file).parent
            return from_directory("dehydrated", named(domain, "DOMAIN"), (domain,), folder, "OCSPFILE")
        case [word, *_]:
            return Idle("dehydrated", word)
        case _:
            raise UsageError(
                "dehydrated gave no word",
                'its HOOK is a script: exec stapleguard hook --client dehydrated "$@"',
            )


def _certificate(call: Call, word: str, rest: list[str]) -> Renewal:
    domain, *paths = _arguments(word, ("DOMAIN", *_FILES), rest)
    folder = Path(paths[0]).parent
    usual = [str(folder / f"{kind}.pem") for kind in _KINDS]
    if paths == usual and not call.name:
        return from_directory("dehydrated", named(folder.name, "DOMAIN"), (domain,), folder, "KEYFILE")
    files = {kind: (what, path) for kind, what, path in zip(_KINDS, _FILES, paths, strict=True)}
    return from_files("dehydrated", call.name or named(domain, "DOMAIN"), (domain,), files)


def _arguments(word: str, names: tuple[str, ...], given: list[str]) -> list[str]:
    missing = [name for position, name in enumerate(names) if not "".join(given[position : position + 1])]
    if missing:
        raise UsageError(
            f"{word} of dehydrated came without {missing[0]}", f"it gives {' '.join(names)} to its hook"
        )
    return given[: len(names)]


CLIENT = Client("dehydrated", 'exec stapleguard hook --client dehydrated "$@"', _calls, _receive)
