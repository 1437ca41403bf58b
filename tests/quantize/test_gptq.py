"""GPTQ in blocks: never worse than rounding, much better where inputs go together, and the same bytes for any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat, dequantize
from ggpy.errors import GGPyError
from ggpy.quantize import factor, gptq
from ggpy.quantize.drift import made_up_for
from ggpy.quantize.products import Products
from ggpy.quantize.refine import refine
from ggpy.runtime.encode import encode_rows

ON_A_GRID = [f for f in BLOCKS.values() if f.grid is not None]
each_format = pytest.mark.parametrize("block_format", ON_A_GRID, ids=lambda f: f.name)
COLS = 512
REFINED = ["Q4_1", "Q3_K", "Q4_K", "IQ4_NL"]


def inputs(tokens: int = 2048, seed: int = 1) -> np.ndarray:
    """float32 (tokens, COLS): few causes behind many channels, some of which are much larger than others."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).standard_normal((48, COLS)) * np.random.default_rng(8).lognormal(0, 1, COLS)
    return (random.standard_normal((tokens, 48)) @ mixing + random.standard_normal((tokens, COLS))).astype(np.float32)


@pytest.fixture(scope="module")
def gram() -> np.ndarray:
    x = inputs().astype(np.float64)
    return x.T @ x


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return (np.random.default_rng(3).standard_normal((40, COLS)) * 0.02).astype(np.float32)


def errors(weights: np.ndarray, blocks: np.ndarray, gram: np.ndarray, block_format: BlockFormat) -> np.ndarray:
    """Squared error of the outputs, float64 (rows,), not as the code under test computes it."""
    off = weights.astype(np.float64) - dequantize(blocks, block_format)
    return np.einsum("ri,ij,rj->r", off, gram, off, optimize=True)


def rounded(weights: np.ndarray, gram: np.ndarray, block_format: BlockFormat) -> np.ndarray:
    importance = (np.diagonal(gram) / np.diagonal(gram).max()).astype(np.float32)
    return encode_rows(weights, block_format, importance=importance)


@each_format
def test_errors_cancel_in_the_outputs(weights: np.ndarray, gram: np.ndarray, block_format: BlockFormat):
    blocks = gptq.quantize(weights, gram, block_format, sweeps=0)
    assert blocks.shape == (len(weights), block_format.row_bytes(COLS)) and blocks.dtype == np.uint8
    plain = errors(weights, rounded(weights, gram, block_format), gram, block_format)
    found = errors(weights, blocks, gram, block_format)
    assert (found <= plain * 1.001).all()
    assert found.sum() < 0.6 * plain.sum()

    fresh = inputs(seed=2).astype(np.float64)
    unseen = fresh.T @ fresh
    off = errors(weights, rounded(weights, gram, block_format), unseen, block_format)
    assert errors(weights, blocks, unseen, block_format).sum() < 0.7 * off.sum()


@pytest.mark.parametrize("name", REFINED)
def test_choosing_again_makes_it_better(weights: np.ndarray, gram: np.ndarray, name: str):
    matrix = factor.regularized(gram, 0.01, 0.1)
    plain = rounded(weights, gram, BLOCKS[name])
    before = gptq.quantize(weights, gram, BLOCKS[name], sweeps=0)
    for blocks, gain in ((plain, 0.8), (before, 0.99)):
        first = errors(weights, blocks, matrix, BLOCKS[name])
        again = errors(weights, refine(weights, blocks, matrix, BLOCKS[name], sweeps=2), matrix, BLOCKS[name])
        assert (again <= first * 1.001).all() and again.sum() < gain * first.sum()
    assert np.array_equal(refine(weights, plain, matrix, BLOCKS[name], sweeps=0), plain)


@pytest.mark.parametrize("name", ["Q4_1", "Q3_K"])
def test_what_went_wrong_before_is_made_good(weights: np.ndarray, name: str):
    exact = inputs().astype(np.float64)
    x = exact + 0.3 * exact.std() * np.random.default_rng(4).standard_normal(exact.shape) @ (0.05 * np.ones((COLS, COLS)) + np.eye(COLS))
    with Products(1) as products:
        moved = made_up_for(weights, x.T @ x, (exact - x).T @ x, products, damping=0.01, strength=1.0)
    aware = gptq.quantize(moved, x.T @ x, BLOCKS[name])
    blind = gptq.quantize(weights, x.T @ x, BLOCKS[name])

    def off(blocks: np.ndarray) -> float:
        return float(((exact @ weights.T - x @ dequantize(blocks, BLOCKS[name]).T) ** 2).sum())

    assert off(aware) < 0.8 * off(blind)


@pytest.mark.parametrize("name", ["Q4_1", "Q3_K", "Q4_K"])
def test_threads_change_nothing(weights: np.ndarray, gram: np.ndarray, name: str):
    rows = np.concatenate([weights, -weights[::-1], weights * 3])
    one = gptq.quantize(rows, gram, BLOCKS[name])
    assert np.array_equal(gptq.quantize(rows, gram, BLOCKS[name], threads=3), one)
    assert np.array_equal(gptq.quantize(rows[:7], gram, BLOCKS[name]), one[:7])


DIGEST = """
import hashlib
import numpy as np
from ggpy.blocks import BLOCKS
from ggpy.quantize import gptq
from tests.quantize.test_gptq import inputs
x = np.concatenate([inputs(), inputs(seed=5)], axis=1)
w = np.random.default_rng(1).standard_normal((300, 1024)).astype(np.float32)
print(hashlib.sha256(gptq.quantize(w, x.T @ np.float64(x), BLOCKS["Q4_1"]).tobytes()).hexdigest())
"""


def test_threads_of_the_linear_algebra_change_nothing():
    digests = set()
    for threads in ("1", "3"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True, env=environment)
        digests.add(done.stdout)
    assert len(digests) == 1 and len(digests.pop()) == 65


@pytest.mark.parametrize("name", ["Q4_1", "Q4_K"])
@pytest.mark.parametrize("kind", ["no tokens", "dead columns", "one token", "outlier", "tiny", "huge"])
def test_degenerate_inputs(weights: np.ndarray, gram: np.ndarray, name: str, kind: str):
    changed = gram.copy()
    if kind == "no tokens":
        changed[...] = 0
    elif kind == "dead columns":
        changed[32:300] = changed[:, 32:300] = 0
    elif kind == "one token":
        x = inputs(1).astype(np.float64)
        changed = x.T @ x
    elif kind == "outlier":
        changed[5] *= 1e4
        changed[:, 5] *= 1e4
    else:
        changed *= 1e-30 if kind == "tiny" else 1e25
    blocks = gptq.quantize(weights, changed, BLOCKS[name])
    assert np.isfinite(dequantize(blocks, BLOCKS[name])).all()
    plain, found = (errors(weights, b, changed, BLOCKS[name]) for b in (rounded_safely(weights, changed, name), blocks))
    assert (found <= plain * 1.001 + 1e-12 * np.abs(plain).max()).all()


def rounded_safely(weights: np.ndarray, gram: np.ndarray, name: str) -> np.ndarray:
    return rounded(weights, gram if gram.any() else np.eye(COLS), BLOCKS[name])


@pytest.mark.parametrize("name", REFINED)
def test_strange_weights(gram: np.ndarray, name: str):
    strange = np.zeros((8, COLS), np.float32)
    strange[1], strange[2], strange[3], strange[4, 100] = 0.5, -0.5, 1e-30, 3
    strange[5] = np.linspace(-1e30, 1e30, COLS)
    strange[6], strange[7] = np.resize([1, -1], COLS), np.repeat(np.float32(10.0) ** np.arange(-11, 5), COLS // 16)
    blocks = gptq.quantize(strange, gram, BLOCKS[name])
    kept = [0, 1, 2, 3, 4, 6, 7]
    plain, found = (errors(strange[kept], b[kept], gram, BLOCKS[name]) for b in (rounded(strange, gram, BLOCKS[name]), blocks))
    assert (found <= plain * 1.001).all()


def test_what_is_not_finite_is_refused(weights: np.ndarray, gram: np.ndarray):
    wrong = weights.copy()
    wrong[2, 9] = np.nan
    with pytest.raises(ValueError, match=r"^Q4_K cannot encode nan at index 1033: weights must be finite$"):
        gptq.quantize(wrong, gram, BLOCKS["Q4_K"])
    spoiled = gram.copy()
    spoiled[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"^Gram matrix with values that are not finite$"):
        gptq.quantize(weights, spoiled, BLOCKS["Q4_K"])
    with pytest.raises(ValueError, match=r"^Gram matrix of shape \(500, 500\): rows of 512 weights need \(512, 512\)$"):
        gptq.quantize(weights, gram[:500, :500], BLOCKS["Q4_K"])
    spoiled[3] = spoiled[:, 3] = 0
    spoiled[3, 3] = -1
    with pytest.raises(ValueError, match=r"^the Gram matrix has -1.0 on its diagonal: a sum of squares is not negative$"):
        gptq.quantize(weights, spoiled, BLOCKS["Q4_K"])
    with pytest.raises(ValueError, match=r"^a row of 500 values is not a whole number of Q4_K blocks of 256$"):
        gptq.quantize(weights[:, :500], gram[:500, :500], BLOCKS["Q4_K"])
    with pytest.raises(GGPyError, match=r"^no scales to choose for IQ2_S blocks: their values are not levels times a scale$"):
        gptq.quantize(weights, gram, BLOCKS["IQ2_S"])


def test_few_tokens_say_less_of_others(weights: np.ndarray):
    """Inputs that have nothing to do with each other, though in few tokens it looks otherwise."""
    block_format, x = BLOCKS["Q4_1"], np.random.default_rng(9).standard_normal((COLS // 2, COLS))
    blind, aware = (gptq.quantize(weights, x.T @ x, block_format, shrinkage=0.02, tokens=tokens) for tokens in (None, len(x)))
    assert errors(weights, aware, np.eye(COLS), block_format).sum() < 0.9 * errors(weights, blind, np.eye(COLS), block_format).sum()
    assert gptq.shrunk(0.3, 100, None) == 0.3 and gptq.shrunk(0.3, 100, 10**9) == pytest.approx(0.3) and gptq.shrunk(0.0, 10, 10) == 0.5


def test_no_rows(weights: np.ndarray, gram: np.ndarray):
    assert gptq.quantize(weights[:0], gram, BLOCKS["Q4_K"]).shape == (0, 288)


def test_the_factor(gram: np.ndarray):
    order = factor.block_order(gram, BLOCKS["Q3_K"])
    assert np.array_equal(np.sort(order), np.arange(COLS))
    assert (order.reshape(-1, 16) // 16 == (order[::16] // 16)[:, None]).all() and (order[:256] // 256 == order[0] // 256).all()
    found = factor.factored(gram, order, 0.01, 0.3)
    wanted = factor.regularized(gram, 0.01, 0.3, order)
    upper = (np.tril(found.feedback, -1) + np.eye(COLS)).T * np.sqrt(found.importance.astype(np.float64))
    assert np.abs(upper @ upper.T - wanted).max() < 1e-5 * wanted.max()
