"""What every kind of server must do, shown on the real ones; a new kind is right when it passes here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from real_nginx import until
from real_servers import APACHE, RECIPES, Guarded, guarded
from site_lab import NAME
from stapleguard.model import Ask, Endpoint, StapleguardError
from stapleguard.servers import SERVERS, ConfigOutcome, Include, Instance, Server, Stapling
from stapleguard.wire.handshake import Limits, observe

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", params=RECIPES)
def on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One site for all tests of a kind; each leaves it running with the configuration that it had."""
    with guarded(request.param, tmp_path_factory.mktemp("contract")) as made:
        made.server.write(made.line)
        server, instance = found(made)
        (unpublished,) = [one for one in server.sites(instance, str(made.site.state)) if one.guards]
        # The line may be there before the first deploy is.
        assert unpublished.guards == (NAME,)
        assert unpublished.listens == (("127.0.0.1", made.server.port),)
        made.open()
        yield made


def found(on: Guarded) -> tuple[Server, Instance]:
    server = SERVERS[on.server.recipe.kind]
    (instance,) = server.instances(on.server.binary, str(on.server.config))
    return server, instance


def served(on: Guarded) -> bytes:
    ask = Ask(Endpoint(NAME, on.server.port, NAME, "127.0.0.1"))
    (seen,) = observe([ask], Limits(), now=lambda: datetime.now(UTC))
    return seen.chain[0] if seen.chain else b""


def test_it_is_found_running_and_idle(on: Guarded) -> None:
    server, instance = found(on)
    assert (instance.kind, instance.config) == (on.server.recipe.kind, str(on.server.config))
    assert instance.master == on.server.pid
    assert instance.version
    # lighttpd names none: its restart would wait for the lines that are held open to one.
    assert bool(server.workers(instance)) is (instance.kind != "lighttpd")
    on.server.stop()
    _, idle = found(on)
    assert idle.master is None
    assert server.workers(idle) == ()
    on.server.start()


def test_its_sites_name_address_lineage_and_certificate(on: Guarded) -> None:
    server, instance = found(on)
    (site,) = [site for site in server.sites(instance, str(on.site.state)) if site.guards]
    assert (site.guards, site.listens) == ((NAME,), (("127.0.0.1", on.server.port),))
    assert site.certificates
    assert all(Path(path).is_file() for path in site.certificates)
    elsewhere = server.sites(instance, "/nowhere")
    assert not any(one.guards for one in elsewhere)


def test_its_own_test_accepts_what_is_rendered_and_refuses_what_is_broken(on: Guarded) -> None:
    server, instance = found(on)
    assert server.test(instance, 30).outcome is ConfigOutcome.ACCEPTED
    good = on.server.config.read_text()
    on.server.config.write_text(good + "\n}nonsense on\n")
    refused = server.test(instance, 30)
    on.server.config.write_text(good)
    assert refused.outcome is ConfigOutcome.REFUSED
    assert refused.refusals


def test_a_candidate_is_tested_without_being_published(on: Guarded) -> None:
    server, instance = found(on)
    live = on.live.resolve()
    good, bad = (on.site.state / "generations" / NAME / name for name in ("good", "bad"))
    for copy in (good, bad):
        copy.mkdir(mode=0o700)
        for file in live.iterdir():
            text = file.read_bytes().replace(str(live).encode(), str(copy).encode())
            (copy / file.name).write_bytes(text)
    for name in ("fullchain.pem", "bundle.pem"):
        if on.server.recipe is APACHE:
            (bad / name).unlink()  # of a file that is there it reads nothing before it starts
        else:
            (bad / name).write_text("not a certificate\n")
    include = server.INCLUDE
    tested = server.test_candidate(instance, str(good / include), str(live / include), 30)
    if tested is None:
        pytest.skip("no right to bind a file over another")
    assert tested.outcome is ConfigOutcome.ACCEPTED, tested.text
    spoilt = server.test_candidate(instance, str(bad / include), str(live / include), 30)
    assert spoilt is not None
    assert spoilt.outcome is ConfigOutcome.REFUSED, spoilt.text
    assert server.test_candidate(instance, str(good / include), str(live / "absent"), 30) is None


def test_a_reload_is_taken(on: Guarded) -> None:
    server, instance = found(on)
    old = served(on)
    newer = on.site.state / "generations" / NAME / "newer"
    newer.mkdir(mode=0o700)
    for file in on.live.resolve().iterdir():
        text = file.read_bytes().replace(str(on.live.resolve()).encode(), str(newer).encode())
        (newer / file.name).write_bytes(text)
    on.site.renew()
    key, chain = ((on.site.lineage / name).read_bytes() for name in ("privkey.pem", "fullchain.pem"))
    for name, content in (("privkey.pem", key), ("fullchain.pem", chain), ("bundle.pem", key + chain)):
        (newer / name).write_bytes(content)
    published = on.live.readlink()
    on.live.unlink()
    on.live.symlink_to(newer)
    assert served(on) == old  # published only
    assert server.reload(instance, 30).status == 0
    until(lambda: served(on) not in (old, b""))
    on.live.unlink()
    on.live.symlink_to(published)


def test_a_path_that_it_cannot_be_told_is_refused() -> None:
    for server in SERVERS.values():
        bad = '/var/lib/"quoted"/x\n'
        with pytest.raises(StapleguardError):
            server.layout(Include(bad, live=bad), {"issuer.pem": b""})
        with pytest.raises(StapleguardError):
            server.layout(Include("/ok", live="/ok", comments=("two\nlines",)), {"issuer.pem": b""})


def test_where_each_takes_its_staple_from() -> None:
    takes = {kind: server.takes(None, (), 1) for kind, server in SERVERS.items()}
    assert takes == {
        "nginx": {Stapling.FETCH, Stapling.FILE},
        "apache": {Stapling.FETCH},
        "haproxy": {Stapling.FILE},
        "lighttpd": {Stapling.FILE},
    }
    # One file would be wrong for the other certificate; HAProxy has one beside each bundle.
    able = {kind for kind, server in SERVERS.items() if Stapling.FILE in server.takes(None, (), 2)}
    assert able == {"haproxy"}


def test_keys_and_bundles_are_their_owners_alone(on: Guarded) -> None:
    for path in on.live.resolve().iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
