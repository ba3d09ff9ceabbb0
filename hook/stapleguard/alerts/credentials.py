"""Secrets, read at the moment of sending: from systemd's credentials, a private file or the environment."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, assert_never
from urllib.parse import quote, unquote, urlsplit

from stapleguard.channels import Reference, Source
from stapleguard.model import StapleguardError, escape

STORE: Final = Path("/etc/credstore")
"""Where systemd itself looks for a credential that a unit names (systemd.exec(5), LoadCredential=)."""
_MOST: Final = 4096
_SHORTEST: Final = 4
"""A shorter secret would hide half of every message."""


class Missing(StapleguardError):
    """A secret is not where the configuration says, or others can read it."""


def resolve(reference: Reference, environment: Mapping[str, str], store: Path = STORE) -> str:
    """Return the secret, without the line end of its file; `Missing` names the place, never the value."""
    match reference.source:
        case Source.LITERAL:
            return reference.where
        case Source.ENV:
            return _checked(environment.get(reference.where, ""), f"the variable {reference.where}")
        case Source.FILE:
            return _file(Path(reference.where))
        case Source.CREDENTIAL:
            given = environment.get("CREDENTIALS_DIRECTORY", "")
            inside = Path(given) / reference.where if given else None
            return _file(inside if inside is not None and inside.exists() else store / reference.where)
        case _ as never:
            assert_never(never)


def _file(path: Path) -> str:
    shown = escape(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise Missing(f"cannot read the secret {shown}: {why}", "create it, readable by root only") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) or mode & 0o007:
            raise Missing(f"the secret {shown} is no file, or anyone can read it", f"chmod 600 {shown}")
        data = os.read(descriptor, _MOST)
    finally:
        os.close(descriptor)
    return _checked(data.decode("utf-8", "replace").strip(), f"the secret {shown}")


def _checked(text: str, what: str) -> str:
    if not text:
        raise Missing(f"{what} is empty or not set", "see docs/how-to/alerts.md")
    if not text.isprintable():
        raise Missing(f"{what} has more than one line or a control character", "write the secret alone")
    return text


class Redactor:
    """Takes secrets out of the words of strangers, in whatever form they come back."""

    def __init__(self, secrets: list[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            forms |= {secret, quote(secret, safe=""), quote(secret), unquote(secret), repr(secret)[1:-1]}
            parts = urlsplit(secret) if "://" in secret else None
            if parts is not None:
                # The host of a webhook is no secret, and a person wants to read it.
                forms |= {parts.path, parts.path.lstrip("/"), parts.query, f"{parts.path}?{parts.query}"}
                forms |= {one for one in parts.path.split("/") if len(one) >= 2 * _SHORTEST}
        forms = {one for one in forms if len(one) >= _SHORTEST}
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(one) for one in longest_first)) if forms else None

    def __call__(self, text: str) -> str:
        """Return the text without them, fit for a message."""
        return escape(self._pattern.sub("[hidden]", text) if self._pattern else text, 300)
