"""An interrupted conversion goes on where it stopped and gives the bytes of one in one go, or says why it cannot."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.converter import Progress, Report, convert, resume
from ggpy.errors import CheckpointError, GGPyError

from .checkpoints import CONFIG, random_weights, write_checkpoint

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ggpy.__file__).parents[1])}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("resume") / "Small", CONFIG | {"num_hidden_layers": 4}, dtype="BF16")


@pytest.fixture(scope="module")
def expected(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return digest(convert(checkpoint, tmp_path_factory.mktemp("expected") / "out.gguf", "q8_0").path)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Stopping:
    """Stops a conversion with `error` when half of the values are encoded, or at a stage's first sign of life."""

    def __init__(self, error: type[BaseException] = KeyboardInterrupt, stage: str = "encode", share: float = 0.5):
        self.error, self.stage, self.share = error, stage, share

    def __call__(self, progress: Progress) -> None:
        if progress.stage == self.stage and progress.done >= self.share * progress.total:
            raise self.error


def interrupt(checkpoint: Path, target: Path, type: str = "q8_0", **options) -> list[str]:
    """A conversion that is interrupted halfway with `resume`; what it said."""
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, target, type, resume=True, threads=1, on_progress=Stopping(), on_warning=said.append, **options)
    return said


def go_on(checkpoint: Path, target: Path, type: str = "q8_0", **options) -> tuple[Report, list[Progress]]:
    seen: list[Progress] = []
    return convert(checkpoint, target, type, resume=True, on_progress=seen.append, **options), seen


def test_it_goes_on_where_it_stopped(checkpoint: Path, expected: str, tmp_path: Path):
    target = tmp_path / "out.gguf"
    [said] = interrupt(checkpoint, target)
    assert len(left_in(tmp_path)) == 2 and not target.exists()
    report, seen = go_on(checkpoint, target)
    assert digest(target) == expected and left_in(tmp_path) == ["out.gguf"]
    assert 10 < report.n_resumed < len(report.tensors) and f"{report.n_resumed} of {len(report.tensors)} tensors" in str(report)
    assert said.startswith(f"{report.n_resumed} of {len(report.tensors)} tensors are done and kept") and "--resume" in said
    encoded = [p for p in seen if p.stage == "encode"]
    assert encoded[0].done > 0.4 * encoded[0].total and encoded[-1].done == encoded[-1].total
    assert len({p.what for p in encoded}) == len(report.tensors) - report.n_resumed


def test_without_resume_it_begins_anew_and_removes_what_was_left(checkpoint: Path, expected: str, tmp_path: Path):
    target, said = tmp_path / "out.gguf", []
    interrupt(checkpoint, target)
    report = convert(checkpoint, target, "q8_0", on_warning=said.append)
    assert report.n_resumed == 0 and digest(target) == expected and left_in(tmp_path) == ["out.gguf"]
    assert len(said) == 1 and "freed" in said[0] and report.warnings == ()


def test_without_resume_an_interruption_keeps_nothing(checkpoint: Path, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, tmp_path / "out.gguf", "q8_0", on_progress=Stopping())
    assert left_in(tmp_path) == []


def test_with_nothing_to_continue_it_begins(checkpoint: Path, expected: str, tmp_path: Path):
    report, _ = go_on(checkpoint, tmp_path / "out.gguf")
    assert report.n_resumed == 0 and digest(report.path) == expected and left_in(tmp_path) == ["out.gguf"]


@pytest.mark.parametrize("stage", ["encode", "verify"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_wherever_it_stopped(checkpoint: Path, expected: str, tmp_path: Path, stage: str, share: float):
    target = tmp_path / "out.gguf"
    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, target, "q8_0", resume=True, on_progress=Stopping(stage=stage, share=share))
    go_on(checkpoint, target)
    assert digest(target) == expected and left_in(tmp_path) == ["out.gguf"]


def test_a_disk_that_fails_leaves_what_can_be_continued(checkpoint: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target, plain, written = tmp_path / "out.gguf", os.write, 0

    def full(descriptor: int, data: memoryview) -> int:
        nonlocal written
        written += 1
        if written == 20:
            raise OSError(28, "No space left on device")
        return plain(descriptor, data)

    with monkeypatch.context() as patch, pytest.raises(GGPyError, match="No space left"):
        patch.setattr(os, "write", full)
        convert(checkpoint, target, "q8_0", resume=True)
    report, _ = go_on(checkpoint, target)
    assert report.n_resumed > 10 and digest(target) == expected


def test_tensors_that_are_not_as_they_were_written_are_written_again(checkpoint: Path, expected: str, tmp_path: Path):
    """After a loss of power, when the journal reached the disk and the data did not."""
    target = tmp_path / "out.gguf"
    interrupt(checkpoint, target)
    [unfinished] = tmp_path.glob(".*.partial")
    raw = bytearray(unfinished.read_bytes())
    raw[len(raw) // 4 : len(raw) // 4 + 3000] = bytes(3000)
    unfinished.write_bytes(raw)
    n_noted = len(next(iter(tmp_path.glob(".*.journal"))).read_text(encoding="ascii").splitlines()) - 1
    report, _ = go_on(checkpoint, target)
    assert 0 < report.n_resumed < n_noted and digest(target) == expected


@pytest.mark.parametrize("size", [0, 5000])
def test_an_unfinished_file_that_was_cut_is_completed(checkpoint: Path, expected: str, tmp_path: Path, size: int):
    interrupt(checkpoint, tmp_path / "out.gguf")
    [unfinished] = tmp_path.glob(".*.partial")
    os.truncate(unfinished, size)
    report, _ = go_on(checkpoint, tmp_path / "out.gguf")
    assert digest(report.path) == expected and left_in(tmp_path) == ["out.gguf"]


def test_any_journal_gives_the_same_bytes(checkpoint: Path, expected: str, tmp_path: Path):
    """Cut anywhere, bytes changed, lines that say nonsense: never another file."""
    kept = tmp_path / "kept"
    kept.mkdir()
    interrupt(checkpoint, kept / "out.gguf")
    [journal] = kept.glob(".*.journal")
    raw, rng = journal.read_bytes(), random.Random(0)
    header, first = raw.split(b"\n")[:2]
    note = json.loads(first)
    spoiled = [
        b"", b"\n", b"[]\n", b"{}\n", header, header + b"\nnull\n", header + b"\n" + b"[" * 10**5 + b"\n",
        header + b"\n" + json.dumps(note | {"pieces": [[-1, 0]]}).encode() + b"\n",
        header + b"\n" + json.dumps(note | {"pieces": []}).encode() + b"\n",
        header + b"\n" + json.dumps(note | {"pieces": [[10**30, 0]]}).encode() + b"\n",
        header + b"\n" + json.dumps(note | {"tensor": "nothing.weight"}).encode() + b"\n",
        header + b"\n" + json.dumps(note | {"tensor": [1]}).encode() + b"\n",
        *(raw[: rng.randrange(len(header), len(raw))] for _ in range(4)),
        *(raw[:at] + b"\xff\x00" + raw[at + 2 :] for at in (rng.randrange(len(header), len(raw)) for _ in range(4))),
    ]  # fmt: skip
    for i, text in enumerate(spoiled):
        folder = tmp_path / str(i)
        shutil.copytree(kept, folder)
        (folder / journal.name).write_bytes(text)
        go_on(checkpoint, folder / "out.gguf")
        assert digest(folder / "out.gguf") == expected and left_in(folder) == ["out.gguf"]


def change_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(10**18, 10**18))


CHANGES: dict[str, tuple[Callable[[Path], object], dict, str]] = {
    "the weights": (change_weights, {}, "model.safetensors of the source has changed since"),
    "the configuration": (lambda folder: (folder / "config.json").touch(), {}, "config.json of the source has changed since"),
    "a file more": (lambda folder: (folder / "README.md").write_text("# x", encoding="utf-8"), {}, "README.md of the source has changed"),
    "the type": (lambda folder: None, {"type": "Q4_K"}, "type was Q8_0, not Q4_K_M"),
    "the report": (lambda folder: None, {"measure_error": True}, "measure_error was False, not True"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_another_source_or_other_options_are_refused(checkpoint: Path, tmp_path: Path, what: str):
    change, options, message = CHANGES[what]
    folder = shutil.copytree(checkpoint, tmp_path / "in" / "Small")
    out = tmp_path / "out"
    out.mkdir()
    interrupt(folder, out / "out.gguf")
    before = left_in(out)
    change(folder)
    with pytest.raises(GGPyError, match=message) as caught:
        go_on(folder, out / "out.gguf", **options)
    assert "without --resume" in str(caught.value) and left_in(out) == before
    convert(folder, out / "out.gguf", **{"type": "q8_0"} | options)
    assert left_in(out) == ["out.gguf"]


def test_another_version_is_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupt(checkpoint, tmp_path / "out.gguf")
    monkeypatch.setattr(resume, "__version__", "9.9")
    with pytest.raises(GGPyError, match=rf"begun by ggpy {ggpy.__version__}, this is 9\.9"):
        go_on(checkpoint, tmp_path / "out.gguf")


def test_what_changes_no_byte_may_change(checkpoint: Path, expected: str, tmp_path: Path):
    interrupt(checkpoint, tmp_path / "out.gguf")
    (tmp_path / "out.gguf").write_bytes(b"mine")
    report, _ = go_on(checkpoint, tmp_path / "out.gguf", "7", threads=3, force=True, verify="full")
    assert report.n_resumed and digest(report.path) == expected


def test_formats_that_had_to_be_wider_are_known_again(tmp_path: Path):
    """The layout of a file depends on them, and they are found as values are encoded."""
    weights = random_weights(CONFIG)
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e30
    folder, target = write_checkpoint(tmp_path / "in" / "Small", weights=weights), tmp_path / "out" / "out.gguf"
    target.parent.mkdir()
    whole = convert(folder, tmp_path / "in" / "whole.gguf", "q4_0")
    counts: list[int] = []

    def stop_the_second_time(progress: Progress) -> None:
        counts.append(progress.done)
        if len(counts) > 1 and counts[-1] < counts[-2]:
            counts.append(10**9)
        if 10**9 in counts and progress.done > 0.8 * progress.total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, target, "q4_0", resume=True, threads=1, on_progress=stop_the_second_time)
    report, seen = go_on(folder, target, "q4_0")
    assert report.n_resumed > 5 and digest(target) == digest(whole.path) and report.warnings == whole.warnings
    assert min(p.done for p in seen if p.stage == "encode") > 0.5 * seen[-1].total or seen[-1].stage == "verify"


def test_where_the_journal_cannot_be_written_there_is_nothing_to_continue(
    checkpoint: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from ggpy.converter import journal

    monkeypatch.setattr(journal, "journal_of", lambda partial: tmp_path / "nowhere" / "x.journal")
    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, tmp_path / "out.gguf", "q8_0", resume=True, on_progress=Stopping())
    assert left_in(tmp_path) == []
    assert digest(convert(checkpoint, tmp_path / "out.gguf", "q8_0").path) == expected


def test_weights_that_are_no_numbers_stop_it_again(tmp_path: Path):
    weights = random_weights(CONFIG)
    weights["model.layers.1.mlp.down_proj.weight"][1, 1] = np.nan
    folder = write_checkpoint(tmp_path / "Small", weights=weights)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="nan at index"):
            convert(folder, tmp_path / "out.gguf", "q8_0", resume=True)


def slowed(checkpoint: Path, target: Path, *options: str) -> subprocess.Popen[str]:
    """The command, 20 ms a chunk slower."""
    script = (
        "import sys, time\n"
        "from ggpy.cli import convert\n"
        "from ggpy.converter import stream\n"
        "encode = stream.Stream._encode\n"
        "def slow(self, piece):\n"
        "    time.sleep(0.02)\n"
        "    return encode(self, piece)\n"
        "stream.Stream._encode = slow\n"
        "print('ready', flush=True)\n"
        "sys.exit(convert.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, checkpoint, "-o", target, "-t", "q8_0", "--threads", "1", *options]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


def when_encoding(folder: Path, n_tensors: int) -> None:
    """Wait until so many tensors are noted."""
    for _ in range(2000):
        for journal in folder.glob(".*.journal"):
            if journal.read_bytes().count(b"\n") > n_tensors:
                return
        time.sleep(0.005)
    raise AssertionError("nothing was written")


def test_killed_processes_and_interrupted_ones_are_continued(checkpoint: Path, expected: str, tmp_path: Path):
    """kill -9 without `--resume`, then Ctrl-C and SIGTERM with it, then to the end."""
    target = tmp_path / "out.gguf"
    with slowed(checkpoint, target) as process:
        when_encoding(tmp_path, 8)
        process.kill()
    for number, code, word, n_tensors in ((signal.SIGINT, 130, "interrupted", 16), (signal.SIGTERM, 143, "terminated", 24)):
        with slowed(checkpoint, target, "--resume") as process:
            when_encoding(tmp_path, n_tensors)
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == code and len(left_in(tmp_path)) == 2
        kept, last = errors.splitlines()[-2:]
        assert "tensors are done and kept" in kept and int(kept.split(": ")[2].split()[0]) >= n_tensors
        assert last == f"ggpy-convert: {word}"
    with slowed(checkpoint, target, "--resume") as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "tensors were there already" in out
    assert digest(target) == expected and left_in(tmp_path) == ["out.gguf"]


def test_two_at_once_do_not_continue_the_same_file(checkpoint: Path, expected: str, tmp_path: Path):
    target = tmp_path / "out.gguf"
    interrupt(checkpoint, target)
    both = [slowed(checkpoint, target, "--resume", "--force") for _ in range(2)]
    outs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("tensors were there already" in out for out in outs) <= 1
    assert digest(target) == expected and left_in(tmp_path) == ["out.gguf"]
