"""However a conversion ends, the target is whole or as it was, and nothing lies beside it."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

import ggpy
from ggpy.converter import convert
from ggpy.errors import GGPyError

from .checkpoints import CONFIG, write_checkpoint

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ggpy.__file__).parents[1])}
COMMAND = [sys.executable, "-m", "ggpy", "convert"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(
        tmp_path_factory.mktemp("faults") / "Small", CONFIG | {"num_hidden_layers": 6, "intermediate_size": 4096}, dtype="BF16"
    )


@pytest.fixture(scope="module")
def expected(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed conversion to Q8_0, which also leaves its encoder compiled."""
    return digest(convert(checkpoint, tmp_path_factory.mktemp("expected") / "out.gguf", "q8_0").path)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


class FailingCall:
    """Stands in for a function of `os` and fails with `code` at the n-th call."""

    def __init__(self, function, n: int, code: int):
        self.function, self.left, self.code = function, n, code

    def __call__(self, *args, **options):
        self.left -= 1
        if self.left == 0:
            raise OSError(self.code, os.strerror(self.code))
        return self.function(*args, **options)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("call", "n", "code"),
    [("write", n, errno.ENOSPC) for n in (1, 2, 7, 40)]
    + [
        ("write", 3, errno.EIO),
        ("write", 3, errno.EDQUOT),
        ("ftruncate", 1, errno.EFBIG),
        ("fsync", 1, errno.EIO),
        ("open", 1, errno.EROFS),
    ],
)
def test_a_disk_that_fails_leaves_the_target_as_it_was(
    checkpoint: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, n: int, code: int, existing: bool
):
    target = tmp_path / "out.gguf"
    if existing:
        target.write_bytes(b"mine")
    failing = FailingCall(getattr(os, call), n, code)
    if call == "open":  # only the new file's
        plain = os.open
        monkeypatch.setattr(os, "open", lambda path, flags, *mode: (failing if flags & os.O_CREAT else plain)(path, flags, *mode))
    else:
        monkeypatch.setattr(os, call, failing)
    with pytest.raises(GGPyError, match=os.strerror(code)) as caught:
        convert(checkpoint, target, "q8_0", force=existing)
    monkeypatch.undo()
    assert failing.left <= 0 and str(target) in str(caught.value)
    if code in (errno.ENOSPC, errno.EDQUOT) and n > 1:
        assert "bytes are needed" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == (["out.gguf"] if existing else [])
    assert not existing or target.read_bytes() == b"mine"


def test_a_file_size_limit_ends_in_one_line(checkpoint: Path, expected: str, tmp_path: Path):
    done = subprocess.run(
        [*COMMAND, checkpoint, "-o", tmp_path / "out.gguf", "-t", "q8_0"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert done.returncode == 1 and list(tmp_path.iterdir()) == []
    assert (
        done.stderr.splitlines()[-1].startswith("ggpy-convert: error: ")
        and "File too large" in done.stderr
        and "Traceback" not in done.stderr
    )


def start(checkpoint: Path, target: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, checkpoint, "-o", target, "-t", "q8_0", "--force"]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


def slow_start(checkpoint: Path, target: Path) -> subprocess.Popen[str]:
    """A conversion that says when it encodes, then takes its time over every chunk."""
    script = (
        "import sys, time\n"
        "from ggpy.cli import convert\n"
        "from ggpy.converter import stream\n"
        "stream.CHUNK_VALUES = 20_000\n"
        "encode = stream.Stream._encode\n"
        "def slow(self, piece):\n"
        "    sys.stdout.write('encoding\\n')  # in one piece: several threads are at it\n"
        "    sys.stdout.flush()\n"
        "    time.sleep(0.2)\n"
        "    return encode(self, piece)\n"
        "stream.Stream._encode = slow\n"
        "sys.exit(convert.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, checkpoint, "-o", target, "-t", "q8_0", "--force"]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


@pytest.mark.parametrize(("number", "code", "line"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_signals_end_it_quickly_and_leave_nothing(checkpoint: Path, expected: str, tmp_path: Path, number: int, code: int, line: str):
    target = tmp_path / "out.gguf"
    target.write_bytes(b"mine")
    process = slow_start(checkpoint, target)
    assert process.stdout is not None and process.stdout.readline() == "encoding\n"
    process.send_signal(number)
    began = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 2
    assert process.returncode == code and errors.splitlines()[-1] == f"ggpy-convert: {line}" and "Traceback" not in errors
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"] and target.read_bytes() == b"mine"


@pytest.mark.slow
def test_killed_at_any_moment_the_target_is_absent_or_whole(checkpoint: Path, expected: str, tmp_path: Path):
    began = time.monotonic()
    process = start(checkpoint, tmp_path / "first.gguf")
    process.communicate(timeout=60)
    seconds, whole, rng = time.monotonic() - began, 0, random.Random(0)
    for i in range(20):
        target = tmp_path / f"{i}.gguf"
        process = start(checkpoint, target)
        time.sleep(rng.uniform(0.2, 1.1) * seconds)
        process.kill()
        process.communicate(timeout=60)
        if target.exists():
            assert digest(target) == expected
            whole += 1
    assert whole < 20  # or nothing was interrupted
    final = tmp_path / "0.gguf"
    start(checkpoint, final).communicate(timeout=60)
    assert digest(final) == expected


def test_two_conversions_to_one_target_leave_one_whole_file(checkpoint: Path, expected: str, tmp_path: Path):
    target = tmp_path / "out.gguf"
    both = [start(checkpoint, target) for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0] and digest(target) == expected
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]
