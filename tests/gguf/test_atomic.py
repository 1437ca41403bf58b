"""A file appears whole or not at all: with every system call failing in turn, with interrupts, kills and a disk that is full."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_model import N_BYTES, valid, write

from ggpy.blocks import BLOCKS
from ggpy.errors import GGPyError
from ggpy.gguf import GGUFWriter, atomic

PROGRAM = (sys.executable, Path(__file__).with_name("small_model.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
CALLS = ("open", "ftruncate", "lseek", "write", "fsync", "close", "link")


def fail_at(monkeypatch: pytest.MonkeyPatch, nth: int, fault: Callable[[], BaseException], after: bool = False) -> list[str]:
    """Make the nth system call of ggpy.gguf.atomic raise, before or after it did its work; returns the calls made so far."""
    calls: list[str] = []

    def guarded(name: str, real: Callable) -> Callable:
        def call(*args, **options):
            calls.append(name)
            failing = len(calls) == nth
            if failing and not after:
                raise fault()
            result = real(*args, **options)
            if failing:
                raise fault()
            return result

        return call

    facade = SimpleNamespace(**{name: getattr(os, name) for name in dir(os) if not name.startswith("__")})
    for name in CALLS:
        setattr(facade, name, guarded(name, getattr(os, name)))
    monkeypatch.setattr(atomic, "os", facade)
    monkeypatch.setattr(Path, "replace", guarded("replace", Path.replace))
    return calls


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fault", [lambda: OSError(errno.EIO, "Input/output error"), KeyboardInterrupt], ids=["EIO", "Ctrl-C"])
def test_every_call_failing_in_turn(fault, after: bool, force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, outcomes = tmp_path / "m.gguf", []
    for nth in range(1, 100):
        path.unlink(missing_ok=True)
        if force:
            path.write_bytes(b"old")
        with monkeypatch.context() as patch:
            calls = fail_at(patch, nth, fault, after)
            try:
                write(path, force)
            except KeyboardInterrupt:
                outcomes.append("stopped")
            except GGPyError as error:
                assert "cannot be written: Input/output error" in str(error)
                outcomes.append("stopped")
            else:
                outcomes.append("done")
        assert [p for p in tmp_path.iterdir() if p != path] == [], f"left behind when call {nth}, {calls[nth - 1 : nth]}, failed"
        if outcomes[-1] == "done" or (path.exists() and path.read_bytes() != b"old"):
            assert valid(path)
        else:
            assert path.exists() == force
        if len(calls) < nth:
            break
    assert outcomes.count("done") == 1 and len(outcomes) > 20
    expected = {"open", "ftruncate", "lseek", "write", "fsync", "close", "replace" if force else "link"}
    assert set(calls) == expected


def test_every_call_is_made_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Data is flushed before the file gets its name, the directory after; until it has its name, the open file is locked."""
    calls = fail_at(monkeypatch, 0, OSError)
    write(tmp_path / "m.gguf")
    assert calls[:2] == ["open", "ftruncate"]
    assert calls[-6:] == ["fsync", "link", "close", "open", "fsync", "close"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    facade = SimpleNamespace(**{name: getattr(os, name) for name in dir(os) if not name.startswith("__")})
    facade.write = lambda descriptor, data: os.write(descriptor, data[:7])
    monkeypatch.setattr(atomic, "os", facade)
    write(tmp_path / "m.gguf")
    assert valid(tmp_path / "m.gguf")


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    facade = SimpleNamespace(**{name: getattr(os, name) for name in dir(os) if not name.startswith("__")})
    facade.link = refuse
    monkeypatch.setattr(atomic, "os", facade)
    write(tmp_path / "m.gguf")
    assert valid(tmp_path / "m.gguf") and len(list(tmp_path.iterdir())) == 1


def test_disk_with_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(GGPyError, match=f"{N_BYTES} bytes are needed, but the disk has 1000 free"):
        write(tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())


def test_file_size_limit(tmp_path: Path):
    """A quota ends the writing with the numbers, and leaves nothing."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    done = subprocess.run([*PROGRAM, tmp_path / "m.gguf"], check=False, capture_output=True, text=True, env=ENVIRONMENT, preexec_fn=limit)
    assert "GGPyError" in done.stderr and f"File too large ({N_BYTES} bytes are needed" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_exception_in_the_block_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), GGUFWriter(path, force=True) as writer:
        writer.add_tensor("t", (4,), BLOCKS["F32"])
        writer.write_tensor("t", b"\0" * 16)
        1 / 0  # noqa: B018
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_two_writers_to_one_target(tmp_path: Path):
    """The first to finish wins whole; the other is told, and replaces nothing unless it may."""
    path = tmp_path / "m.gguf"
    with pytest.raises(GGPyError, match="appeared while it was being written; nothing was replaced"), GGUFWriter(path) as late:
        late.add("general.name", "late")
        write(path)
    assert valid(path) and list(tmp_path.iterdir()) == [path]
    with GGUFWriter(path, force=True) as late:
        late.add("general.name", "late")
        write(path, force=True)
    assert not valid(path) and list(tmp_path.iterdir()) == [path]


def test_kill_leaves_the_target_absent_or_valid(tmp_path: Path):
    moments = random.Random(0)
    found = set()
    for attempt in range(10):
        path = tmp_path / f"{attempt}.gguf"
        with subprocess.Popen([*PROGRAM, path, "again"], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(moments.random() * 0.02 * attempt)  # later and later: where the disk is busy, an fsync takes its time
            process.kill()
        found.add(path.exists() and valid(path))
        assert path.exists() in found
    assert True in found


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_remove_the_temporary_file(number: int, code: int, tmp_path: Path):
    script = (
        "import argparse, sys, time\n"
        "from ggpy.blocks import BLOCKS; from ggpy.cli.common import run_command; from ggpy.gguf import GGUFWriter\n"
        "def command(args):\n"
        "    with GGUFWriter(sys.argv[1]) as writer:\n"
        "        writer.add_tensor('t', (4,), BLOCKS['F32'])\n"
        "        writer.write_tensor('t', b'0' * 16)\n"
        "        print('writing', flush=True)\n"
        "        time.sleep(30)\n"
        "sys.exit(run_command(command, argparse.Namespace(prog='ggpy-test', debug=False)))\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "m.gguf"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        sent = time.monotonic()
        process.send_signal(number)
        _, complaint = process.communicate()
        assert time.monotonic() - sent < 2
    assert process.returncode == code
    assert complaint.count("\n") == 1 and complaint.startswith("ggpy-test: ")
    assert not list(tmp_path.iterdir())
