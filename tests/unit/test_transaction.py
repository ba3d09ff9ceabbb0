"""The table of the transaction: complete, deterministic, and never stuck after a crash."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from stapleguard.transaction import TABLE, Event, ProtocolError, Record, State, advance, recover

pytestmark = pytest.mark.unit

OPEN = [state for state in State if state is not State.SEALED]
RECORD = Record(
    "example.test", State.PROVE, "new", "old", "2026-01-02T03:04:05+00:00", "verified", "net.reset", "x"
)


def seal(state: State, events: list[Event]) -> list[State]:
    """Follow `events` and then only DONE; the way that was gone."""
    way = [state]
    while way[-1] is not State.SEALED:
        way.append(advance(way[-1], events.pop(0) if events else Event.DONE))
        assert len(way) <= len(State) + 1, way
    return way


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_pair_has_one_successor_or_is_refused(state: State, event: Event) -> None:
    absent_is_known = state in (State.RELOAD, State.RELOAD_OLD)
    known = state is not State.SEALED and (event is not Event.ABSENT or absent_is_known)
    assert ((state, event) in TABLE) is known
    if known:
        assert advance(state, event) is TABLE[state, event]
    else:
        with pytest.raises(ProtocolError, match=f"{state.value} knows no {event.value}"):
            advance(state, event)


def test_every_state_is_reachable_from_the_first() -> None:
    reached = {State.STAGE}
    for _ in State:
        reached |= {after for (before, _), after in TABLE.items() if before in reached}
    assert reached == set(State)


def test_the_good_way_is_the_published_order() -> None:
    words = "stage test publish check reload prove sealed"
    assert [state.value for state in seal(State.STAGE, [])] == words.split()


@pytest.mark.parametrize("state", [State.RELOAD, State.PROVE])
def test_after_a_reload_every_failure_goes_back_and_proves_it(state: State) -> None:
    assert [one.value for one in seal(state, [Event.FAILED])][1:] == [
        "withdraw",
        "reload-old",
        "prove-old",
        "sealed",
    ]


@pytest.mark.parametrize("state", [State.PUBLISH, State.CHECK])
def test_before_a_reload_a_failure_moves_the_name_back_and_reloads_nothing(state: State) -> None:
    assert seal(state, [Event.FAILED])[1:] == [State.UNPUBLISH, State.DISCARD, State.SEALED]


@pytest.mark.parametrize("state", [State.STAGE, State.TEST])
@pytest.mark.parametrize("event", [Event.FAILED, Event.CRASHED])
def test_before_the_publish_the_name_is_never_touched(state: State, event: Event) -> None:
    assert seal(state, [event])[1:] == [State.DISCARD, State.SEALED]


@pytest.mark.parametrize("state", State)
def test_recovery_ends_sealed_wherever_the_crash_was(state: State) -> None:
    assert seal(recover(state), [])[-1] is State.SEALED


@pytest.mark.parametrize("state", OPEN)
def test_a_crash_during_recovery_changes_nothing(state: State) -> None:
    once = recover(state)
    assert recover(recover(once)) is recover(once)
    assert seal(recover(once), [])[-1] is State.SEALED


@pytest.mark.parametrize("state", [State.WITHDRAW, State.RELOAD_OLD, State.PROVE_OLD])
def test_a_rollback_that_crashed_is_done_again_from_its_beginning(state: State) -> None:
    assert recover(state) is State.WITHDRAW


def test_a_sealed_record_stays_sealed() -> None:
    assert recover(State.SEALED) is State.SEALED


@pytest.mark.parametrize("state", State)
def test_a_record_survives_its_file(state: State) -> None:
    record = replace(RECORD, state=state)
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_what_has_a_default_may_be_absent() -> None:
    data = {key: value for key, value in RECORD.to_json().items() if key not in ("verdict", "cause", "ended")}
    assert Record.from_json(data) == replace(RECORD, verdict="", cause="", ended="")


@pytest.mark.parametrize(
    "junk",
    [
        None,
        [],
        "text",
        {},
        RECORD.to_json() | {"schema": "stapleguard.journal/2"},
        RECORD.to_json() | {"state": "dance"},
        RECORD.to_json() | {"state": []},
        RECORD.to_json() | {"candidate": 3},
        RECORD.to_json() | {"verdict": 3},
        RECORD.to_json() | {"surplus": "text"},
        {key: value for key, value in RECORD.to_json().items() if key != "state"},
        {key: value for key, value in RECORD.to_json().items() if key != "since"},
    ],
)
def test_junk_is_not_a_record(junk: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.from_json(junk)


@pytest.mark.parametrize(
    ("crashed", "taken_up"),
    [
        (State.PUBLISH, State.PUBLISH),
        (State.CHECK, State.CHECK),
        (State.RELOAD, State.CHECK),
        (State.PROVE, State.CHECK),
        (State.UNPUBLISH, State.UNPUBLISH),
        (State.DISCARD, State.DISCARD),
    ],
)
def test_a_crash_never_skips_an_act(crashed: State, taken_up: State) -> None:
    assert recover(crashed) is taken_up
    assert crashed in seal(taken_up, [])


def test_only_a_sealed_record_is_taken_up_sealed() -> None:
    assert [state for state in State if recover(state) is State.SEALED] == [State.SEALED]
