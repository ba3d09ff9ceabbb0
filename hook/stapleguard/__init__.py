"""stapleguard: the last step of a certificate renewal."""

__version__ = "0.1.0"
