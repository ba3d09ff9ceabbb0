"""What is deployed and pending, read from the state directory alone."""

from __future__ import annotations

from dataclasses import dataclass

from stapleguard import ocsp
from stapleguard.engine.previous import expectations
from stapleguard.engine.world import World
from stapleguard.model import Json, StapleguardError


@dataclass(frozen=True, slots=True)
class Status:
    """The same facts twice: for a program and for a person."""

    json: dict[str, Json]
    text: str


def status(world: World) -> Status:
    """Read every live generation, its record and the queue."""
    now = world.clock.now()
    pending = world.state.queue()
    rows: list[dict[str, Json]] = []
    lines: list[str] = []
    for name in world.state.lineages():
        record = world.state.record(name)
        row: dict[str, Json] = {
            "lineage": name,
            "generation": world.state.live(name),
            "verdict": record.verdict if record else None,
            "cause": record.cause or None if record else None,
            "pending": name in pending,
        }
        life = staple = "?"
        try:
            generation = world.state.load(name, world.state.live(name))
            expected, leaf = expectations(generation)[0]
            row["leaf_sha256"] = expected.sha256
            row["not_after"] = leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
            life = f"{(leaf.not_valid_after_utc - now).days} days left"
            der = generation.files.get("ocsp.der")
            staple = "fetched by the server" if expected.need.value == "staple" else "not applicable"
            if der is not None and expected.issuer is not None:
                until = ocsp.judge(der, leaf, expected.issuer, now).next_update
                staple = f"file until {until:%Y-%m-%d %H:%M} UTC" if until else "file"
            row["staple"] = staple
        except (StapleguardError, ValueError, IndexError) as error:
            row["damaged"] = str(error)
            life = f"damaged: {error}"
        rows.append(row)
        verdict = (record.verdict or record.state.value) if record else "-"
        waiting = "  pending" if name in pending else ""
        lines.append(f"{name:<32} {verdict:<15} certificate {life}, staple {staple}{waiting}")
    others: list[Json] = [name for name in pending if name not in world.state.lineages()]
    lines += [f"{name:<32} pending" for name in others]
    document: dict[str, Json] = {"schema": "stapleguard.status/1", "lineages": rows, "pending": [*pending]}
    return Status(document, "\n".join(lines) or "nothing is deployed yet; see `stapleguard deploy --help`")
