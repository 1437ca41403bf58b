"""The emulated AMX instructions against NumPy: assembled by LLVM, run through the signal (or by the CPU, where it has AMX) and without it.

On a CPU with AMX the same blocks run on its tiles, so that the emulation, the hardware and the NumPy model are held to the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading

import llvmlite.binding as llvm
import numpy as np
import pytest

from ggpy.runtime.compiled import _link
from ggpy.simd.target import AMX_FEATURES, request_tiles, target

from . import amx

pytestmark = [
    pytest.mark.skipif(not amx.is_possible(), reason="AMX is emulated on Linux on x86-64 only"),
    pytest.mark.skipif(target().lowering != "avx512-vnni", reason="code is compiled for another CPU than this one"),
]

RDI, RSI, RDX, RCX, R8, R9 = 7, 6, 2, 1, 8, 9


@functools.cache
def assembled(text: str) -> int:
    """Address of a C function of `text`, one AT&T instruction a line, that ends in `ret`."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    body = "\\0A".join([*text.strip().splitlines(), "ret"]).replace("$", "$$")
    features = ",".join(f"+{feature}" for feature in (*AMX_FEATURES, "avx512f"))
    name = f"block{abs(hash(text))}"
    call = f'call void asm sideeffect "{body}", "~{{memory}}"()'
    module = llvm.parse_assembly(f'define void @{name}() naked "target-features"="{features}" {{\n {call}\n unreachable\n}}')
    module.triple = llvm.get_process_triple()
    machine = llvm.Target.from_triple(module.triple).create_target_machine(reloc="static", codemodel="jitdefault", jit=True)
    return _link(machine.emit_object(module), name)


def by_cpu(code: int, arguments: list[int]) -> None:
    """Call the block: its instructions run on the CPU or, where it has none of them, through the signal."""
    if not request_tiles():
        amx.install()
    ctypes.CFUNCTYPE(None, *[ctypes.c_ssize_t] * 6)(code)(*arguments, *[0] * (6 - len(arguments)))


def by_emulation(code: int, arguments: list[int]) -> None:
    end = amx.run(code, dict(zip((RDI, RSI, RDX, RCX, R8, R9), arguments, strict=False)))
    assert ctypes.c_uint8.from_address(end).value == 0xC3, "stopped before the block's end"


WAYS = pytest.mark.parametrize("way", [by_cpu, by_emulation], ids=["by the CPU or a signal", "emulated"])


def config(rows: list[int], widths: list[int]) -> np.ndarray:
    """The 64 bytes of a configuration: rows and bytes per row of the first tiles; the others are unused."""
    out = np.zeros(64, np.uint8)
    out[0] = 1
    out[48 : 48 + len(rows)] = rows
    out[16 : 16 + 2 * len(widths)] = np.array(widths, np.uint16).view(np.uint8)
    return out


def run(way, text: str, *arrays: np.ndarray | int) -> None:
    way(assembled(text), [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arrays])


def widened(bf16: np.ndarray) -> np.ndarray:
    return (bf16.astype(np.uint32) << 16).view(np.float32)


def bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def product(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """TDPBF16PS: c float32 (m, n), a bfloat16 (m, 2 k), b bfloat16 (k, 2 n). For values whose sums are exact in float64 before rounding."""
    sums = np.zeros((len(c), b.shape[1]), np.float32)
    left, right = widened(a).astype(np.float64), widened(b).astype(np.float64)
    for k in range(len(b)):
        pair = np.tile(left[:, 2 * k : 2 * k + 2], b.shape[1] // 2)
        sums = (sums + pair * right[k]).astype(np.float32)
    return c + (sums[:, ::2] + sums[:, 1::2])


MULTIPLY = """
ldtilecfg (%rdi)
tileloadd (%rsi,%r9), %tmm5
tileloadd (%rdx,%r9), %tmm1
tileloaddt1 (%rcx,%r9), %tmm7
tdpbf16ps %tmm7, %tmm1, %tmm5
tilestored %tmm5, (%r8,%r9)
tilerelease
"""


@WAYS
@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 16), (16, 16, 1), (1, 16, 16), (7, 5, 3), (16, 3, 16), (2, 16, 9)])
def test_products(way, m: int, n: int, k: int):
    """Every bit, for tiles of any size; what lies beyond a tile's columns in memory stays as it is."""
    rng = np.random.default_rng(m + 31 * n + 331 * k)
    c, out = rng.standard_normal((16, 16)).astype(np.float32), np.full((16, 16), 7, np.float32)
    a, b = bf16(rng.standard_normal((16, 32))), bf16(rng.standard_normal((16, 32)))
    rows, widths = [1] * 8, [4] * 8
    rows[5], rows[1], rows[7] = m, m, k
    widths[5], widths[1], widths[7] = 4 * n, 4 * k, 4 * n
    run(way, MULTIPLY, config(rows, widths), c, a, b, out, 64)
    want = np.full((16, 16), 7, np.float32)
    want[:m, :n] = product(c[:m, :n], a[:m, : 2 * k], b[:k, : 2 * n])
    assert np.array_equal(out.view(np.uint32), want.view(np.uint32))


@WAYS
def test_products_of_extreme_values(way):
    """Denormals count as zero, on the way in and out; what is not finite, and what overflows, shows."""
    tiny, least, big = 2.0**-130, 2.0**-126, 2.0**127
    lefts = [tiny, least, least, big, np.inf, np.nan, np.inf, 1.5, -0.0]
    rights = [2.0**10, 0.5, 1.0, 4.0, 1.0, 1.0, 0.0, tiny, 1.0]
    wants = [0.0, 0.0, least, np.inf, np.inf, np.nan, np.nan, 0.0, 0.0]
    a, b, c = np.zeros((16, 32), np.uint16), np.zeros((16, 32), np.uint16), np.zeros((16, 16), np.float32)
    a[:9, 0], b[0, 0] = bf16(np.array(lefts)), 0
    out = np.zeros((16, 16), np.float32)
    for i, right in enumerate(rights):
        b[0, 0] = bf16(np.array([right]))[0]
        run(way, MULTIPLY, config([16] * 8, [64] * 8), c, a, b, out, 64)
        assert np.array_equal(out[i, 0], np.float32(wants[i]), equal_nan=True), (lefts[i], right)
    c[0, 0], a[:], b[:] = np.float32(2.0**-130), 0, 0
    run(way, MULTIPLY, config([16] * 8, [64] * 8), c, a, b, out, 64)
    assert out[0, 0] == 0


ADDRESSES = {
    "(%rsi,%rdx)": (0, 1),
    "-128(%rsi,%rdx,2)": (-128, 2),
    "127(%rsi,%rdx,4)": (127, 4),
    "4660(%rsi,%rdx,8)": (4660, 8),
    "-4660(%rsi,%rdx)": (-4660, 1),
    "(%r12,%r13,2)": (0, 2),
    "8(%r13,%r12)": (8, 1),
    "(%rbp,%rdx)": (0, 1),
    "(%rsi)": (0, 0),
    "64(%rsi,%riz)": (64, 0),
}  # operand: (displacement, rows' distance as a multiple of the register that gives it)


@WAYS
@pytest.mark.parametrize("operand", ADDRESSES)
def test_addresses(way, operand: str):
    """Each form of base, index, scale and displacement names the rows it should; registers' numbers above 7 need extra bits."""
    memory, start, step = np.random.default_rng(5).integers(0, 256, 32768, dtype=np.uint8), 16384, 64
    displacement, scale = ADDRESSES[operand]
    settings, out, place = config([16] * 8, [64] * 8), np.zeros((16, 64), np.uint8), memory.ctypes.data + start
    base, index = ("%r12", "%r13") if operand.startswith("(%r12") else ("%r13", "%r12")
    text = f"ldtilecfg (%rdi)\ntileloadd {operand}, %tmm6\ntilestored %tmm6, (%rcx,%r8)\ntilerelease"
    if way is by_emulation:
        others = {5: place, int(base[2:]): place, int(index[2:]): step}
        amx.run(assembled(text), {RDI: settings.ctypes.data, RSI: place, RDX: step, RCX: out.ctypes.data, R8: 64} | others)
    else:
        save = f"mov %rbp, %r10\nmov %r12, %r11\nmov %r13, %rax\nmov %rsi, %rbp\nmov %rsi, {base}\nmov %rdx, {index}"
        run(way, f"{save}\n{text}\nmov %r10, %rbp\nmov %r11, %r12\nmov %rax, %r13", settings, place, step, out, 64)
    for row in range(16):
        at = start + displacement + row * scale * step
        assert np.array_equal(out[row], memory[at : at + 64]), f"row {row}"


@WAYS
@pytest.mark.parametrize("to", range(8))
def test_every_tile_is_its_own(way, to: int):
    a, out = np.random.default_rng(to).integers(0, 256, (8, 16, 64), dtype=np.uint8), np.zeros((9, 16, 64), np.uint8)
    loads = "\n".join(f"tileloadd {1024 * t}(%rsi,%rcx), %tmm{t}" for t in range(8))
    stores = "\n".join(f"tilestored %tmm{t}, {1024 * t}(%rdx,%rcx)" for t in range(8))
    run(way, f"ldtilecfg (%rdi)\n{loads}\ntilezero %tmm{to}\n{stores}\ntilerelease", config([16] * 8, [64] * 8), a, out, 64)
    a[to] = 0
    assert np.array_equal(out[:8], a) and not out[8].any()


@WAYS
def test_a_configuration_is_kept_clears_all_tiles_and_is_released(way):
    rng = np.random.default_rng(3)
    settings, a = config([16, 3], [64, 12]), rng.integers(0, 256, (16, 64), dtype=np.uint8)
    kept, again, out, after = (
        np.ones(64, np.uint8),
        np.ones(64, np.uint8),
        np.ones((16, 64), np.uint8),
        rng.integers(0, 9, 64).astype(np.uint8),
    )
    text = "ldtilecfg (%rdi)\ntileloadd (%rsi,%r9), %tmm0\nsttilecfg (%rdx)\nldtilecfg (%rdx)\ntilestored %tmm0, (%rcx,%r9)"
    text += "\nsttilecfg 64(%rdx)"
    both = np.concatenate([kept, again])
    run(way, f"{text}\ntilerelease\nsttilecfg (%r8)", settings, a, both, out, after, 64)
    assert np.array_equal(both[:64], settings) and np.array_equal(both[64:], settings)
    assert not out.any() and not after.any()


FAULTS = {
    "no configuration": "tilezero %tmm0",
    "a tile that is not configured": "ldtilecfg (%rdi)\ntilezero %tmm7",
    "palette 2": "ldtilecfg 64(%rdi)",
    "rows past 16": "ldtilecfg 128(%rdi)",
    "shapes that do not fit": "ldtilecfg 192(%rdi)\ntdpbf16ps %tmm2, %tmm1, %tmm0",
    "after the release": "ldtilecfg (%rdi)\ntilerelease\ntilezero %tmm0",
    "not AMX": "ud2",
}


def fault_configurations() -> np.ndarray:
    """Four configurations: a good one of one tile, palette 2, seventeen rows, and three tiles that cannot be multiplied."""
    good = config([16], [64])
    other, tall = good.copy(), good.copy()
    other[0], tall[48] = 2, 17
    return np.concatenate([good, other, tall, config([16, 16, 8], [64, 64, 64])])


@pytest.mark.parametrize("case", FAULTS)
def test_what_would_fault_is_not_emulated(case: str):
    settings = fault_configurations()
    end = amx.run(assembled(FAULTS[case]), {RDI: settings.ctypes.data})
    assert ctypes.c_uint8.from_address(end).value != 0xC3
    amx.run(assembled("tilerelease"), {})


FAULT = """
from tests.emulation import test_amx
test_amx.run(test_amx.by_cpu, test_amx.FAULTS[{case!r}], test_amx.fault_configurations())
"""


@pytest.mark.parametrize("case", ["no configuration", "not AMX"])
def test_a_fault_ends_the_process_as_without_emulation(case: str):
    run = subprocess.run([sys.executable, "-c", FAULT.format(case=case)], capture_output=True, check=False, env=os.environ)
    assert run.returncode == -signal.SIGILL


def test_threads_have_tiles_of_their_own():
    """Many threads at once, many times each: every product is that of the thread's own values."""
    code = assembled(MULTIPLY)
    failures = []

    def work(seed: int) -> None:
        rng, settings = np.random.default_rng(seed), config([16] * 8, [64] * 8)
        for _ in range(50):
            c, out = rng.standard_normal((16, 16)).astype(np.float32), np.zeros((16, 16), np.float32)
            a, b = bf16(rng.standard_normal((16, 32))), bf16(rng.standard_normal((16, 32)))
            by_cpu(code, [settings.ctypes.data, c.ctypes.data, a.ctypes.data, b.ctypes.data, out.ctypes.data, 64])
            if not np.array_equal(out, product(c, a, b)):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
