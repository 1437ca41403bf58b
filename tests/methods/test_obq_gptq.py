"""OBQ against brute force, GPTQ against OBQ in its order: exactness where it is claimed."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.methods import METHODS, gptq, obq, zero_point
from ggpy.methods.grids import Grid, affine_grid
from ggpy.methods.hessian import feedback, hessian, inverse

from .layers import layer, output_error


def grid_of(row: np.ndarray, bits: int) -> Grid:
    scale, zero, highest = affine_grid(row[None], bits)
    return Grid(np.repeat(scale[0], len(row)), np.repeat(zero[0], len(row)), highest)


def fixed(grid: Grid, p: int) -> Grid:
    return Grid(grid.scale[p], grid.zero[p], grid.highest)


def best_rest(row: np.ndarray, h: np.ndarray, chosen: dict[int, float]) -> tuple[np.ndarray, float]:
    """The row that has the `chosen` weights and otherwise costs least, and what it costs: solved from nothing, no inverse updated."""
    free = [i for i in range(len(row)) if i not in chosen]
    fixed = list(chosen)
    change = np.zeros(len(row))
    change[fixed] = [chosen[i] - row[i] for i in fixed]
    if free and fixed:
        change[free] = -np.linalg.solve(h[np.ix_(free, free)], h[np.ix_(free, fixed)] @ change[fixed])
    return row + change, float(change @ h @ change)


def brute_force(row: np.ndarray, h: np.ndarray, grid: Grid, order: list[int] | None = None) -> np.ndarray:
    """Each step tries every weight that is left, solving for all others; or takes them in the `order` given."""
    chosen: dict[int, float] = {}
    for step in range(len(row)):
        now, cost = best_rest(row, h, chosen)
        trials = {}
        for p in [order[step]] if order else [i for i in range(len(row)) if i not in chosen]:
            level = float(fixed(grid, p).nearest(now[p]))
            trials[p] = best_rest(row, h, {**chosen, p: level})[1] - cost, level
        p = min(trials, key=lambda p: trials[p][0])
        chosen[p] = trials[p][1]
    return np.array([chosen[i] for i in range(len(row))])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bits", [2, 3])
def test_obq_is_the_greedy_order_brute_force_finds(seed: int, bits: int):
    weights, activations, _ = layer(1, 12, tokens=40, seed=seed)
    row, h = weights[0].astype(np.float64), hessian(activations)
    grid = grid_of(weights[0], bits)
    np.testing.assert_array_equal(obq.quantize_row(weights[0], inverse(h), grid), brute_force(row, h, grid))


@pytest.mark.parametrize("seed", range(6))
def test_gptq_is_that_with_the_columns_in_their_order(seed: int):
    weights, activations, _ = layer(5, 12, tokens=40, seed=seed)
    h = hessian(activations)
    found = gptq.quantize(weights, activations, bits=3, group=12, fixed_grid=True)
    expected = [brute_force(row.astype(np.float64), h, grid_of(row, 3), list(range(12))) for row in weights]
    np.testing.assert_array_equal(found.values, np.array(expected, np.float32))


def test_feedback_is_what_eliminating_one_column_after_the_other_finds():
    h = hessian(layer(1, 24, tokens=60)[1])
    u, left = feedback(h), inverse(h)
    for j in range(24):
        np.testing.assert_allclose(u[j, j:], left[j, j:] / np.sqrt(left[j, j]), rtol=1e-8)
        left = left - np.outer(left[:, j], left[j]) / left[j, j]


def test_a_large_diagonal_of_the_inverse_means_that_a_weight_matters_little():
    """What it costs to move one weight, with all others free to make up for it, is 1 / [H⁻¹]_jj."""
    h = hessian(layer(1, 10, tokens=40)[1])
    for j in range(10):
        _, cost = best_rest(np.zeros(10), h, {j: 1.0})
        assert cost == pytest.approx(1 / inverse(h)[j, j], rel=1e-8)


def test_long_rows_are_compacted_to_the_same_levels():
    weights, activations, _ = layer(1, 130, tokens=400)
    h, grid = hessian(activations), grid_of(weights[0], 3)
    row, left = weights[0].astype(np.float64), inverse(h)
    done, expected = np.zeros(130, bool), np.zeros(130)
    for _ in range(130):
        errors = row - grid.nearest(row)
        p = int(np.argmin(np.where(done, np.inf, errors**2 / np.where(done, 1, np.diagonal(left)))))
        expected[p], done[p] = row[p] - errors[p], True
        row = np.where(done, row, row - left[:, p] / left[p, p] * errors[p])
        left = left - np.outer(left[:, p], left[p]) / left[p, p]
    np.testing.assert_allclose(obq.quantize_row(weights[0], inverse(h), grid), expected, rtol=1e-9)


@pytest.mark.parametrize("group", [16, 80, 160, 320])
def test_blocks_of_columns_change_nothing(group: int):
    """Errors spread a block at a time, and groups that begin or end within one, give what spreading each at once gives."""
    weights, activations, _ = layer(8, 320, tokens=700)
    u, left = feedback(hessian(activations)), weights.astype(np.float64)
    expected = np.empty_like(left)
    for j in range(320):
        if j % group == 0:
            grid = affine_grid(left[:, j : j + group], 4)
        level = grid.nearest(left[:, j : j + 1])[:, 0]
        expected[:, j] = level
        left = left - np.outer((left[:, j] - level) / u[j, j], np.where(np.arange(320) > j, u[j], 0))
    found = gptq.quantize(weights, activations, bits=4, group=group).values
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_gptq_is_about_as_good_as_obq_and_both_beat_rounding():
    weights, activations, held_out = layer(32, 128, tokens=2000)
    errors = {}
    for name, values in {
        "obq": METHODS["OBQ 4-bit"].quantize(weights, activations).values,
        "gptq": METHODS["GPTQ 4-bit, fixed grid"].quantize(weights, activations).values,
        "rounding": zero_point.quantize(weights, activations, bits=4, group=64).values,
    }.items():
        errors[name] = output_error(weights, values, held_out)
    assert errors["gptq"] < 0.8 * errors["rounding"]
    assert 0.8 < errors["gptq"] / errors["obq"] < 1.25
