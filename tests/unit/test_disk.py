"""The state directory on a real file system: complete or absent, private from the start, full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stapleguard
from stapleguard.disk import (
    MAX_FILE,
    BrokenGeneration,
    StateDirectory,
    read_bounded,
    read_lineage,
    replace_file,
)
from stapleguard.finding import Code, Finding
from stapleguard.model import LockBusy, SourceFiles, UsageError
from stapleguard.transaction import Record, State

pytestmark = pytest.mark.unit

NAME = "example.test"
FILES = {"privkey.pem": b"key", "fullchain.pem": b"chain", "ocsp.der": b"\x30\x00"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    before = os.umask(0)  # the modes must be ours, not the umask's
    try:
        made = StateDirectory(tmp_path / "state")
        made.prepare()
        yield made
    finally:
        os.umask(before)


def staged(state: StateDirectory, *identities: str) -> None:
    for identity in identities:
        state.stage(NAME, identity, FILES, {})


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in (root, *root.rglob("*"))}


def test_everything_is_private_whatever_the_umask(state: StateDirectory) -> None:
    staged(state, "a")
    state.publish(NAME, "a")
    state.journal(Record(NAME, State.SEALED, "a", "", "now"))
    state.enqueue(NAME, {"why": "test"})
    with state.lock():
        for path in (state.root, *state.root.rglob("*")):
            if not path.is_symlink():
                assert path.stat().st_mode & 0o7777 == (0o700 if path.is_dir() else 0o600), path


def test_what_was_staged_is_loaded(state: StateDirectory) -> None:
    path = state.stage(NAME, "a", FILES, {"since": "now"})
    loaded = state.load(NAME, "a")
    assert (loaded.files, loaded.directory, loaded.manifest["since"]) == (FILES, path, "now")
    assert state.live(NAME) == ""
    assert state.lineages() == ()


@pytest.mark.parametrize("name", [*FILES, "MANIFEST.json"])
@pytest.mark.parametrize("damage", [b"", b"other", b"[]", b'{"sha256": 3}', None])
def test_a_damaged_generation_is_not_used(state: StateDirectory, name: str, damage: bytes | None) -> None:
    staged(state, "a")
    path = state.directory_of(NAME, "a") / name
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(BrokenGeneration):
        state.load(NAME, "a")


def test_the_live_name_leads_to_the_files_and_a_second_publish_writes_nothing(state: StateDirectory) -> None:
    staged(state, "a", "b")
    state.publish(NAME, "a")
    assert (state.live_path(NAME) / "privkey.pem").read_bytes() == b"key"
    before = snapshot(state.root)
    state.publish(NAME, "a")
    assert snapshot(state.root) == before
    state.publish(NAME, "b")
    assert snapshot(state.root) != before
    assert (state.live(NAME), state.lineages()) == ("b", (NAME,))


def test_a_generation_that_is_not_there_is_not_published(state: StateDirectory) -> None:
    staged(state, "a")
    state.publish(NAME, "a")
    with pytest.raises(BrokenGeneration):
        state.publish(NAME, "b")
    assert state.live(NAME) == "a"


def test_a_leftover_of_a_crash_does_not_stop_the_next_run(state: StateDirectory) -> None:
    staged(state, "a")
    (state.directory_of(NAME, ".b.new")).mkdir()
    (state.directory_of(NAME, ".b.new") / "privkey.pem").write_bytes(b"half")
    (state.root / "live" / f".{NAME}.new").symlink_to("nowhere")
    assert state.identities(NAME) == ("a",)
    assert state.lineages() == ()
    staged(state, "b")
    state.publish(NAME, "b")
    assert state.load(NAME, state.live(NAME)).files == FILES
    assert not (state.root / "live" / f".{NAME}.new").is_symlink()


def test_unpublish_and_discard_may_be_done_twice(state: StateDirectory) -> None:
    staged(state, "a")
    state.publish(NAME, "a")
    for _ in range(2):
        state.unpublish(NAME)
        assert state.live(NAME) == ""
    for _ in range(2):
        state.discard(NAME, "a")
        assert [*(state.root / "generations" / NAME).iterdir()] == []


def test_the_live_generation_is_never_discarded(state: StateDirectory) -> None:
    staged(state, "a")
    state.publish(NAME, "a")
    state.discard(NAME, "a")
    state.discard(NAME, "")
    assert state.load(NAME, "a").files == FILES


def test_sweep_keeps_the_newest_the_live_and_the_protected(state: StateDirectory) -> None:
    staged(state, "1", "2", "3", "4", "5", "6")
    state.directory_of(NAME, ".7.new").mkdir()
    state.publish(NAME, "1")
    state.sweep(NAME, 2, ["3"])
    assert state.identities(NAME) == ("1", "3", "5", "6")
    assert not state.directory_of(NAME, ".7.new").exists()
    state.sweep("never.seen", 2, [])


def test_journal_and_queue_hold_what_was_written(state: StateDirectory) -> None:
    record = Record(NAME, State.PROVE, "b", "a", "now")
    state.journal(record)
    state.enqueue(NAME, {"why": "test"})
    (state.root / "queue" / "other.json").write_bytes(b"{half")
    (state.root / "journal" / "other.json").write_bytes(b"{half")
    assert (state.record(NAME), state.record("other"), state.records()) == (record, None, (record,))
    assert state.queue() == {NAME: {"why": "test"}, "other": {}}
    state.dequeue(NAME)
    assert [*state.queue()] == ["other"]
    before = snapshot(state.root)
    state.dequeue(NAME)
    assert snapshot(state.root) == before


def test_a_replaced_file_is_new_even_beside_a_leftover(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_bytes(b"left over by a crash")
    replace_file(tmp_path / "file", b"one")
    replace_file(tmp_path / "file", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"two")]


# the lock


def test_the_lock_is_one(state: StateDirectory) -> None:
    with state.lock(), pytest.raises(LockBusy), StateDirectory(state.root).lock():
        pytest.fail("two runs at once")
    with state.lock():
        pass


def test_the_lock_of_a_killed_process_is_free(state: StateDirectory) -> None:
    code = (
        "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,fcntl.LOCK_EX); "
        "print('held',flush=True); input()"
    )
    argv = [sys.executable, "-c", code, str(state.root / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockBusy), state.lock():
            pytest.fail("two runs at once")
        other.kill()
    with state.lock():
        pass


# who may write there, and what the disk refuses


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(UsageError, match="private"):
        StateDirectory(tmp_path).prepare()
    tmp_path.chmod(0o755)
    StateDirectory(tmp_path).prepare()


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_what_is_no_directory_is_refused(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    if kind == "file":
        root.write_bytes(b"")
    else:
        root.symlink_to(tmp_path if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(UsageError, match="private"):
        StateDirectory(root).prepare()


FAULTS = """
import subprocess, sys
from pathlib import Path
from stapleguard.disk import DiskFault, StateDirectory
root = Path(sys.argv[1])
state = StateDirectory(root)
state.prepare()
state.stage("example.test", "a", {"privkey.pem": b"key"}, {})
state.publish("example.test", "a")
if sys.argv[2] == "read-only":
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
try:
    state.stage("example.test", "b", {"privkey.pem": b"key", "big": bytes(1 << 20)}, {})
except DiskFault as fault:
    print(fault.code.value, fault.finding.code.value, int(fault.exit_status))
kept = sorted(path.name for path in (root / "generations" / "example.test").iterdir())
print(kept, state.load("example.test", state.live("example.test")).files)
"""


@pytest.mark.parametrize(
    ("kind", "code"),
    [("full", Code.HOST_DISK_FULL), ("read-only", Code.HOST_PERMISSION)],
    ids=["full", "read-only"],
)
def test_a_disk_that_refuses_leaves_the_old_state(tmp_path: Path, kind: str, code: Code) -> None:
    mount = 'mount -t tmpfs -o size=64k,mode=0700 tmpfs "$1" || exit 77; exec "$2" -c "$3" "$1" "$4"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, FAULTS, kind],
        env=os.environ | {"PYTHONPATH": str(Path(stapleguard.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("needs a mount namespace")
    assert done.stdout.splitlines() == [
        f"{code.value} {code.value} 4",
        "['a'] {'privkey.pem': b'key'}",
    ], done.stderr


# what the ACME client left


def lineage(directory: Path, **files: bytes) -> Path:
    for kind, data in files.items():
        (directory / f"{kind}.pem").write_bytes(data)
    return directory


def fault(directory: Path) -> Finding:
    found = read_lineage(directory)
    assert isinstance(found, Finding)
    return found


def test_all_four_files_are_read(tmp_path: Path) -> None:
    read = read_lineage(lineage(tmp_path, privkey=b"k", cert=b"c", chain=b"i", fullchain=b"ci"))
    assert isinstance(read, SourceFiles)
    assert (read.privkey, read.cert, read.chain, read.fullchain) == (b"k", b"c", b"i", b"ci")
    assert read.paths["chain"] == str(tmp_path / "chain.pem")


@pytest.mark.parametrize("leaf", ["cert", "fullchain"])
def test_the_key_and_one_file_with_the_leaf_are_enough(tmp_path: Path, leaf: str) -> None:
    read = read_lineage(lineage(tmp_path, privkey=b"k", **{leaf: b"c"}))
    assert isinstance(read, SourceFiles)
    assert {"cert": read.cert, "fullchain": read.fullchain}[leaf] == b"c"


@pytest.mark.parametrize("present", [{}, {"privkey": b"k"}, {"privkey": b"k", "chain": b"i"}, {"cert": b"c"}])
def test_without_key_or_leaf_there_is_nothing_to_read(tmp_path: Path, present: dict[str, bytes]) -> None:
    assert fault(lineage(tmp_path, **present)).code is Code.MATERIAL_UNREADABLE


@pytest.mark.parametrize("kind", ["privkey", "cert", "chain", "fullchain"])
@pytest.mark.parametrize("damage", ["empty", "blank", "dangling", "fifo", "directory", "large"])
def test_a_file_that_is_there_but_broken_is_named(tmp_path: Path, kind: str, damage: str) -> None:
    lineage(tmp_path, privkey=b"k", cert=b"c", chain=b"i", fullchain=b"ci")
    path = tmp_path / f"{kind}.pem"
    path.unlink()
    match damage:
        case "empty" | "blank":
            path.write_bytes(b"" if damage == "empty" else b" \n")
        case "dangling":
            path.symlink_to(tmp_path / "gone")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case _:
            path.write_bytes(bytes(MAX_FILE + 1))
    found = fault(tmp_path)
    assert (found.code, found.subject) == (Code.MATERIAL_UNREADABLE, str(path))


def test_the_limit_itself_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MAX_FILE))
    assert read_bounded(path) == bytes(MAX_FILE)


def test_the_manifest_says_what_it_is(state: StateDirectory) -> None:
    staged(state, "a")
    manifest = json.loads((state.directory_of(NAME, "a") / "MANIFEST.json").read_bytes())
    assert (manifest["schema"], [*manifest["sha256"]]) == ("stapleguard.generation/1", sorted(FILES))


def test_requests_need_no_lock_and_are_taken_once(state: StateDirectory) -> None:
    with state.lock():  # a run is under way
        state.request(NAME, {"sources": ["/a"], "client": "certbot"})
    state.request(NAME, {"sources": ["/b"]})
    state.request(f"{NAME}.extra", {"sources": ["/c"]})
    assert state.requested(NAME)
    assert [*state.queue()] == [NAME, f"{NAME}.extra"]
    state.enqueue(NAME, {"since": "then"})
    state.take(NAME)
    assert not state.requested(NAME)
    assert state.queue()[NAME]["since"] == "then"
    assert state.requested(f"{NAME}.extra")
    state.request(NAME, {"sources": ["/later"]})
    state.dequeue(NAME)  # the run that took the first two has ended
    assert state.queue()[NAME] == {"sources": ["/later"]}


def test_a_half_written_request_is_none_and_is_swept(state: StateDirectory) -> None:
    half = state.root / "queue" / f".{NAME}.4194305-abc.hook.new"  # beyond the largest process id
    half.write_bytes(b"{")
    assert state.queue() == {}
    state.request(NAME, {})
    state.take(NAME)
    assert not half.exists()


def test_an_observation_is_written_only_when_it_is_new(state: StateDirectory) -> None:
    assert state.observation("x") == {}
    state.observe("x", {"a": ["b"]})
    before = (state.root / "observations" / "x.json").stat().st_ino
    state.observe("x", {"a": ("b",)})
    assert (state.root / "observations" / "x.json").stat().st_ino == before
    state.observe("x", {"a": []})
    assert state.observation("x") == {"a": []}
