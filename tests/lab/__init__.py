"""A laboratory: the whole chain from ACME to the stapled handshake, of real parts, on its own loopback."""

from lab.client import Seen, look
from lab.lab import Lab
from lab.process import Completed
from lab.tools import require

__all__ = ["Completed", "Lab", "Seen", "look", "require"]
