"""The state directory: durable writes, generations, the one rename, the journal, the queue and the lock.

Promise I1: `live/NAME` always leads to one complete generation. A generation is written beside the live
one, every file and directory of it is fsynced, and only then one rename of a symlink moves the name.
Nothing is ever modified in place. Files are 0600 and directories 0700 from their first instant.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stapleguard.finding import Code, Finding, find
from stapleguard.model import ExitStatus, Json, LockBusy, SourceFiles, StapleguardError, UsageError, escape
from stapleguard.transaction import Record

MAX_FILE: Final = 1 << 20
"""Bytes that are read of any one file of an ACME client."""
MANIFEST: Final = "MANIFEST.json"
_REQUEST: Final = ".hook"
_DIRECTORIES: Final = ("live", "generations", "journal", "queue", "observations")


class DiskFault(StapleguardError):
    """The disk refused a write: full, read-only or forbidden. The old state stands."""

    exit_status = ExitStatus.REFUSED

    def __init__(self, code: Code, subject: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.code = code
        self.subject = subject

    @property
    def finding(self) -> Finding:
        """The same as a finding."""
        return find(self.code, self.subject, self.message)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the kernel says about a write into the error that a person can act on."""
    try:
        yield
    except OSError as error:
        where = escape(str(error.filename or path))
        why = os.strerror(error.errno or 0).lower()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFault(
                Code.HOST_DISK_FULL,
                where,
                f"cannot write {where}: {why}",
                "free some space, then run it again",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
            raise DiskFault(
                Code.HOST_PERMISSION,
                where,
                f"cannot write {where}: {why}",
                "run as the owner of the state directory, on a writable file system",
            ) from error
        raise


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_new(path: Path, data: bytes) -> None:
    """Create `path` with `data`, 0600 from the first instant, durable when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` at `path` by temp file, fsync, rename, fsync of the directory: old or new, never mixed."""
    temporary = path.with_name(f".{path.name}.new")
    with _told(path):
        temporary.unlink(missing_ok=True)
        _write_new(temporary, data)
        if mode != 0o600:
            temporary.chmod(mode)
        temporary.rename(path)
        _fsync_directory(path.parent)


def _parse(data: bytes) -> object:
    return json.loads(data.decode("utf-8"))


def _read_json(path: Path) -> dict[str, Json]:
    try:
        read = _parse(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _dump(value: Mapping[str, Json]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Generation:
    """One complete set of files under its identity; `files` maps name to bytes (the manifest excepted)."""

    lineage: str
    identity: str
    directory: Path
    files: Mapping[str, bytes]
    manifest: Mapping[str, Json]


class BrokenGeneration(StapleguardError):
    """A generation whose files do not agree with its manifest; it must not be used."""

    exit_status = ExitStatus.REFUSED


class StateDirectory:
    """`--state-dir`: the only place that stapleguard writes to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Create what is missing, durably; UsageError when somebody else could write there."""
        with _told(self.root):
            with suppress(FileExistsError):  # a file or a dangling link: refused below
                self.root.mkdir(mode=0o700, parents=True)
            seen = self.root.lstat()
            if not stat.S_ISDIR(seen.st_mode) or seen.st_mode & 0o022 or seen.st_uid not in (0, os.geteuid()):
                raise UsageError(
                    f"{self.root} is not a private directory of this user",
                    f"chown it to this user and chmod go-w {self.root}",
                )
            missing = [name for name in _DIRECTORIES if not (self.root / name).is_dir()]
            for name in missing:
                (self.root / name).mkdir(mode=0o700)
            if missing:
                _fsync_directory(self.root)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the one lock of this state directory; LockBusy at once when another process has it."""
        with _told(self.root):
            descriptor = os.open(
                self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockBusy(
                    f"another run holds the lock of {self.root}",
                    "wait for it to end, then run `stapleguard retry`",
                ) from None
            yield
        finally:
            os.close(descriptor)

    # generations

    def live_path(self, lineage: str) -> Path:
        """Return the one mutable name of a lineage."""
        return self.root / "live" / lineage

    def directory_of(self, lineage: str, identity: str) -> Path:
        """Return where a generation is, whether it exists or not."""
        return self.root / "generations" / lineage / identity

    def live(self, lineage: str) -> str:
        """Return the identity of the live generation, '' when there is none."""
        try:
            target = self.live_path(lineage).readlink()
        except OSError:
            return ""
        return target.name

    def lineages(self) -> tuple[str, ...]:
        """Return the names that have a live generation."""
        try:
            return tuple(
                sorted(name.name for name in (self.root / "live").iterdir() if not name.name.startswith("."))
            )
        except OSError:
            return ()

    def identities(self, lineage: str) -> tuple[str, ...]:
        """Return the generations of a lineage, oldest first."""
        try:
            found = (self.root / "generations" / lineage).iterdir()
            return tuple(sorted(one.name for one in found if not one.name.startswith(".")))
        except OSError:
            return ()

    def stage(
        self, lineage: str, identity: str, files: Mapping[str, bytes], about: Mapping[str, Json]
    ) -> Path:
        """Write a complete generation, durable and under its final name on return; DiskFault otherwise."""
        parent = self.root / "generations" / lineage
        final, temporary = parent / identity, parent / f".{identity}.new"
        manifest: dict[str, Json] = {
            "schema": "stapleguard.generation/1",
            "lineage": lineage,
            "identity": identity,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
            **about,
        }
        with _told(parent):
            if not parent.is_dir():
                parent.mkdir(mode=0o700)
                _fsync_directory(parent.parent)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(mode=0o700)
            try:
                for name, data in files.items():
                    _write_new(temporary / name, data)
                _write_new(temporary / MANIFEST, _dump(manifest))
                _fsync_directory(temporary)
                temporary.rename(final)
                _fsync_directory(parent)
            except OSError:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        return final

    def load(self, lineage: str, identity: str) -> Generation:
        """Read a generation and check every digest; BrokenGeneration when it is not what was staged."""
        directory = self.directory_of(lineage, identity)
        try:
            manifest = _parse((directory / MANIFEST).read_bytes())
            if not isinstance(manifest, dict) or not isinstance(digests := manifest.get("sha256"), dict):
                raise BrokenGeneration(
                    f"{directory / MANIFEST} is not a manifest", "deploy the lineage again"
                )
            files = {str(name): (directory / str(name)).read_bytes() for name in digests}
        except (OSError, ValueError) as error:
            raise BrokenGeneration(f"cannot read {directory}: {error}", "deploy the lineage again") from error
        for name, data in files.items():
            if hashlib.sha256(data).hexdigest() != digests[name]:
                raise BrokenGeneration(f"{directory / name} was changed", "deploy the lineage again")
        return Generation(lineage, identity, directory, files, manifest)

    def publish(self, lineage: str, identity: str) -> None:
        """Move `live/NAME` to a generation by one rename; doing it twice does nothing more."""
        if not self.directory_of(lineage, identity).is_dir():
            raise BrokenGeneration(
                f"there is no generation {identity} of {lineage}", "deploy the lineage again"
            )
        live = self.live_path(lineage)
        if self.live(lineage) == identity:
            return
        temporary = live.with_name(f".{lineage}.new")
        with _told(live):
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(Path("..") / "generations" / lineage / identity)
            temporary.rename(live)
            _fsync_directory(live.parent)

    def unpublish(self, lineage: str) -> None:
        """Remove `live/NAME`: only for a first deploy that is taken back."""
        live = self.live_path(lineage)
        with _told(live):
            live.unlink(missing_ok=True)
            _fsync_directory(live.parent)

    def discard(self, lineage: str, identity: str) -> None:
        """Remove a generation that is not live, hidden by a rename first: no half of it is ever seen."""
        if not identity or identity == self.live(lineage):
            return
        directory = self.directory_of(lineage, identity)
        hidden = directory.with_name(f".{identity}.gone")
        with _told(directory):
            shutil.rmtree(hidden, ignore_errors=True)
            if directory.is_dir():
                directory.rename(hidden)
                shutil.rmtree(hidden)

    def sweep(self, lineage: str, keep: int, protect: Sequence[str]) -> None:
        """Remove leftovers of crashes and all but the newest `keep` generations; no live or protected one."""
        parent = self.root / "generations" / lineage
        with _told(parent):
            for one in parent.iterdir() if parent.is_dir() else ():
                if one.name.startswith("."):
                    shutil.rmtree(one, ignore_errors=True)
        identities = self.identities(lineage)
        for identity in identities[: max(0, len(identities) - keep)]:
            if identity not in protect:
                self.discard(lineage, identity)

    # journal, queue, observations: one small JSON file each

    def record(self, lineage: str) -> Record | None:
        """Return the last or open transaction of a lineage; None when there is none or it cannot be read."""
        try:
            return Record.from_json(_parse((self.root / "journal" / f"{lineage}.json").read_bytes()))
        except (OSError, ValueError):
            return None

    def journal(self, record: Record) -> None:
        """Make the next act known, durably, before it is done."""
        replace_file(self.root / "journal" / f"{record.lineage}.json", _dump(record.to_json()))

    def records(self) -> tuple[Record, ...]:
        """Return every lineage's record."""
        names = sorted(
            path.stem for path in (self.root / "journal").glob("*.json") if not path.name.startswith(".")
        )
        return tuple(record for name in names if (record := self.record(name)) is not None)

    def enqueue(self, lineage: str, entry: Mapping[str, Json]) -> None:
        """Remember work that must not be lost."""
        replace_file(self.root / "queue" / f"{lineage}.json", _dump(entry))

    def dequeue(self, lineage: str) -> None:
        """Forget work that is done; nothing is written when there was none."""
        entry = self.root / "queue" / f"{lineage}.json"
        if entry.exists():
            with _told(entry):
                entry.unlink(missing_ok=True)
                _fsync_directory(entry.parent)

    def queue(self) -> Mapping[str, Mapping[str, Json]]:
        """Return the pending work by lineage; an unreadable entry counts as one without details."""
        pending: dict[str, Mapping[str, Json]] = {}
        for path in sorted((self.root / "queue").glob("*.json")):
            if not path.name.startswith("."):
                pending[path.stem] = _read_json(path)
        for path in self._requests():
            lineage = path.stem.rpartition(".")[0]
            pending[lineage] = {**pending.get(lineage, {}), **_read_json(path)}
        return pending

    def request(self, lineage: str, entry: Mapping[str, Json]) -> None:
        """Remember work without the lock: an entry of its own for each call, which a run takes up later."""
        token = f"{os.getpid()}-{os.urandom(6).hex()}"
        replace_file(self.root / "queue" / f"{lineage}.{token}{_REQUEST}", _dump(entry))

    def take(self, lineage: str) -> None:
        """Make what was requested of a lineage part of its entry; the caller holds the lock.

        Whatever comes in after this lies beside the entry and survives its `dequeue`.
        """
        found = self._requests(lineage)
        if not found:
            return
        entry = _read_json(self.root / "queue" / f"{lineage}.json")
        for path in found:
            entry = {**entry, **_read_json(path)}
        self.enqueue(lineage, entry)
        with _told(self.root / "queue"):
            for path in (*found, *self._abandoned()):
                path.unlink(missing_ok=True)
            _fsync_directory(self.root / "queue")

    def requested(self, lineage: str) -> bool:
        """Whether something was requested of a lineage that no run has taken up."""
        return bool(self._requests(lineage))

    def _requests(self, lineage: str = "") -> list[Path]:
        """Requests of one lineage or of all, oldest first."""
        found = [
            path
            for path in (self.root / "queue").glob(f"*{_REQUEST}")
            if not path.name.startswith(".") and lineage in ("", path.stem.rpartition(".")[0])
        ]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _abandoned(self) -> list[Path]:
        """Half-written requests of processes that are gone."""
        found = (self.root / "queue").glob(f".*{_REQUEST}.new")
        pids = [(path, path.name.split(".")[-3].partition("-")[0]) for path in found]
        return [path for path, pid in pids if not Path("/proc", pid).exists()]

    def observation(self, name: str) -> Mapping[str, Json]:
        """Return what was last noted under a name; empty when nothing readable was."""
        return _read_json(self.root / "observations" / f"{name}.json")

    def observe(self, name: str, value: Mapping[str, Json]) -> None:
        """Note something under a name; nothing is written when it is noted already."""
        if self.observation(name) != json.loads(_dump(value)):
            replace_file(self.root / "observations" / f"{name}.json", _dump(value))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Hold the notes for the moment that a change of them takes; waits for others who do."""
        with _told(self.root):
            path = self.root / "observations" / "lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


# what the ACME client left


def read_bounded(path: Path) -> bytes | Finding:
    """Read at most 1 MiB of a regular file; a finding that names the file when that is not possible."""
    subject = escape(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        code = (
            Code.HOST_PERMISSION if error.errno in (errno.EACCES, errno.EPERM) else Code.MATERIAL_UNREADABLE
        )
        return find(code, subject, f"cannot read {subject}: {why}", evidence={"errno": error.errno})
    # open() itself raises for the descriptor of a directory, so the kind is asked first.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return find(Code.MATERIAL_UNREADABLE, subject, f"{subject} is not a regular file")
    with open(descriptor, "rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        return find(Code.MATERIAL_UNREADABLE, subject, f"{subject} is larger than 1 MiB")
    return data


def read_lineage(directory: Path, suffix: str = "") -> SourceFiles | Finding:
    """Read privkey, cert, chain and fullchain of certbot's `live/NAME` or the like; else return the fault.

    The key must be there, and the leaf in `cert.pem` or `fullchain.pem`; what else is absent is assembled.
    A file that is there but empty is a fault: something broke while it was written. `suffix` chooses among
    the certificates of a generation of ours.
    """
    read: dict[str, bytes] = {}
    paths = {
        kind: str(directory / f"{kind}{suffix}.pem") for kind in ("privkey", "cert", "chain", "fullchain")
    }
    for kind, path in paths.items():
        if kind != "privkey" and not os.path.lexists(path):
            continue
        data = read_bounded(Path(path))
        if isinstance(data, Finding):
            return data
        if not data.strip():
            return find(Code.MATERIAL_UNREADABLE, escape(path), f"{escape(path)} is empty")
        read[kind] = data
    if "cert" not in read and "fullchain" not in read:
        return find(
            Code.MATERIAL_UNREADABLE,
            escape(str(directory)),
            f"neither cert.pem nor fullchain.pem is in {escape(str(directory))}",
        )
    return SourceFiles(
        privkey=read["privkey"],
        cert=read.get("cert", b""),
        chain=read.get("chain", b""),
        fullchain=read.get("fullchain", b""),
        paths=paths,
    )
