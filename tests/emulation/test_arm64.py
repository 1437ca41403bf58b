"""Code for ARM64, compiled here: what is in it, and, where qemu-aarch64 is there, what it computes.

`GGPY_SIMD=neon-dot pytest tests/kernels` holds every op to its reference so; here is what concerns the other machine alone.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.kernels.segments import partial_bytes, scratch_bytes
from ggpy.runtime import elf
from ggpy.runtime.compiled import has_kernel
from ggpy.simd.target import ARM64_FEATURES, ARM64_TRIPLE, NEON, target
from tests.kernels.naive import aligned, count, quantized, words
from tests.kernels.test_encode import hard_weights

from . import arm64

ROOT = Path(__file__).resolve().parents[2]
KERNELS = [
    ("q4_k", "linear"),
    ("q8_0", "linear"),
    ("norm", "rms_norm"),
    ("activations", "int8_32"),
    ("attention", "attention"),
    ("executor", "run"),
]
ENCODERS = [f for f in BLOCKS.values() if has_kernel(f"encode.{f.name.lower()}")]

emulated = pytest.mark.skipif(arm64.emulator() is None, reason="no qemu-aarch64 (Debian's package qemu-user) to run code for ARM64")

EMIT = """
import pickle, sys
from ggpy.runtime.compiled import object_code
pickle.dump(object_code([tuple(name.rsplit(".", 1)) for name in sys.argv[1:]]), sys.stdout.buffer)
"""

Emit = Callable[[str, str], tuple[bytes, str]]


@pytest.fixture(scope="module")
def emit() -> Emit:
    """emit(module, name) -> (object code for ARM64, its entry), made by a process of its own."""
    made: dict[tuple[str, str], tuple[bytes, str]] = {}

    def of(module: str, name: str) -> tuple[bytes, str]:
        if (module, name) not in made:
            together = KERNELS if (module, name) in KERNELS else [(f"encode.{f.name.lower()}", "encode") for f in ENCODERS]
            names = [".".join(wanted) for wanted in together]
            environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_CPU")} | {"GGPY_SIMD": NEON}
            run = subprocess.run([sys.executable, "-c", EMIT, *names], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
            made.update(pickle.loads(run.stdout))  # noqa: S301 (by a process of our own)
        return made[module, name]

    return of


def instructions(code: bytes) -> list[int]:
    """The words of an object file's code."""
    header = elf._HEADER.unpack_from(code)
    sections = [elf._SECTION.unpack_from(code, header[6] + i * elf._SECTION.size) for i in range(header[12])]
    parts = [code[section[4] : section[4] + section[5]] for section in sections if section[2] & 4]  # what may be executed
    return [word for part in parts for (word,) in struct.iter_unpack("<I", part)]


def undefined(code: bytes) -> list[bytes]:
    """Names of symbols that an object file expects from elsewhere."""
    header = elf._HEADER.unpack_from(code)
    sections = [elf._SECTION.unpack_from(code, header[6] + i * elf._SECTION.size) for i in range(header[12])]
    table = next(section for section in sections if section[1] == elf._SYMBOLS)
    strings = sections[table[6]][4]
    found = [elf._SYMBOL.unpack_from(code, at) for at in range(table[4], table[4] + table[5], elf._SYMBOL.size)]
    return [code[strings + name : code.index(b"\0", strings + name)] for name, _, _, section, *_ in found[1:] if section == 0]


@pytest.mark.parametrize("name", KERNELS, ids=".".join)
def test_kernels_become_code_for_arm64_that_needs_nothing_else(emit: Emit, name: tuple[str, str]):
    code, entry = emit(*name)
    assert undefined(code) == []
    linked = elf.link(code, entry, elf.ARM64, lambda _: arm64.CODE)
    assert linked is not None and linked.entry >= arm64.CODE
    assert elf.link(code, entry, elf.X86_64, lambda _: arm64.CODE) is None


# Arm Architecture Reference Manual, C7.2: SDOT (vector), SDOT (by element), MLA (by element), with any registers.
SDOT, SDOT_LANE, MLA_LANE = (0xFFE0FC00, 0x4E809400), (0xFFC0F400, 0x4F80E000), (0xFFC0F400, 0x6F800000)


def test_products_are_made_of_dot_instructions(emit: Emit):
    def uses(module: str, form: tuple[int, int]) -> int:
        return sum(word & form[0] == form[1] for word in instructions(emit(module, "linear")[0]))

    assert uses("q8_0", SDOT) >= 32 and uses("q4_k", SDOT) >= 64, "dots of few tokens"
    assert uses("q4_k", MLA_LANE) >= 24, "sub-blocks' scales"
    assert uses("q8_0", SDOT_LANE) == uses("q4_k", SDOT_LANE) == 128, "tiles: four tokens by sixteen rows by 32 values"
    assert not any(word & SDOT[0] == SDOT[1] for word in instructions(emit("norm", "rms_norm")[0]))


def call(kernel: tuple[bytes, str], *values: np.ndarray | float, threads: int = 1) -> None:
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    arm64.run(kernel, arrays, lambda address: words(*values, address=address), threads)


@emulated
def test_norms_and_activations(emit: Emit):
    rng, k = np.random.default_rng(0), 576
    x, weight, out = rng.standard_normal((3, k)).astype(np.float32), rng.standard_normal(k).astype(np.float32), aligned((3, k))
    call(emit("norm", "rms_norm"), x, weight, out, k, count(3), 1e-5, 0, 0, count(0), threads=2)
    want = x / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 1e-5) * weight
    assert np.allclose(out, want, rtol=2**-20, atol=2**-24)
    data, (q, scale) = aligned((3, k + k // 2), np.uint8), quantized(out, 32)
    call(emit("activations", "int8_32"), out, data, k, count(3), count(0))
    assert np.array_equal(data[:, :k].view(np.int8), q)
    assert np.array_equal(np.ascontiguousarray(data[:, k : k + k // 4]).view(np.float32)[:, ::2], scale[:, ::32])


@emulated
@pytest.mark.parametrize("position", [40, 700])
def test_attention(emit: Emit, position: int):
    """One token of two heads over a cache of one: in one piece, and in chunks that are put together."""
    rng, dim, positions = np.random.default_rng(position), 64, 1024
    q = rng.standard_normal((1, 2 * dim)).astype(np.float32)
    keys, values = (rng.standard_normal((positions, dim)).astype(np.float16) for _ in range(2))
    stored = np.ascontiguousarray(keys.reshape(-1, 16, dim).transpose(0, 2, 1))
    out, scratch = aligned(q.shape), aligned((2, scratch_bytes(2, dim)), np.uint8)
    partials, arrivals = aligned(partial_bytes(2, dim, positions), np.uint8), aligned((1, 1), np.int64)
    table = np.array([[0, 0, 1, position]], np.int64)
    call(emit("attention", "attention"), q, out, 2, 1, dim, stored, values, positions, count(1), table, count(0), float(dim**-0.5), scratch,
         scratch.shape[1], partials, arrivals, 0, 0, 0.0, threads=2)  # fmt: skip
    seen = slice(0, position + 1)
    scores = q.reshape(2, dim).astype(np.float64) @ keys[seen].astype(np.float64).T * dim**-0.5
    weights = np.exp(scores - scores.max(1, keepdims=True))
    want = weights / weights.sum(1, keepdims=True) @ values[seen].astype(np.float64)
    assert np.abs(out.reshape(2, dim) - want).max() <= 2**-16 * np.abs(want).max()


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("block_format", ENCODERS, ids=lambda f: f.name)
def test_encoders_give_the_reference_s_bytes(emit: Emit, block_format):
    """Roundings, conversions out of range and comparisons with NaN are not the same instructions there."""
    with np.errstate(all="ignore"):
        values = np.concatenate([np.clip(v, -3e38, 3e38).astype(np.float32) for _, v in hard_weights()])
    unit = max(block_format.block_values, 16)
    out = np.zeros((values.size // block_format.block_values, block_format.block_bytes), np.uint8)
    progress = np.array([0, np.iinfo(np.int64).max, 0], np.int64)

    def arguments(address):
        at = address(progress)
        return np.array([address(values), address(out), values.size // unit, at, at + 8, at + 16, 0], np.int64)

    arm64.run(emit(f"encode.{block_format.name.lower()}", "encode"), [values, out, progress], arguments, 2)
    assert progress[1] == np.iinfo(np.int64).max
    assert np.int64(np.abs(values).max().view(np.uint32)) == progress[2]
    want = block_format.encode(values.reshape(-1, block_format.block_values))
    if block_format.name.startswith("IQ4"):  # scales of absurd weights are NaN, which the two CPUs give different signs
        for blocks in (out, want):
            scales = blocks[:, :2].view("<f2")
            scales[np.isnan(scales)] = np.nan
    assert np.array_equal(out, want), f"{(out != want).any(1).sum()} of {len(out)} blocks differ"


EVERY_REFERENCE = """
target triple = "aarch64-unknown-linux-gnu"
@byte = internal global [3 x i8] c"\\01\\02\\03"
@half = internal global i16 -300
@word = internal global i32 70000
@long = internal global i64 -5000000000
@four = internal global <4 x i32> <i32 1, i32 2, i32 3, i32 4>
@table = internal constant [2 x ptr] [ptr @half, ptr @word]
define internal i64 @elsewhere(i64 %x) noinline section ".text.elsewhere" {
  %y = mul i64 %x, 3
  ret i64 %y
}
define void @entry(i64 %words, i64 %ith, i64 %crew) {
  %words_p = inttoptr i64 %words to ptr
  %to = load ptr, ptr %words_p
  %a = load volatile i8, ptr getelementptr (i8, ptr @byte, i64 2)
  %b = load volatile i16, ptr @half
  %c = load volatile i32, ptr @word
  %d = load volatile i64, ptr @long
  %e = load volatile <4 x i32>, ptr @four
  %f = extractelement <4 x i32> %e, i64 3
  %entry_p = getelementptr [2 x ptr], ptr @table, i64 0, i64 %ith
  %g_p = load volatile ptr, ptr %entry_p
  %g = load volatile i16, ptr %g_p
  %a64 = sext i8 %a to i64
  %b64 = sext i16 %b to i64
  %c64 = sext i32 %c to i64
  %f64 = sext i32 %f to i64
  %g64 = sext i16 %g to i64
  %h = call i64 @elsewhere(i64 %d)
  store i64 %a64, ptr %to
  %to1 = getelementptr i64, ptr %to, i64 1
  store i64 %b64, ptr %to1
  %to2 = getelementptr i64, ptr %to, i64 2
  store i64 %c64, ptr %to2
  %to3 = getelementptr i64, ptr %to, i64 3
  store i64 %d, ptr %to3
  %to4 = getelementptr i64, ptr %to, i64 4
  store i64 %f64, ptr %to4
  %to5 = getelementptr i64, ptr %to, i64 5
  store i64 %g64, ptr %to5
  %to6 = getelementptr i64, ptr %to, i64 6
  store i64 %h, ptr %to6
  ret void
}
"""


REFERENCES = {
    "small": {257, 275, 277, 283, 284, 285, 286, 299},  # a page and a place in it
    "large": {257, 264, 266, 268, 269, 283},  # all 64 bits
}  # code model: the types of references that the code has


def relocations(code: bytes) -> set[int]:
    header = elf._HEADER.unpack_from(code)
    sections = [elf._SECTION.unpack_from(code, header[6] + i * elf._SECTION.size) for i in range(header[12])]
    tables = [section for section in sections if section[1] == elf._RELA and sections[section[7]][2] & elf._ALLOCATED]
    at = [offset for table in tables for offset in range(table[4], table[4] + table[5], elf._RELOCATION.size)]
    return {elf._RELOCATION.unpack_from(code, offset)[1] & 0xFFFFFFFF for offset in at}


@emulated
@pytest.mark.parametrize("model", REFERENCES)
def test_every_kind_of_address_is_filled_in(model: str):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    options = {"cpu": "generic", "features": ARM64_FEATURES, "reloc": "static", "codemodel": model}
    code = llvm.Target.from_triple(ARM64_TRIPLE).create_target_machine(**options).emit_object(llvm.parse_assembly(EVERY_REFERENCE))
    assert relocations(code) >= REFERENCES[model]
    out = np.zeros(7, np.int64)
    arm64.run((code, "entry"), [out], lambda address: np.array([address(out)]), 1)
    assert out.tolist() == [3, -300, 70000, -5000000000, 4, -300, -15000000000]


def test_addresses_that_an_instruction_cannot_hold_are_refused():
    for form, to, place in ((elf._branch, 2**27, 0), (elf._page, 2**32, 0), (elf._page, 0, 2**32 + 4096), (elf._within_page(4), 8, 0)):
        with pytest.raises((OverflowError, ValueError)):
            form(0, to, place, 0)
    assert elf._branch(0x94000000, 0, 4, 0) == 0x97FFFFFF  # bl, one instruction back
    assert elf._page(0x90000000, 0x1000, 0x7FFF, 0) == 0xD0FFFFC0  # adrp x0, six pages back


@emulated
def test_what_goes_wrong_there_is_seen_here(emit: Emit):
    x, weight, out = (np.ones(64, np.float32) for _ in range(3))
    with pytest.raises(RuntimeError, match="that belong to no array"):
        call(emit("norm", "rms_norm"), x, weight, out[:48], 64, count(1), 1e-5, 0, 0, count(0))
    with pytest.raises(RuntimeError, match="the program ended with -11"):
        call(emit("norm", "rms_norm"), x, weight, 0, 64, count(1), 1e-5, 0, 0, count(0))


@pytest.mark.skipif(target().lowering == NEON and not target().triple, reason="this machine runs such code")
def test_code_for_another_machine_is_not_run():
    asked = "from ggpy.runtime.compiled import kernel; kernel('norm', 'rms_norm')"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_CPU")} | {"GGPY_SIMD": NEON}
    run = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert run.returncode == 1 and "code for aarch64 (neon-dot) does not run on this machine" in run.stderr.splitlines()[-1]
