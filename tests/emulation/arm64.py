"""Kernels for ARM64 run on another machine: one program per call, made of the linked kernel and its memory, under `qemu-aarch64`.

The program is an ELF file of two segments: code, with a start routine that calls the kernel once for each thread, one after the other, and
memory, which it then writes to its standard output. Arrays lie there as far from a 64-byte boundary as they do here, with bytes between
them that must not change. Needs no compiler and no C library for ARM.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ggpy.runtime.elf import ARM64, link

CPU = "neoverse-n1"  # the first server core with the dot products, and nothing newer
CODE, MEMORY, PAGE = 0x400000, 0x10000000, 4096
GAP, UNTOUCHED = 192, 0xA5  # bytes between arrays, and what they are

_START = (
    0x10000353,  # adr x19, <the parameters, which follow>
    0xD2800014,  # mov x20, #0
    0xA9400275,  # call: ldp x21, x0, [x19]
    0xF9400A62,  # ldr x2, [x19, #16]
    0xEB02029F,  # cmp x20, x2
    0x540000A0,  # b.eq done
    0xAA1403E1,  # mov x1, x20
    0xD63F02A0,  # blr x21
    0x91000694,  # add x20, x20, #1
    0x17FFFFF9,  # b call
    0xA941DA75,  # done: ldp x21, x22, [x19, #24]
    0xD2800020,  # write: mov x0, #1
    0xAA1503E1,  # mov x1, x21
    0xAA1603E2,  # mov x2, x22
    0xD2800808,  # mov x8, #64
    0xD4000001,  # svc #0
    0xF100001F,  # cmp x0, #0
    0x5400008D,  # b.le end
    0x8B0002B5,  # add x21, x21, x0
    0xEB0002D6,  # subs x22, x22, x0
    0x54FFFEE1,  # b.ne write
    0xF10002DF,  # end: cmp x22, #0
    0x9A9F07E0,  # cset x0, ne
    0xD2800BA8,  # mov x8, #93
    0xD4000001,  # svc #0
    0xD503201F,  # nop
)


def emulator() -> str | None:
    """The path of qemu's emulator of a user's program, which Debian has in the package `qemu-user`; None where there is none."""
    return shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")


def run(
    kernel: tuple[bytes, str], arrays: list[np.ndarray], words: Callable[[Callable[[np.ndarray], int]], np.ndarray], threads: int
) -> None:
    """Call a kernel, (object code, entry), with `words(address)`, where `address` tells an array's place; arrays change in place.

    RuntimeError where the program ends otherwise than by itself, or writes where no array is.
    """
    code, entry = kernel
    linked = link(code, entry, ARM64, lambda _: CODE + PAGE)
    assert linked is not None, f"{entry} needs more than its own sections"
    places, memory = _laid_out(arrays)
    at = len(memory)
    memory += words(lambda array: MEMORY + places[array.ctypes.data]).tobytes()
    start = struct.pack(f"<{len(_START)}I5q", *_START, linked.entry, MEMORY + at, threads, MEMORY, at)
    after = _output(_program(start.ljust(PAGE, b"\0") + linked.image, bytes(memory)), at)
    touched = np.frombuffer(after, np.uint8) != np.frombuffer(memory, np.uint8, at)
    for array in arrays:
        place = places[array.ctypes.data]
        if touched[place : place + array.nbytes].any():
            array.reshape(-1).view(np.uint8)[:] = np.frombuffer(after, np.uint8, array.nbytes, place)
            touched[place : place + array.nbytes] = False
    if touched.any():
        raise RuntimeError(f"{entry} changed {touched.sum()} bytes that belong to no array")


def _laid_out(arrays: list[np.ndarray]) -> tuple[dict[int, int], bytearray]:
    """(offset of the array that lies at an address here, memory)."""
    places: dict[int, int] = {}
    memory = bytearray([UNTOUCHED]) * GAP
    for array in arrays:
        assert array.flags.c_contiguous
        if array.ctypes.data not in places:
            memory += bytes([UNTOUCHED]) * ((array.ctypes.data - len(memory)) % 64)
            places[array.ctypes.data] = len(memory)
            memory += array.tobytes() + bytes([UNTOUCHED]) * GAP
    memory += bytes([UNTOUCHED]) * (-len(memory) % 64)
    return places, memory


def _program(code: bytes, memory: bytes) -> bytes:
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, ARM64, 1, CODE, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    second = PAGE + (len(code) + PAGE - 1) // PAGE * PAGE
    for flags, offset, address, size in ((5, PAGE, CODE, len(code)), (6, second, MEMORY, len(memory))):
        header += struct.pack("<IIQQQQQQ", 1, flags, offset, address, address, size, size, PAGE)
    return (header.ljust(PAGE, b"\0") + code).ljust(second, b"\0") + memory


def _output(program: bytes, n_bytes: int) -> bytes:
    """What the program writes."""
    qemu = emulator()
    assert qemu is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel"
        path.write_bytes(program)
        path.chmod(0o700)
        done = subprocess.run([qemu, "-cpu", CPU, path], capture_output=True, check=False)
    if done.returncode or len(done.stdout) != n_bytes:
        raise RuntimeError(f"the program ended with {done.returncode} after {len(done.stdout)} of {n_bytes} bytes: {done.stderr[:200]!r}")
    return done.stdout
