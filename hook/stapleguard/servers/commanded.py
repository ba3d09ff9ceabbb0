"""Any other server: tested and reloaded by the commands that a person has configured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stapleguard import host
from stapleguard.config import Commands
from stapleguard.disk import replace_file
from stapleguard.finding import Finding
from stapleguard.host import Completed
from stapleguard.servers.words import (
    ConfigOutcome,
    ConfigTest,
    Include,
    Instance,
    Site,
    Stage,
    Stapling,
    Understudy,
    Update,
)


@dataclass(frozen=True, slots=True)
class Commanded:
    """One `[server.NAME]` of the configuration; it reads live/LINEAGE by itself, and has no include.

    Where it listens is not known here: the lineage's `endpoints` say where it is proved. Whether it runs
    is not known either, and held to be so.
    """

    commands: Commands

    @property
    def KIND(self) -> str:  # noqa: N802 - as the modules have it
        """Its name in the configuration."""
        return self.commands.name

    @property
    def INCLUDE(self) -> str:  # noqa: N802 - as the modules have it
        """None."""
        return ""

    @property
    def instance(self) -> Instance:
        """The only one."""
        program = self.commands.reload[0]
        return Instance(self.KIND, program, f"[server.{self.KIND}]", self.commands.reload[1:], "", 0)

    def instances(self, binary: str | None = None, config: str | None = None) -> tuple[Instance, ...]:
        """Return the only one."""
        del binary, config
        return (self.instance,)

    def sites(self, instance: Instance, state_dir: str) -> tuple[Site, ...]:
        """Nothing: its configuration is in a language that is not known here."""
        del instance, state_dir
        return ()

    def takes(
        self, instance: Instance | None, sites: Sequence[Site], certificates: int
    ) -> frozenset[Stapling]:
        """Take a file where one is configured; otherwise it is held to fetch by itself."""
        del instance, sites
        if self.commands.staple_file:
            return frozenset({Stapling.FILE} if certificates == 1 else ())
        return frozenset({Stapling.FETCH})

    def faults(self, instance: Instance, sites: Sequence[Site]) -> tuple[Finding, ...]:
        """Nothing is known."""
        del instance, sites
        return ()

    def test(self, instance: Instance, timeout: float) -> ConfigTest:
        """Run the configured test: 0 accepts; without one nothing is tested."""
        del instance
        if not self.commands.test:
            return ConfigTest(ConfigOutcome.UNTESTED, (), (), "")
        done = host.run(self.commands.test, timeout)
        text = f"{done.stdout}{done.stderr}"
        if done.status == 0:
            return ConfigTest(ConfigOutcome.ACCEPTED, (), (), text)
        outcome = ConfigOutcome.UNTESTED if done.status in (-1, 126, 127) else ConfigOutcome.REFUSED
        said = tuple(line for line in text.splitlines() if line.strip())[-1:]
        return ConfigTest(outcome, said or (f"its test ended with {done.status}",), (), text)

    def test_candidate(
        self, instance: Instance, candidate_include: str, live_include: str, timeout: float
    ) -> ConfigTest | None:
        """Nothing: it is tested after publishing."""
        del instance, candidate_include, live_include, timeout
        return None

    def understudy(self, instance: Instance, stage: Stage) -> Understudy | None:
        """Nothing: how to start another one is not known."""
        del instance, stage
        return None

    def update(self, instance: Instance, sites: Sequence[Site], live: str, timeout: float) -> Update:
        """Put the staple where the server wants it; the reload that follows makes it read that."""
        del instance, sites, timeout
        if self.commands.staple_file:
            wanted, published = Path(self.commands.staple_file), Path(live, "ocsp.der")
            if published.is_file():
                replace_file(wanted, published.read_bytes(), 0o644)
            else:
                wanted.unlink(missing_ok=True)
        return Update.RELOAD

    def reload(self, instance: Instance, timeout: float) -> Completed:
        """Run the configured command."""
        del instance
        return host.run(self.commands.reload, timeout)

    def workers(self, instance: Instance) -> tuple[int, ...]:
        """Nobody is known."""
        del instance
        return ()

    def leaving(self, instance: Instance) -> tuple[int, ...]:
        """Nobody is known."""
        del instance
        return ()

    def line(self, live: str) -> str:
        """Name the files that its configuration should point at."""
        return f"certificate {live}/fullchain.pem, key {live}/privkey.pem"

    def layout(self, include: Include, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """Nothing of its own."""
        del include, files
        return {}

    def log_findings(self, text: str) -> tuple[Finding, ...]:
        """Nothing is known of what it says."""
        del text
        return ()

    def error_log(self, instance: Instance) -> str | None:
        """Nothing is known of where it says it."""
        del instance
        return None
