"""What it is called when a message was not taken."""

from __future__ import annotations


class SendFault(Exception):
    """The other side did not take a message; the text says why and may hold secrets until it is redacted."""
