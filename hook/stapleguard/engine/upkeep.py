"""What the timer and a handed-over hook do: pending work whose time has come, and what is deployed, again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from stapleguard import host
from stapleguard.backoff import Attempts, Pace
from stapleguard.diagnosis import Result, may_pass
from stapleguard.disk import read_bounded
from stapleguard.engine import intake
from stapleguard.engine.deploy import deploy
from stapleguard.engine.refresh import broken, in_care, refresh
from stapleguard.engine.run import Budget
from stapleguard.engine.world import World
from stapleguard.finding import Finding
from stapleguard.model import Interrupted, Json, LockBusy, StapleguardError, UsageError, escape
from stapleguard.trouble import GOOD

NOTE: Final = "attempts"
"""The observation that holds when each lineage and each responder may be tried again."""


def keep_up(world: World, budget: Budget) -> Iterator[Result]:
    """Refresh staple files, then attend to each lineage whose time has come; the caller holds the lock."""
    refreshed = refresh(world, budget)
    yield from refreshed
    # Where a staple file nears its end a proof of today would say that all is well.
    done = {str(one.extra.get("lineage")) for one in refreshed} | in_care(world)
    for name in sorted({*world.state.queue(), *world.state.lineages()}):
        # What a hook has just written waits for nothing.
        if world.state.requested(name) or (name not in done and due(world, name)):
            yield _attend_to_any(world, name, budget)


def _attend_to_any(world: World, name: str, budget: Budget) -> Result:
    """Attend to a lineage of which perhaps nothing but an old queue entry is left."""
    try:
        return attend(world, name, budget)
    except UsageError as error:
        return broken("retry", name, error)


def attend(world: World, name: str, budget: Budget) -> Result:
    """Deploy one lineage from where its files come from, or prove it again, and note how that went."""
    world.state.take(name)
    sources = sources_of(world, name)
    try:
        result = deploy(world, name, sources, budget)
    except (Interrupted, LockBusy):
        raise
    except StapleguardError as error:
        result = broken("retry", name, error)
    _note(world, name, sources, result)
    return replace(result, command="retry")


def due(world: World, name: str) -> bool:
    """Whether a lineage, and each responder that it failed on, may be tried again."""
    noted = world.state.observation(NOTE)
    now, cap = world.clock.now(), max(world.config.retry_cap, world.config.watch_interval)
    own = Attempts.from_json(noted.get(name))
    return all(
        one.due(now, cap) for one in (own, *(Attempts.from_json(noted.get(host_key(on))) for on in own.on))
    )


def host_key(name: str) -> str:
    """Return what the attempts at a responder are noted under; no lineage is called that."""
    return f"//{name}"


def sources_of(world: World, name: str) -> tuple[str, ...]:
    """Return the directories of a lineage: configured, queued, or those that its live generation came from.

    Where the ACME client has removed them what is live is its own source: it can be proved, not renewed.
    """
    configured = world.config.lineage(name).sources
    if configured:
        return configured
    listed = world.state.queue().get(name, {}).get("sources")
    queued = tuple(str(one) for one in listed) if isinstance(listed, list) else ()
    live = world.state.live(name)
    origin: tuple[str, ...] = ()
    if live:
        try:
            came = world.state.load(name, live).manifest.get("origin")
        except StapleguardError:
            came = None
        paths = [str(one) for one in came] if isinstance(came, list) else []
        origin = tuple(str(Path(path).parent) for path in paths if path and not path.startswith("-"))
    found = tuple(one for one in (queued or origin) if Path(one).is_dir())
    if found:
        return found
    if live:
        return (str(world.state.live_path(name)),)
    raise UsageError(
        f"nothing is known of {escape(name)}", "run `stapleguard status` to see what is deployed or pending"
    )


def standing_sources_of(world: World, name: str) -> tuple[str, ...]:
    """Return the directories of a lineage that is only looked at; none where nothing of it was deployed."""
    return sources_of(world, name) if world.state.live(name) else world.config.lineage(name).sources


def _note(world: World, name: str, sources: Sequence[str], result: Result) -> None:
    now, settings = world.clock.now(), world.config
    noted: dict[str, Json] = dict(world.state.observation(NOTE))
    hosts = _responders(sources)
    if result.verdict in GOOD:
        noted[name] = Attempts.passed(now, settings.watch_interval, host.draw()).to_json()
        for one in hosts:
            noted.pop(host_key(one), None)
    else:
        pace = Pace(settings.retry_floor, settings.retry_cap)
        on = hosts if may_pass(result.cause) else ()
        for one in on:
            tried = Attempts.from_json(noted.get(host_key(one)))
            noted[host_key(one)] = tried.failed(now, pace, host.draw()).to_json()
        noted[name] = Attempts.from_json(noted.get(name)).failed(now, pace, host.draw(), on).to_json()
    known = {*world.state.lineages(), *world.state.queue()}
    world.state.observe(
        NOTE, {key: one for key, one in noted.items() if key in known or key.startswith("//")}
    )


def _responders(sources: Sequence[str]) -> tuple[str, ...]:
    """Return the hosts of the responders that the sources' leaves name."""
    hosts: list[str] = []
    for source in sources:
        for file in ("cert.pem", "fullchain.pem"):
            data = read_bounded(Path(source) / file)
            if isinstance(data, Finding):
                continue
            try:
                leaf = x509.load_pem_x509_certificate(data)
            except ValueError:
                continue
            hosts += [urlsplit(url).netloc for url in intake.responders(leaf)]
            break
    return tuple(dict.fromkeys(hosts))
