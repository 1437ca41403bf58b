"""Products in bfloat16 on AMX where they are put together from pieces: long rows, many tokens, tiles that are not full.

Run where kernels are compiled for AMX: on a CPU that has it, or anywhere with GGPY_SIMD=amx-bf16, which emulates it.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.kernels.kinds import BF16_FROM, BF16_TOKENS, activation_bytes, activation_kind, bf16_width, scratch_bytes
from ggpy.simd.target import AMX, target

from .naive import activations, aligned, call, count, rounded_to_bf16
from .test_linear import expected, weights

with_amx = pytest.mark.skipif(not target().amx, reason=f"kernels are not compiled for AMX (GGPY_SIMD={AMX} does, and tests emulate it)")


def product(name: str, w: np.ndarray, x: np.ndarray, threads: int = 1) -> np.ndarray:
    """y (tokens, rows), from scratch of the size that is asked for; what no thread may touch is checked, what none wrote is NaN."""
    (n, k), rows, guard = x.shape, len(w), 64
    size = -(-scratch_bytes(name, k, target().tile_tokens) // 64) * 64
    scratch, y = aligned(threads * size + guard, np.uint8, fill=255), aligned((n * rows + guard,), fill=255)
    acts = activations(x, activation_kind(name))
    call(name.lower(), "linear", w, w.shape[1], rows, k, acts, y, 4 * rows, count(n), count(0), scratch, size, 0, 0, threads=threads)
    assert (scratch[-guard:] == 255).all() and np.isnan(y[-guard:]).all()
    return y[:-guard].reshape(n, rows)


@with_amx
@pytest.mark.parametrize("n_tokens", [BF16_FROM, BF16_FROM + 1, 48, 63, BF16_TOKENS + 17])
@pytest.mark.parametrize(("name", "rows", "k"), [("Q4_1", 130, 2080), ("Q4_K", 37, 4352), ("BF16", 33, 2100), ("Q6_K", 16, 256)])
def test_pieces_make_the_whole(name: str, rows: int, k: int, n_tokens: int):
    """Long rows are summed in pieces, many tokens in parts; rows and tokens that fill no tile neither leak nor are lost."""
    rng, fmt = np.random.default_rng(n_tokens), BLOCKS[name]
    w, x = weights(fmt, rows, k), rng.standard_normal((n_tokens, k)).astype(np.float32)
    got = product(name, w, x)
    want, magnitude, _ = expected(fmt, w, x)
    assert np.all(np.abs(got - want) <= magnitude * 2**-18)
    assert np.array_equal(product(name, w, x, threads=3), got)


@with_amx
def test_a_token_does_not_depend_on_its_neighbours():
    fmt, rng = BLOCKS["Q5_K"], np.random.default_rng(1)
    w, x = weights(fmt, 64, 512), rng.standard_normal((80, 512)).astype(np.float32)
    whole = product("Q5_K", w, x)
    assert np.array_equal(product("Q5_K", w, x[:45]), whole[:45])
    x[3, 7], x[20] = np.nan, np.inf
    tainted = product("Q5_K", w, x)
    assert not np.isfinite(tainted[[3, 20]]).any()
    others = [t for t in range(80) if t not in (3, 20)]
    assert np.array_equal(tainted[others], whole[others])


@with_amx
@pytest.mark.parametrize("name", ["Q8_0", "Q4_K", "BF16"])
def test_a_weight_that_is_not_finite_reaches_its_row(name: str):
    fmt, rng = BLOCKS[name], np.random.default_rng(2)
    w, x = weights(fmt, 40, 512), rng.standard_normal((33, 512)).astype(np.float32)
    clean = product(name, w, x)
    w[17, :2] = np.array([np.inf], np.float16).view(np.uint8) if name != "BF16" else (0x80, 0x7F)
    got = product(name, w, x)
    assert not np.isfinite(got[:, 17]).any()
    others = [r for r in range(40) if r != 17]
    assert np.array_equal(got[:, others], clean[:, others])


@with_amx
@pytest.mark.parametrize("kind", ["int8_32", "int8_256", "bfloat16"])
@pytest.mark.parametrize("k", [256, 172])
def test_activations_in_bfloat16_lie_as_described(kind: str, k: int):
    """Sixteen tokens of 32 values, then the next 32; zeros up to a multiple of 32; fused forms write the same."""
    n, rng = 37, np.random.default_rng(3)
    x, width = rng.standard_normal((n, k)).astype(np.float32), bf16_width(k)
    got = activations(x, kind)
    assert got.nbytes == 48 * 2 * width <= 48 * activation_bytes(kind, k)
    values = got.view(np.uint16).reshape(3, width // 32, 16, 32).transpose(0, 2, 1, 3).reshape(48, width)
    assert np.array_equal(values[:n, :k], rounded_to_bf16(x).view(np.uint32) >> 16)
    assert not values[:n, k:].any() and (values[n:] == 0xFFFF).all()
    ones, scratch, plain = np.ones(k, np.float32), aligned((2, 4 * k), np.uint8), aligned((n, k))
    call("norm", "rms_norm", x, ones, plain, k, count(n), 1e-6, 0, 0, count(0))
    fused = aligned(got.shape, np.uint8, 255)
    call("norm", f"rms_norm_{kind}", x, ones, fused, k, count(n), 1e-6, scratch, 4 * k, count(0), threads=2)
    assert np.array_equal(fused, activations(plain, kind))
    fused.fill(255)
    call("pointwise", "silu_mul", x, x, plain, k, count(n), 0, 0, count(0))
    call("pointwise", f"silu_mul_{kind}", x, x, fused, k, count(n), scratch, 4 * k, count(0), threads=2)
    assert np.array_equal(fused, activations(plain, kind))


@with_amx
def test_scratch_is_about_a_megabyte_whatever_the_model():
    assert all(scratch_bytes("Q4_K", k, 8) < 1.25 * 2**20 for k in (576, 2048, 8192, 14336))


EMIT = """
import sys
from ggpy.kernels.options import kernel
from ggpy.kernels import q4_k
sys.stdout.buffer.write(q4_k.linear.emit()[0])
"""


@pytest.mark.parametrize(("named", "simd", "uses"), [("sapphirerapids", AMX, True), ("sapphirerapids", "avx512-vnni", False)])
def test_object_code_for_an_amx_cpu(named: str, simd: str, uses: bool):
    """Cross-compiled anywhere: the product's instructions are there, if asked for (VEX.F3.0F38.W0 5C: TDPBF16PS)."""
    environment = os.environ | {"NUMBA_CPU_NAME": named, "GGPY_SIMD": simd}
    environment.pop("NUMBA_CPU_FEATURES", None)
    code = subprocess.run([sys.executable, "-c", EMIT], env=environment, capture_output=True, check=True).stdout
    found = sum(code[i : i + 2] == b"\xc4\xe2" and code[i + 2] & 0x87 == 0x02 and code[i + 3] == 0x5C for i in range(len(code) - 4))
    assert (found >= 4) == uses and (uses or found == 0)


@with_amx
def test_formats_that_stay_exact_have_no_tiles():
    for name in ("F32", "F16"):
        assert activation_kind(name) == "float32"
        code, _ = importlib.import_module(f"ggpy.kernels.{name.lower()}").linear.emit()
        assert b"\xc4\xe2\x78\x49\xc0" not in code  # TILERELEASE
