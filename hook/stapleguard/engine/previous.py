"""The generation to go back to: whether it is whole and fit, and what would prove it."""

from __future__ import annotations

from dataclasses import dataclass

from stapleguard.diagnosis import Previous
from stapleguard.disk import BrokenGeneration
from stapleguard.engine.contents import members, staples
from stapleguard.engine.proof import Target
from stapleguard.engine.survey import Survey
from stapleguard.engine.world import World
from stapleguard.finding import Code, find
from stapleguard.material import leaf_facts


@dataclass(frozen=True, slots=True)
class Revival:
    """What is known of the previous generation, and what to look for when it serves again."""

    previous: Previous | None
    target: Target


def revive(world: World, name: str, identity: str, found: Survey) -> Revival:
    """Look at the generation `identity`: what can be told of it before it is needed."""
    if not identity:
        return Revival(None, Target(found.endpoints, (), found.workers))
    try:
        generation = world.state.load(name, identity)
        read = members(generation)
        primed = staples(generation, world.clock.now())
    except (BrokenGeneration, ValueError):
        return Revival(None, Target(found.endpoints, (), found.workers))
    faults = tuple(
        find(Code.SERVER_STAPLE_FILE_BAD, identity, "its staple file is not acceptable any more")
        for one in primed
        if one.life is None
    )
    ends = [one.judgement.next_update for one in primed if one.life is not None]
    known = [end for end in ends if end is not None]
    until = min(known) if len(known) == len(read) else None
    previous = Previous(leaf_facts(read[0].leaf), served_before=True, staple_until=until, faults=faults)
    return Revival(previous, Target(found.endpoints, tuple(one.expected for one in read), found.workers))
