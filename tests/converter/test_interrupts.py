"""Signals end a conversion within two seconds in each of its stages; file systems that are full or read-only end it with the reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ggpy

from .checkpoints import CONFIG, write_checkpoint

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ggpy.__file__).parents[1])}
SCRIPT = """
import contextlib, sys, time
from ggpy.cli import convert
seen = set()
def show(progress):
    if progress.stage not in seen:
        seen.add(progress.stage)
        print(progress.stage, flush=True)
    time.sleep(0.05 if progress.stage == sys.argv[1] != "compile" else 0)
@contextlib.contextmanager
def shown():
    yield show, lambda line: None
convert.shown_progress = shown
sys.exit(convert.main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("interrupts") / "Small", CONFIG | {"num_hidden_layers": 4}, dtype="BF16")
    command = [sys.executable, "-m", "ggpy", "convert", folder, "-o", folder.parent / "out.gguf", "-t", "q8_0"]
    subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True)  # compiles what is not looked at here
    return folder


@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [("compile", signal.SIGINT, 130), ("encode", signal.SIGTERM, 143), ("verify", signal.SIGINT, 130), ("certify", signal.SIGTERM, 143)],
)
def test_signals_end_it_in_every_stage(checkpoint: Path, tmp_path: Path, stage: str, number: int, code: int):
    out = tmp_path / "out"
    out.mkdir()
    environment = ENVIRONMENT | ({"GGPY_CACHE_DIR": str(tmp_path / "cache")} if stage == "compile" else {})
    command = [sys.executable, "-c", SCRIPT, stage, checkpoint, "-o", out / "out.gguf", "-t", "q8_0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) != f"{stage}\n":
            assert line, process.communicate()
        assert len(list(out.iterdir())) >= 1
        process.send_signal(number)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - sent < 2
    assert process.returncode == code and "Traceback" not in errors
    assert list(out.iterdir()) == []


def mounted(folder: Path, options: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """A command in a namespace of its own where a small file system in memory lies at `folder`; what is left there is listed at the end."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("wants unshare(1), which is part of util-linux")
    script = f'mount -t tmpfs -o {options} none "$0" || exit 99; "$@"; code=$?; ls -A "$0"; exit $code'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, folder, *command],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode in (1, 99) and "ggpy" not in done.stderr:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")
    return done


@pytest.mark.parametrize(
    ("options", "reason"),
    [("size=64k", "bytes are needed, but the disk has 65536 free"), ("size=4m,nr_inodes=1", "cannot be written: No space left on device"),
     ("ro", "cannot be written: Read-only file system")],
)  # fmt: skip
def test_file_systems_that_do_not_take_it(checkpoint: Path, tmp_path: Path, options: str, reason: str):
    command = [sys.executable, "-m", "ggpy", "convert", str(checkpoint), "-o", str(tmp_path / "out.gguf"), "-t", "q8_0"]
    done = mounted(tmp_path, options, command)
    assert done.returncode == 1 and reason in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert done.stdout == ""
