"""The measuring kernels do the work whose time is taken."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.runtime.compiled import kernel
from ggpy.runtime.limits import OPERAND_BYTES, RESULT_BYTES, TILE_OPERAND_BYTES, multiply_pass, multiply_tiles_pass, read_pass
from ggpy.runtime.parallel import run_kernel
from ggpy.simd.target import target


def results(threads: int) -> np.ndarray:
    return np.zeros((threads, RESULT_BYTES // 4), np.int32)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_read_reads_every_byte_once(threads: int):
    rng = np.random.default_rng(threads)
    chunks = [rng.integers(0, 1 << 20, n * 64, dtype=np.int32) for n in (1, 5, 1000)]
    out, counter = results(threads), np.zeros(1, np.int64)
    places = [word for values in chunks for word in (values.ctypes.data, values.nbytes)]
    words = [out.ctypes.data, len(chunks), counter.ctypes.data, *places]
    run_kernel(kernel("limits", "read"), np.array(words, np.int64), threads)
    with np.errstate(over="ignore"):
        assert out[:, 0].sum(dtype=np.int32) == sum(values.sum(dtype=np.int32) for values in chunks)
    assert out.view(np.int64)[:, 1].sum() == sum(values.nbytes for values in chunks)


@pytest.mark.parametrize(("threads", "rounds"), [(1, 11), (3, 9001)])
def test_multiply_multiplies_what_it_counts(threads: int, rounds: int):
    operands = np.random.default_rng(7).integers(0, 128, OPERAND_BYTES, dtype=np.uint8)
    out, counter = results(threads), np.zeros(1, np.int64)
    words = [out.ctypes.data, operands.ctypes.data, rounds, counter.ctypes.data]
    run_kernel(kernel("limits", "multiply"), np.array(words, np.int64), threads)
    operations = int(out.view(np.int64)[:, 1].sum())
    width = operations // (rounds * 8 * 2)  # bytes one dot product takes on this CPU
    assert width in (32, 64)
    x, y = operands[:width].astype(np.int64), operands.reshape(8, 8, 64)[:, :, :width].astype(np.int64)
    per_round = (y @ x).sum(1)
    expected = int(per_round.sum()) * (rounds // 8) + int(per_round[: rounds % 8].sum())
    assert int(out[:, 0].astype(np.int64).sum()) % 2**32 == expected % 2**32


def test_rates_are_those_of_a_machine():
    assert 1e8 < read_pass([np.ones(1 << 22, np.uint8)], 1).best(0.02) < 1e13
    assert 1e8 < multiply_pass(1).best(0.02) < 1e15


def test_a_short_range_is_read_as_often_as_it_takes():
    """A pass over little memory must not measure how long a thread takes to start."""
    values = np.ones(1 << 16, np.uint8)
    assert read_pass([values], 2, n_bytes=1 << 27).best(0.02) > 2 * read_pass([values], 2, n_bytes=1).best(0.02)


@pytest.mark.skipif(not target().amx, reason="kernels are not compiled for AMX")
def test_tiles_are_multiplied_as_often_as_counted():
    one, twice = multiply_tiles_pass(1, passes=1), multiply_tiles_pass(1, passes=2)
    assert one() > 0 and twice() > 0
    assert int(twice._results[0, 1]) == 2 * int(one._results[0, 1]) == 2 * (TILE_OPERAND_BYTES // 4096) * 4 * 2 * 16 * 16 * 32
    for measured, times in ((one, 1), (twice, 2)):
        data = measured._held[0]
        tiles = (data[:TILE_OPERAND_BYTES].view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        a, b, c, d = tiles.reshape(-1, 4, 16, 32).transpose(1, 0, 2, 3)  # two of tokens around two of weights
        sums = data[TILE_OPERAND_BYTES:].view(np.float32).reshape(4, 16, 16)
        for i, (x, w) in enumerate(((a, b), (a, c), (d, b), (d, c))):
            want = times * np.einsum("smkj,sknj->mn", x.reshape(-1, 16, 16, 2), w.reshape(-1, 16, 16, 2))
            assert np.abs(sums[i] - want).max() < 1e-3 * np.abs(want).max()
