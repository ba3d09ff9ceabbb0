"""The transaction: one table of states and events, and recovery read from its middle.

A state names the act that is about to be done, so it is journalled *before* the act and every act may be
done twice. The engine knows how to do each act; only this table knows what comes next::

    stage -> test -> publish -> check -> reload -> prove -> sealed
      |       |                  |         |         |
      v       v                  v         |         |
    discard <-+------------- unpublish     +----+----+
      |                                         v
      v                                     withdraw -> reload-old -> prove-old -> sealed
    sealed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from stapleguard.model import Json


class State(Enum):
    """What is about to be done, or `SEALED` when nothing is left to do."""

    STAGE = "stage"
    """Write the candidate generation, complete and durable, beside the live one."""
    TEST = "test"
    """Have the server test its configuration with the candidate in the live one's place, where permitted."""
    PUBLISH = "publish"
    """Move `live/NAME` to the candidate by one rename."""
    CHECK = "check"
    """Have the server test its configuration as it stands on disk now."""
    RELOAD = "reload"
    """Make the server load what is live."""
    PROVE = "prove"
    """See the new leaf and its staple on every endpoint and worker."""
    UNPUBLISH = "unpublish"
    """Move `live/NAME` back; the server never loaded the candidate."""
    DISCARD = "discard"
    """Remove the candidate generation."""
    WITHDRAW = "withdraw"
    """Move `live/NAME` back; the server may be running with the candidate."""
    RELOAD_OLD = "reload-old"
    """Make the server load the previous generation again."""
    PROVE_OLD = "prove-old"
    """See the previous generation on every endpoint."""
    SEALED = "sealed"
    """Nothing is left to do; the verdict stands in the record."""


class Event(Enum):
    """How an act ended."""

    DONE = "done"
    FAILED = "failed"
    ABSENT = "absent"
    """There is no running server to do it with; it will load what is live when it starts."""
    CRASHED = "crashed"
    """The process ended in the middle of the act."""


S, E = State, Event
TABLE: Final[Mapping[tuple[State, Event], State]] = {
    (S.STAGE, E.DONE): S.TEST,
    (S.STAGE, E.FAILED): S.DISCARD,
    (S.STAGE, E.CRASHED): S.DISCARD,
    (S.TEST, E.DONE): S.PUBLISH,
    (S.TEST, E.FAILED): S.DISCARD,
    (S.TEST, E.CRASHED): S.DISCARD,
    (S.PUBLISH, E.DONE): S.CHECK,
    (S.PUBLISH, E.FAILED): S.UNPUBLISH,
    (S.PUBLISH, E.CRASHED): S.PUBLISH,
    (S.CHECK, E.DONE): S.RELOAD,
    (S.CHECK, E.FAILED): S.UNPUBLISH,
    (S.CHECK, E.CRASHED): S.CHECK,
    (S.RELOAD, E.DONE): S.PROVE,
    (S.RELOAD, E.FAILED): S.WITHDRAW,
    (S.RELOAD, E.ABSENT): S.SEALED,
    (S.RELOAD, E.CRASHED): S.CHECK,
    (S.PROVE, E.DONE): S.SEALED,
    (S.PROVE, E.FAILED): S.WITHDRAW,
    (S.PROVE, E.CRASHED): S.CHECK,
    (S.UNPUBLISH, E.DONE): S.DISCARD,
    (S.UNPUBLISH, E.FAILED): S.SEALED,
    (S.UNPUBLISH, E.CRASHED): S.UNPUBLISH,
    (S.DISCARD, E.DONE): S.SEALED,
    (S.DISCARD, E.FAILED): S.SEALED,
    (S.DISCARD, E.CRASHED): S.DISCARD,
    (S.WITHDRAW, E.DONE): S.RELOAD_OLD,
    (S.WITHDRAW, E.FAILED): S.SEALED,
    (S.WITHDRAW, E.CRASHED): S.WITHDRAW,
    (S.RELOAD_OLD, E.DONE): S.PROVE_OLD,
    (S.RELOAD_OLD, E.FAILED): S.PROVE_OLD,
    (S.RELOAD_OLD, E.ABSENT): S.SEALED,
    (S.RELOAD_OLD, E.CRASHED): S.WITHDRAW,
    (S.PROVE_OLD, E.DONE): S.SEALED,
    (S.PROVE_OLD, E.FAILED): S.SEALED,
    (S.PROVE_OLD, E.CRASHED): S.WITHDRAW,
}
del S, E


class ProtocolError(Exception):
    """An event that the state does not know: a bug of ours, never the world's."""


def advance(state: State, event: Event) -> State:
    """Return the one state that follows; ProtocolError when the table has none."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ProtocolError(f"{state.value} knows no {event.value}") from None


def recover(state: State) -> State:
    """Return where the next run takes up a transaction that was left in `state`."""
    return state if state is State.SEALED else advance(state, Event.CRASHED)


@dataclass(frozen=True, slots=True)
class Record:
    """The journal's entry of one lineage: its last or its open transaction.

    `previous` is empty for a first deploy. `since` (RFC 3339, UTC) is when this certificate was first
    received: patience with a lagging responder counts from it.
    """

    lineage: str
    state: State
    candidate: str
    previous: str
    since: str
    verdict: str = ""
    cause: str = ""
    ended: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return plain data for the journal file."""
        return {
            "schema": "stapleguard.journal/1",
            "lineage": self.lineage,
            "state": self.state.value,
            "candidate": self.candidate,
            "previous": self.previous,
            "since": self.since,
            "verdict": self.verdict,
            "cause": self.cause,
            "ended": self.ended,
        }

    @classmethod
    def from_json(cls, data: object) -> Record:
        """Read what `to_json` wrote; ValueError for anything else."""
        if not isinstance(data, dict) or data.get("schema") != "stapleguard.journal/1":
            raise ValueError("not a journal entry of this version")
        texts = {key: value for key, value in data.items() if key not in ("schema", "state")}
        if not all(isinstance(value, str) for value in texts.values()):
            raise ValueError("a journal entry holds nothing but texts")
        try:
            return cls(state=State(data.get("state")), **texts)
        except TypeError as error:
            raise ValueError(str(error)) from None
