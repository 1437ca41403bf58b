"""The cache of compiled kernels: no numba on a second start, and no trust in what lies there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ADD = """
import sys
import numpy as np
from ggpy.runtime.compiled import kernel, prepare
from ggpy.runtime.parallel import run_kernel
compiled = []
prepare([("pointwise", "add")], lambda name, done, total: compiled.append((name, done, total)))
a, b, out, n = np.arange(20, dtype=np.float32), np.ones(20, np.float32), np.zeros(20, np.float32), np.array([4])
counter = np.zeros(1, np.int64)
words = np.array([a.ctypes.data, b.ctypes.data, out.ctypes.data, 5, n.ctypes.data, counter.ctypes.data])
run_kernel(kernel("pointwise", "add"), words, 2)
assert (out == a + 1).all(), out
print(len(compiled), "numba" in sys.modules)
"""


def start(cache: Path, **environment: str) -> tuple[int, bool]:
    """(kernels compiled, numba imported) by a process of its own that adds two vectors."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", ADD],
        env=os.environ | {"GGPY_CACHE_DIR": str(cache)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    count, numba = run.stdout.split()
    return int(count), numba == "True"


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """The one entry of a cache that a first start has filled."""
    assert start(tmp_path) == (1, True)
    found = list(tmp_path.rglob("*.o"))
    assert len(found) == 1
    return found[0]


def test_the_second_start_compiles_nothing_and_imports_no_numba(entry: Path):
    assert start(entry.parents[2]) == (0, False)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of POSIX")
def test_the_directory_is_the_users_own(entry: Path):
    assert entry.parent.stat().st_mode & 0o777 == 0o700
    assert entry.stat().st_mode & 0o077 == 0


def damage_code(entry: Path) -> None:
    data = bytearray(entry.read_bytes())
    data[-100] ^= 1
    entry.write_bytes(data)


def forge_code(entry: Path) -> None:
    """Other code under the right key, its own digest and no entry of that name: the linker refuses what a digest cannot."""
    header, code = entry.read_bytes().split(b"\n", 1)
    told = json.loads(header) | {"entry": "another"}
    entry.write_bytes(json.dumps(told).encode() + b"\n" + code)


def another_key(entry: Path) -> None:
    header, code = entry.read_bytes().split(b"\n", 1)
    told = json.loads(header)
    entry.write_bytes(json.dumps(told | {"key": "0" * 64 + " pointwise.add"}).encode() + b"\n" + code)


def cut(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:500])


def empty(entry: Path) -> None:
    entry.write_bytes(b"")


def garbage(entry: Path) -> None:
    entry.write_bytes(b"\xff\x00" * 3000)


def writable_by_others(entry: Path) -> None:
    entry.chmod(0o666)


def link(entry: Path) -> None:
    entry.rename(entry.with_name("elsewhere"))
    entry.symlink_to(entry.with_name("elsewhere"))


@pytest.mark.parametrize(
    "harm", [damage_code, forge_code, another_key, cut, empty, garbage, writable_by_others, link], ids=lambda f: f.__name__
)
def test_what_cannot_be_trusted_is_compiled_again(entry: Path, harm):
    harm(entry)
    assert start(entry.parents[2])[0] == 1
    assert start(entry.parents[2]) == (0, False)


def test_another_cpu_has_entries_of_its_own(entry: Path):
    assert start(entry.parents[2], NUMBA_CPU_NAME="skylake")[0] == 1
    assert start(entry.parents[2], NUMBA_CPU_NAME="broadwell")[0] == 1
    assert start(entry.parents[2]) == (0, False)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory", encoding="utf-8")
    assert start(blocked) == (1, True)


def test_two_starts_at_once_both_work(tmp_path: Path):
    runs = [
        subprocess.Popen([sys.executable, "-c", ADD], env=os.environ | {"GGPY_CACHE_DIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    for run in runs:
        run.communicate()
    assert start(tmp_path) == (0, False)


def test_no_kernel_links_to_anything(tmp_path: Path):
    """Object code with undefined symbols would depend on what happens to be loaded; a kernel has none."""
    if not any((Path(folder) / "nm").exists() for folder in os.environ["PATH"].split(os.pathsep)):
        pytest.skip("needs nm")
    from ggpy.runtime import compiled

    for name in [("attention", "attention"), ("q4_k", "linear"), ("rope", "append"), ("executor", "run")]:
        compiled.prepare([name])
        _, code = compiled._path(name).read_bytes().split(b"\n", 1)
        (tmp_path / "kernel.o").write_bytes(code)
        listed = subprocess.run(["nm", "-u", tmp_path / "kernel.o"], capture_output=True, text=True, check=True)
        assert not listed.stdout.split(), name
