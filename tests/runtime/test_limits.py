"""The measuring kernels do the work whose time is taken."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.runtime.compiled import kernel
from ggpy.runtime.limits import OPERAND_BYTES, RESULT_BYTES, multiply_rate, read_rate
from ggpy.runtime.parallel import run_kernel


def results(threads: int) -> np.ndarray:
    return np.zeros((threads, RESULT_BYTES // 4), np.int32)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_read_reads_every_byte_once(threads: int):
    rng = np.random.default_rng(threads)
    ranges = [rng.integers(0, 1 << 20, n * 64, dtype=np.int32) for n in (1, 5, 1000)]
    out = results(threads)
    places = [word for values in ranges for word in (values.ctypes.data, values.nbytes)]
    run_kernel(kernel("limits", "read"), np.array([out.ctypes.data, len(ranges), *places], np.int64), threads)
    with np.errstate(over="ignore"):
        assert out[:, 0].sum(dtype=np.int32) == sum(values.sum(dtype=np.int32) for values in ranges)


def test_multiply_multiplies_what_it_counts():
    operands = np.random.default_rng(7).integers(0, 128, OPERAND_BYTES, dtype=np.uint8)
    out, rounds = results(1), 11
    run_kernel(kernel("limits", "multiply"), np.array([out.ctypes.data, operands.ctypes.data, rounds], np.int64), 1)
    operations = int(out.view(np.int64)[0, 1])
    width = operations // (rounds * 8 * 2)  # bytes one dot product takes on this CPU
    assert width in (32, 64)
    expected, x = 0, operands[:width].astype(np.int64)
    for i in range(rounds):
        for k in range(8):
            at = i % 8 * 512 + 64 * k
            expected += int(x @ operands[at : at + width].astype(np.int64))
    assert int(out[0, 0]) == expected


def test_rates_are_those_of_a_machine():
    assert 1e8 < read_rate([np.ones(1 << 22, np.uint8)], 1, seconds=0.02) < 1e13
    assert 1e8 < multiply_rate(1, seconds=0.02) < 1e15
