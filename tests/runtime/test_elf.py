"""Kernels that are loaded without LLVM do what those do that LLVM linked; what is not understood is left to LLVM."""

from __future__ import annotations

import platform
import random
import struct
import subprocess
import sys

import numpy as np
import pytest

from ggpy.cache import read_entry
from ggpy.runtime import compiled, elf

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="only Linux on x86-64 and ARM64 loads kernels without LLVM",
)

KERNELS = [
    ("pointwise", "add"),
    ("attention", "attention"),
    ("q4_k", "linear"),
    ("q6_k", "linear"),
    ("executor", "run"),
    ("rope", "append"),
]


@pytest.fixture(scope="module")
def objects() -> dict[compiled.KernelName, tuple[bytes, str]]:
    """Object code and the name of its entry."""
    found = {}
    for name in KERNELS:
        compiled.prepare([name])
        entry = read_entry(compiled._path(name), f"{compiled._key()} {name[0]}.{name[1]}")
        assert entry is not None
        found[name] = entry[1], entry[0]["entry"]
    return found


@pytest.mark.parametrize("name", KERNELS, ids=".".join)
def test_every_kernel_is_of_the_simple_kind(objects, name):
    code, entry = objects[name]
    assert elf.load(code, entry)


def test_a_loaded_kernel_computes(objects):
    code, entry = objects["pointwise", "add"]
    results = []
    for link in (elf.load, compiled._link_by_llvm):
        address = link(code, entry)
        assert address
        a, b, out, n = np.arange(40, dtype=np.float32), np.full(40, 0.5, np.float32), np.zeros(40, np.float32), np.array([8])
        counter = np.zeros(1, np.int64)
        words = np.array([a.ctypes.data, b.ctypes.data, out.ctypes.data, 5, n.ctypes.data, counter.ctypes.data])
        from ggpy.runtime.parallel import run_kernel

        run_kernel(address, words)
        assert (out == a + 0.5).all()
        results.append(out)
    assert (results[0] == results[1]).all()


def test_an_unknown_entry_is_not_found(objects):
    code, _ = objects["pointwise", "add"]
    assert elf.load(code, "another") is None
    with pytest.raises(RuntimeError, match="has no entry 'another'"):
        compiled._link(code, "another")


def no_elf(code: bytes) -> bytes:
    return b"\xcf\xfa\xed\xfe" + code[4:]


def another_cpu(code: bytes) -> bytes:
    return code[:18] + b"\x16\0" + code[20:]


def half(code: bytes) -> bytes:
    return code[: len(code) // 2]


def header_cut(code: bytes) -> bytes:
    return code[:30]


@pytest.mark.parametrize("make", [no_elf, another_cpu, half, header_cut], ids=lambda f: f.__name__)
def test_other_files_are_left_alone(objects, make):
    code, entry = objects["q4_k", "linear"]
    assert elf.load(make(code), entry) is None


def test_relocations_of_other_types_and_to_other_places_are_left_to_llvm(objects):
    code, entry = objects["q4_k", "linear"]
    header = elf._HEADER.unpack_from(code)
    sections = [elf._SECTION.unpack_from(code, header[6] + i * elf._SECTION.size) for i in range(header[12])]
    table = next(s for s in sections if s[1] == elf._RELA and sections[s[7]][5] > 0 and s[5])
    offset, info, addend = elf._RELOCATION.unpack_from(code, table[4])
    for changed in ((offset, info | 0xFF, addend), (offset, 0xFFFF << 32 | 1, addend), (2**40, info, addend), (offset, info, -(2**62))):
        patched = bytearray(code)
        elf._RELOCATION.pack_into(patched, table[4], *changed)
        loaded = elf.load(bytes(patched), entry)
        assert loaded is None or changed[2] == -(2**62)  # an address is only a number until it is used


DAMAGE = """
import random, sys
from ggpy.runtime import elf
code, entry, seed = open(sys.argv[1], "rb").read(), sys.argv[2], int(sys.argv[3])
rng = random.Random(seed)
for _ in range(2000):
    damaged = bytearray(code)
    for _ in range(rng.randint(1, 6)):
        damaged[rng.choice((rng.randrange(64), rng.randrange(len(code)), len(code) - 1 - rng.randrange(1000)))] = rng.randrange(256)
    elf.load(bytes(damaged), entry)
"""


def test_damaged_files_never_harm_the_process(objects, tmp_path):
    """Digests keep such files away; the loader does not rely on it: it reads and writes only within what it was given."""
    code, entry = objects["pointwise", "add"]
    (tmp_path / "kernel.o").write_bytes(code)
    run = subprocess.run([sys.executable, "-c", DAMAGE, tmp_path / "kernel.o", entry, str(random.Random(1).random())[2:8]], check=False)
    assert run.returncode == 0


def test_sections_outside_the_file_or_with_odd_alignment_are_refused(objects):
    code, entry = objects["pointwise", "add"]
    header = elf._HEADER.unpack_from(code)
    for i in range(header[12]):
        at = header[6] + i * elf._SECTION.size
        if not elf._SECTION.unpack_from(code, at)[2] & elf._ALLOCATED:
            continue
        for where, value in ((24, len(code)), (32, 2**40), (48, 3), (48, 2**20)):
            patched = bytearray(code)
            struct.pack_into("<Q", patched, at + where, value)
            size = elf._SECTION.unpack_from(code, at)[5]
            assert elf.load(bytes(patched), entry) is None or (where == 24 and not size)
