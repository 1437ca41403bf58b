"""Float checkpoints whose weights lie on the grid of a block format already, as of models trained for four bits, found by their values.

A block of 32 weights is on a format's grid if some scale and quants of that format give numbers that round to the weights, in the precision
they are stored in, or miss that by no more than rounding the scale to half precision explains. ggml's encoders find such a scale where the
largest weight has the outermost level; elsewhere they search, and lose. Here every level is tried for it, and scale and offset then follow
from all of the block's weights. Few blocks of a tensor are looked at to recognise it; where it is written, every block is checked, and one
that is on no grid is encoded as always.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BLOCKS, BlockFormat, dequantize
from ggpy.blocks.affine_grid import Grid, Parts, single_offset, single_scale
from ggpy.converter.finite import fault_in_values
from ggpy.converter.source import Quantized, RowReader, SourceTensor
from ggpy.converter.stream import NeedsWider
from ggpy.converter.tensor_types import TensorInfo, is_quantizable
from ggpy.runtime.encode import FLOATS, encode_rows, widened

CANDIDATES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")  # the smallest first
_WIDER = {"Q4_0": ("Q5_0", "Q8_0"), "Q5_0": ("Q8_0",), "Q4_1": ("Q5_1",)}  # formats that hold the same grid with more levels
_BLOCK = 32
_ROWS, _FIRST, _BLOCKS = 24, 2, 16  # rows that are looked at, in all and at first; blocks of each
_TENSORS = 6  # of a model, the largest: where none of them is on a grid, no other is looked at
_TOLD = 4  # distinct magnitudes of a block from which on lying on a grid is no chance
_HALF_STEP = {"F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}  # of a number's power of two: what rounding to them changes at most
_SCALE_STEP = np.float32(2.0**-11)  # the same of half precision, in which scales and offsets are kept
_AROUND = {  # half-precision neighbours that are tried of scale and offset, which follow less well from weights that are rounded more
    name: [(by, to) for by in range(-reach, reach + 1) for to in range(-2 * reach, 2 * reach + 1)]
    for name, reach in (("F32", 0), ("F16", 1), ("BF16", 2))
}
_LARGEST_HALF = 0x7BFF

Encode = Callable[[NDArray[np.float32], BlockFormat], NDArray[np.uint8]]


def recognise(tensors: Sequence[SourceTensor]) -> list[SourceTensor]:
    """The tensors, those on a grid with what reads them as its blocks; all as they are unless most of the model's weights are on one."""
    matrices = [t for t in tensors if is_quantizable(TensorInfo(t.name, t.shape, t.kept))]
    off, half = 0, sum(t.n_values for t in matrices) / 2
    found: dict[str, SourceTensor] = {}
    for i, tensor in enumerate(sorted(matrices, key=lambda t: -t.n_values)):
        format = grid_of(tensor) if tensor.dtype in FLOATS and not tensor.repacked else None
        if format is not None:
            found[tensor.name] = _taken(tensor, format)
            continue
        off += tensor.n_values
        if off > half or (i + 1 >= _TENSORS and not found):
            return list(tensors)
    return [found.get(tensor.name, tensor) for tensor in tensors]


def grid_of(tensor: SourceTensor) -> str | None:
    """The smallest block format on whose grid a sample of the tensor's blocks lies, all of them; None where there is none."""
    if tensor.columns % _BLOCK or not tensor.rows:
        return None
    read, candidates, told = tensor.open(), list(CANDIDATES), 0
    rows = np.random.default_rng(tensor.rows).permutation(np.unique(np.linspace(0, tensor.rows - 1, _ROWS).astype(np.int64)))
    for several, most in ((rows[:_FIRST], len(CANDIDATES)), (rows[_FIRST:], 1)):
        if not len(several) or not candidates:
            continue
        values = np.concatenate([widened(read(row, row + 1))[:, : _BLOCK * _BLOCKS] for row in several.tolist()])
        if not np.isfinite(values).all():
            return None
        told += sum(len(np.unique(np.abs(block))) >= _TOLD for block in values.reshape(-1, _BLOCK))
        fitting = (name for name in candidates if _fit(values, BLOCKS[name], tensor.dtype, _reference)[1].all())
        candidates = list(itertools.islice(fitting, most))
    return candidates[0] if candidates and told >= _FIRST else None


def _taken(tensor: SourceTensor, format: str) -> SourceTensor:
    """The tensor as one that was quantized: repacked into that format, or one with more levels, without another search."""
    fits = (format, *_WIDER.get(format, ()))
    quantized = Quantized(f"on the {format} grid", fits, (tensor.dtype, "F32"), format)
    repacked = {name: partial(_open, tensor, name, format) for name in fits}
    return replace(tensor, quantized=quantized, repacked=repacked)


def _open(tensor: SourceTensor, target: str, format: str) -> RowReader:
    read = tensor.open()

    def rows(start: int, stop: int) -> NDArray[np.uint8]:
        values = np.ascontiguousarray(widened(read(start, stop)))
        if fault := fault_in_values(tensor, start, values):
            raise NeedsWider(tensor.name, f"it {fault}, which {target} cannot hold")
        blocks, _ = _fit(values, BLOCKS[format], tensor.dtype, encode_rows)
        return blocks if target == format else _widen(blocks, BLOCKS[format], BLOCKS[target])

    return rows


def _reference(values: NDArray[np.float32], format: BlockFormat) -> NDArray[np.uint8]:
    """As `encode_rows`, without compiling anything."""
    assert format.encode is not None
    return format.encode(values.reshape(-1, _BLOCK)).reshape(len(values), -1)


def _widen(rows: NDArray[np.uint8], narrow: BlockFormat, wide: BlockFormat) -> NDArray[np.uint8]:
    """Rows of blocks, uint8 (rows, row_bytes), in a format that has their levels among others."""
    assert narrow.grid is not None and wide.grid is not None
    parts = narrow.grid.split(rows.reshape(-1, narrow.block_bytes))
    shift = int(narrow.grid.levels[0] - wide.grid.levels[0])
    return wide.grid.join(parts._replace(quants=(parts.quants + np.uint8(shift)).astype(np.uint8))).reshape(len(rows), -1)


def _fit(values: NDArray[np.float32], format: BlockFormat, dtype: str, encode: Encode) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Blocks of finite rows (rows, columns), uint8 (rows, row_bytes), and which of them give the values again: bool (n_blocks,)."""
    data, grid, flat = encode(values, format), format.grid, values.reshape(-1, _BLOCK)
    assert grid is not None
    blocks = data.reshape(-1, format.block_bytes)
    excess = _excess(flat, dequantize(data, format).reshape(-1, _BLOCK), dtype)
    left = np.flatnonzero(excess > 0)
    if len(left):
        parts = _affine(flat[left], grid, dtype) if grid.has_mins else _symmetric(flat[left], grid, dtype)
        found = grid.join(parts)
        again = _excess(flat[left], dequantize(found, format), dtype)
        better = again < excess[left]
        blocks[left[better]], excess[left[better]] = found[better], again[better]
    return data, excess <= _grace(flat, dequantize(data, format).reshape(-1, _BLOCK), grid)


@np.errstate(all="ignore")
def _excess(values: NDArray[np.float32], decoded: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """(n_blocks,): 0 where all decoded weights round to the values; else how far the worst is from what does, as a part of the largest."""
    exact = (_rounded(decoded, dtype) == values).all(axis=1)
    over = (np.abs(decoded - values) - _room(values, dtype)).max(axis=1)
    excess = np.maximum(over / np.abs(values).max(axis=1), np.finfo(np.float32).tiny)
    return np.where(exact, np.float32(0), np.where(np.isfinite(excess), excess, np.float32(np.inf)))


def _rounded(values: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """As float32 what they are in that precision, to nearest and even."""
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "F32":
        return values
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def _room(values: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """How far from a value a number may be that rounds to it."""
    return (values.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32) * np.float32(_HALF_STEP[dtype])


@np.errstate(all="ignore")
def _grace(values: NDArray[np.float32], decoded: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """The part of `_excess` that rounding scale and offset to half precision explains, (n_blocks,)."""
    moved = np.abs(decoded).max(axis=1)
    if grid.has_mins:
        moved = moved + (decoded.max(axis=1) - decoded.min(axis=1))
    peak = np.abs(values).max(axis=1)
    return np.where(peak > 0, _SCALE_STEP * moved / peak, np.float32(0))


@np.errstate(all="ignore")
def _symmetric(values: NDArray[np.float32], grid: Grid, dtype: str) -> Parts:
    """Whole numbers times a scale: for every level that the largest weight may have, the half-precision scale in the middle of those with
    which all weights round to what they are; the level is kept that leaves least."""
    low, high = int(grid.levels[0]), int(grid.levels[-1])
    magnitudes = np.abs(values)
    peak = np.take_along_axis(values, magnitudes.argmax(axis=1)[:, None], axis=1)
    room = _room(values, dtype)
    best = np.full(len(values), np.inf, np.float32)
    d, quants = np.zeros((len(values), 1), np.float16), np.zeros(values.shape, np.int32)
    for level in [low, *(range(high, 0, -1) if high < 32 else (high,))]:
        first = peak / np.float32(level) if level < 0 else np.abs(peak) / np.float32(level)
        q = np.rint(values / first).clip(low, high)
        for _ in range(2 if high > 16 else 0):  # with many levels the largest weight alone is too coarse a measure
            slopes = np.where(values != 0, q / values, 0)
            q = np.rint(values * (np.square(slopes).sum(axis=1) / slopes.sum(axis=1))[:, None]).clip(low, high)
        inside = np.abs(q) > 0
        least = np.where(inside, (magnitudes - room) / np.abs(q), 0).max(axis=1, keepdims=True)
        most = np.where(inside, (magnitudes + room) / np.abs(q), np.inf).min(axis=1, keepdims=True)
        middle = np.sign(first) * (least + most) / 2
        for by in (0, -1, 1):
            scale = _neighbour(middle, by)
            excess = _excess(values, scale.astype(np.float32) * q, dtype)
            better = excess < best
            best[better], d[better], quants[better] = excess[better], scale[better], q[better].astype(np.int32)
    return single_scale(d, (quants - low).astype(np.uint8))


@np.errstate(all="ignore")
def _affine(values: NDArray[np.float32], grid: Grid, dtype: str) -> Parts:
    """Quants from 0 on times a scale, and an offset: from the smallest weight to the largest as many steps as come closest to them all; of
    the line through them and its half-precision neighbours the one is kept that leaves least."""
    low, span = values.min(axis=1, keepdims=True), np.ptp(values, axis=1)[:, None]
    nearest = np.full(len(values), np.inf, np.float32)
    quants = np.zeros(values.shape, np.float32)
    for steps in range(1, len(grid.levels)):  # twice as many fit as well, but leave no room for the first level
        at = (values - low) / (span / np.float32(steps))
        q = np.rint(at)
        miss = np.abs(at - q).max(axis=1)
        better = (miss < 0.7 * nearest) & (nearest > 1e-3)
        nearest[better], quants[better] = miss[better], q[better]
    scale, offset = _line(values, quants, span)
    best = np.full(len(values), np.inf, np.float32)
    d, m = (np.zeros((len(values), 1), np.float16) for _ in range(2))
    raised = np.zeros((len(values), 1), np.float32)
    for up in range(len(grid.levels)):  # the smallest weight need not have the first level
        left = np.flatnonzero((best > 0) & (quants.max(axis=1) + up < len(grid.levels)))
        if not len(left):
            break
        product_quants, offsets = quants[left] + np.float32(up), offset[left] - up * scale[left]
        for by, to in _AROUND[dtype]:
            one, other = _neighbour(scale[left], by), _neighbour(offsets, to)
            decoded = one.astype(np.float32) * product_quants + other.astype(np.float32)
            excess = _excess(values[left], decoded.astype(np.float32, copy=False), dtype)
            better = excess < best[left]
            at = left[better]
            best[at], d[at], m[at], raised[at] = excess[better], one[better], other[better], np.float32(up)
    return single_offset(d, m, (quants + raised).astype(np.uint8))


def _line(values: np.ndarray, quants: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset, (n_blocks, 1), of least squares, where a weight counts by how exactly it is stored."""
    w = 1 / np.square(np.abs(values) + span / 64, dtype=np.float64)
    sum_w, sum_q, sum_qq = w.sum(axis=1), (w * quants).sum(axis=1), (w * quants * quants).sum(axis=1)
    sum_v, sum_qv = (w * values).sum(axis=1), (w * quants * values).sum(axis=1)
    scale = (sum_w * sum_qv - sum_q * sum_v) / (sum_w * sum_qq - sum_q * sum_q)
    return scale[:, None], ((sum_v - scale * sum_q) / sum_w)[:, None]


def _neighbour(values: np.ndarray, by: int) -> NDArray[np.float16]:
    """Half-precision numbers `by` steps larger in magnitude than the nearest; 0 for what is none."""
    bits = np.where(np.isfinite(values), values, 0).astype(np.float16).view(np.uint16)
    magnitude = (bits & 0x7FFF).astype(np.int32) + by
    return (magnitude.clip(0, _LARGEST_HALF).astype(np.uint16) | (bits & 0x8000)).view(np.float16)
