"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The sizes of a run; `--quick` has fewer rounds of everything."""

    quick: bool = False

    @property
    def rounds(self) -> int:
        """Rounds that count, after one that does not."""
        return 3 if self.quick else 7

    @property
    def many(self) -> int:
        """Handshakes per round of what is fast."""
        return 200 if self.quick else 400

    @property
    def few(self) -> int:
        """Checks per round of what takes a process each."""
        return 20 if self.quick else 40

    @property
    def starts(self) -> int:
        """Rounds of cold starts."""
        return 5 if self.quick else 15

    @property
    def fleet(self) -> int:
        """Endpoints of the fleet."""
        return 1000 if self.quick else 5000

    @property
    def fleet_rounds(self) -> int:
        """Rounds of the fleet."""
        return 2 if self.quick else 5
