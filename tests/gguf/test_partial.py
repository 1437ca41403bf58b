"""What killed writers leave is known from what living ones write, removed at the next start, or continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_model import VALUES, valid, write

from ggpy.blocks import BLOCKS
from ggpy.errors import GGPyError
from ggpy.gguf import GGUFWriter, partial
from ggpy.gguf.atomic import AtomicFile
from ggpy.gguf.partial import find_abandoned, journal_of

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def abandon(path: Path, journal: bool = True) -> Path:
    """A file half written, with a journal, as a killed process leaves it; its name."""
    script = (
        "import os, sys; from pathlib import Path; from small_model import *\n"
        "with GGUFWriter(Path(sys.argv[1])) as writer:\n"
        "    writer.add('general.architecture', 'llama')\n"
        "    for name in ('a', 'b'):\n"
        "        writer.add_tensor(name, (3, 100), BLOCKS['F32'])\n"
        "    writer.write_tensor('a', VALUES)\n"
        "    if len(sys.argv) > 2: writer.partial.with_suffix('.journal').write_text('a')\n"
        "    print(writer.partial, flush=True); os.kill(os.getpid(), 9)\n"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join((ENVIRONMENT["PYTHONPATH"], str(Path(__file__).parent)))}
    command = [sys.executable, "-c", script, str(path), *(["journal"] if journal else [])]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    return Path(done.stdout.strip())


def test_the_next_start_removes_what_a_killed_one_left(tmp_path: Path):
    path, mine = (
        tmp_path / "m.gguf",
        [".m.gguf.partial", ".m.gguf.0123abcd.partial~", ".n.gguf.0123abcd.partial", ".m.gguf.0123ABCD.partial"],
    )
    left = abandon(path)
    assert left_in(tmp_path) == sorted((left.name, journal_of(left).name))
    for name in mine:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / ".m.gguf.aaaaaaaa.journal").write_bytes(b"of a file that was renamed")
    with GGUFWriter(path) as writer:
        writer.add("general.name", "new")
        assert writer.removed_bytes > 0
    assert left_in(tmp_path) == sorted(("m.gguf", *mine))


def test_a_living_writers_file_is_left_alone(tmp_path: Path):
    path = tmp_path / "m.gguf"
    with AtomicFile(path, force=True) as first:
        assert find_abandoned(path) == []
        write(path)
        assert first.partial.exists()
        first.write_at(0, b"first")
    assert path.read_bytes() == b"first" and left_in(tmp_path) == ["m.gguf"]


def test_a_writer_taken_for_dead_before_it_had_its_lock_begins_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    claimed = []

    def late(descriptor: int) -> bool:
        claimed.append(descriptor)
        if len(claimed) == 1:
            next(tmp_path.glob(".*.partial")).unlink()
        return partial.claim(descriptor)

    monkeypatch.setattr("ggpy.gguf.atomic.claim", late)
    write(tmp_path / "m.gguf")
    assert len(claimed) == 2 and valid(tmp_path / "m.gguf") and left_in(tmp_path) == ["m.gguf"]


def test_without_locks_nothing_is_taken_for_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    left = abandon(tmp_path / "m.gguf", journal=False)

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write(tmp_path / "m.gguf")
    assert left_in(tmp_path) == sorted((left.name, "m.gguf"))


def test_links_and_devices_under_such_a_name_are_not_followed(tmp_path: Path):
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / ".m.gguf.00000000.partial").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / ".m.gguf.00000001.partial")
    assert find_abandoned(tmp_path / "m.gguf") == []
    write(tmp_path / "m.gguf")
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_an_adopted_file_is_continued_and_the_others_go(tmp_path: Path):
    path = tmp_path / "m.gguf"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), GGUFWriter(path, resume=True) as writer:
            writer.add("general.architecture", "llama")
            for name in ("a", "b"):
                writer.add_tensor(name, (3, 100), BLOCKS["F32"])
            writer.write_tensor("a", VALUES)
            digest, kept = writer.header_digest(), writer.partial
            journal_of(kept).write_text("a", encoding="utf-8")
            writer.keep()
            raise KeyboardInterrupt
    assert len(left_in(tmp_path)) == 4
    with GGUFWriter(path, resume=True) as writer:
        writer.add("general.architecture", "llama")
        for name in ("a", "b"):
            writer.add_tensor(name, (3, 100), BLOCKS["F32"])
        assert writer.header_digest() == digest
        writer.adopt(next(file for file in writer.abandoned if file.path == kept))
        offset, n_bytes = writer.data_range("a")
        assert writer.partial.read_bytes()[offset : offset + n_bytes] == VALUES.tobytes()
        writer.skip_tensor("a")
        writer.write_tensor("b", VALUES)
    assert valid(path) and left_in(tmp_path) == ["m.gguf"]


def test_what_may_be_resumed_stays_when_it_is_not(tmp_path: Path):
    left = abandon(tmp_path / "m.gguf")
    with pytest.raises(ZeroDivisionError), GGUFWriter(tmp_path / "m.gguf", resume=True) as writer:
        assert [file.path for file in writer.abandoned] == [left]
        assert find_abandoned(tmp_path / "m.gguf") == []  # this one has it now
        1 / 0  # noqa: B018
    assert left_in(tmp_path) == sorted((left.name, journal_of(left).name))
    [again] = find_abandoned(tmp_path / "m.gguf")
    again.remove()
    assert left_in(tmp_path) == []


def test_a_file_that_has_its_name_already_is_never_continued(tmp_path: Path):
    """Killed between the link and the removal of the temporary name: both are one file."""
    path = tmp_path / "m.gguf"
    write(path)
    (tmp_path / ".m.gguf.00000000.partial").hardlink_to(path)
    with pytest.raises(GGPyError, match="exists already"):
        write(path)
    with AtomicFile(path, force=True, resume=True) as file:
        assert file.abandoned == []
        assert valid(path)
        file.write_at(0, b"x")
    assert path.read_bytes() == b"x" and left_in(tmp_path) == ["m.gguf"]


def test_what_a_failing_fsync_left_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The system may count pages as written that are not, and read them back from memory."""

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(GGPyError, match="Input/output error"), AtomicFile(tmp_path / "m", resume=True) as file:
        file.write_at(0, b"x")
        file.kept = True
        monkeypatch.setattr(os, "fsync", fail)
    assert left_in(tmp_path) == []
