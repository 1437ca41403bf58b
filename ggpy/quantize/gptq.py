"""GPTQ written into GGUF blocks: quants whose errors cancel in the outputs, on scales that are chosen on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat, dequantize
from ggpy.blocks.affine_grid import Grid, Parts
from ggpy.blocks.block_format import require_finite
from ggpy.errors import GGPyError
from ggpy.kernels.encode.wide import LANES
from ggpy.kernels.quantize.feedback import PANEL, WORDS
from ggpy.quantize.factor import Factor, block_order, factored
from ggpy.runtime.compiled import kernel
from ggpy.runtime.encode import encode_rows
from ggpy.runtime.parallel import run_kernel

DAMPING, SHRINKAGE = 0.01, 0.25
_STEPS = (0.06, 0.03, 0.015)  # of a scale of its own, tried up and down


def quantize(
    weights: NDArray[np.float32],
    gram: np.ndarray,
    block_format: BlockFormat,
    *,
    damping: float = DAMPING,
    shrinkage: float = SHRINKAGE,
    activation_order: bool = True,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Blocks of `weights` W, float32 (rows, cols), whose values V have a small tr((W - V) H (W - V)ᵀ): uint8 (rows, row_bytes).

    gram: H = Σ x xᵀ over the layer's inputs, float32 or float64 (cols, cols); its scale does not matter. In no row is the error larger than
    that of ggml's encoder with the diagonal as importance. Equal for every number of threads.
    damping: what is added to the diagonal, as a share of its mean. shrinkage: by how much what is off the diagonal is made smaller: few
    texts know little of how inputs go together in others. activation_order: columns that matter go first, as far as blocks allow it.
    GGPyError: the format has no grid. ValueError: shapes do not fit; a weight or a sum is NaN or Inf.
    """
    grid = block_format.grid
    if grid is None:
        raise GGPyError(f"GPTQ cannot write {block_format.name} blocks: their values are not multiples of a scale")
    cols = weights.shape[1]
    block_format.row_bytes(cols)
    require_finite(weights, block_format.name)
    _require_gram(gram, cols)
    order = block_order(gram, block_format) if activation_order else np.arange(cols)
    plain = encode_rows(weights, block_format, threads, importance=_importance(gram))
    if not plain.size:
        return plain
    found = with_feedback(weights, factored(gram, order, damping, shrinkage), block_format, threads)
    better = row_errors(weights, found, gram, block_format) <= row_errors(weights, plain, gram, block_format)
    return np.where(better[:, None], found, plain)


def row_errors(weights: NDArray[np.float32], blocks: NDArray[np.uint8], gram: np.ndarray, block_format: BlockFormat) -> NDArray[np.float64]:
    """(w - v) H (w - v)ᵀ for each row w of `weights` and v of `blocks`, float64 (rows,)."""
    with np.errstate(all="ignore"):  # blocks may hold Inf where weights are huge: such a row is never the better one
        errors = weights - dequantize(blocks, block_format)
        return np.einsum("ij,ij->i", errors @ gram.astype(np.float32, copy=False), errors, dtype=np.float64)


def with_feedback(weights: NDArray[np.float32], factor: Factor, block_format: BlockFormat, threads: int) -> NDArray[np.uint8]:
    """Blocks of `weights` by the kernel of `ggpy.kernels.quantize.feedback`, panel by panel; what lies between panels are products."""
    grid = block_format.grid
    assert grid is not None
    (rows, cols), block, sub = weights.shape, block_format.block_values, grid.sub_values
    padded = -(-rows // LANES) * LANES
    w = np.zeros((cols, padded), np.float32)
    w[:, :rows] = weights.T[factor.order]
    errors, quants = np.zeros_like(w), np.zeros(w.shape, np.uint8)
    units = np.zeros((2, cols // block, padded), np.float32)
    multiples = np.zeros((2, cols // sub, padded), np.float32)
    steps, address = trials(grid), kernel("quantize.feedback", block_format.name.lower())
    for start in range(0, cols, PANEL):
        stop = min(start + PANEL, cols)
        targets = w[start:stop] + factor.feedback[start:stop, :start] @ errors[:start]
        corner = np.ascontiguousarray(factor.feedback[start:stop, start:stop])
        panel_units = np.zeros((2, (stop - start) // block, padded), np.float32)
        panel_multiples = np.zeros((2, (stop - start) // sub, padded), np.float32)
        counter = np.zeros(1, np.int64)
        words = {
            "weights": w[start:].ctypes.data, "targets": targets.ctypes.data, "errors": errors[start:].ctypes.data,
            "quants": quants[start:].ctypes.data, "units": panel_units.ctypes.data, "multiples": panel_multiples.ctypes.data,
            "feedback": corner.ctypes.data, "importance": factor.importance[start:].ctypes.data, "trials": steps.ctypes.data,
            "n_trials": len(steps), "counter": counter.ctypes.data, "columns": stop - start, "stride": 4 * padded,
            "groups": padded // LANES,
        }  # fmt: skip
        run_kernel(address, np.array([words[word] for word in WORDS], np.int64), threads)
        units[:, start // block : stop // block] = panel_units
        multiples[:, start // sub : stop // sub] = panel_multiples
    in_file = _in_file_order(factor.order, (quants, units, multiples), (1, block, sub))
    return _joined(grid, block, *(array[..., :rows] for array in in_file)).reshape(rows, -1)


def trials(grid: Grid) -> NDArray[np.float32]:
    """Steps from a sub-block's scale and offset, (n, 3), one after the other from the best so far: a factor and a multiple for the scale,
    and one for the offset; see the kernel."""
    steps: list[tuple[float, float, float]] = [(1, 0, 0)]
    if grid.has_sub_scales:
        for way in (1, -1) * 2:
            steps += [(1, way, 0), (1, 0, way), (1, way, way)] if grid.has_mins else [(1, way, 0)]
    else:
        for step in _STEPS:
            for way in (step, -step):
                steps += [(1 + way, 0, 0), (1, 0, 8 * way), (1 + way, 0, -8 * way)] if grid.has_mins else [(1 + way, 0, 0)]
    return np.array(steps, np.float32)


def _in_file_order(order: np.ndarray, arrays: tuple[np.ndarray, ...], sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Each of `arrays`, (…, columns / size, rows) in the order of computing, in that of the file."""
    found = []
    for array, size in zip(arrays, sizes, strict=True):
        ordered = np.empty_like(array)
        ordered[..., order[::size] // size, :] = array
        found.append(ordered)
    return found


def _joined(grid: Grid, block: int, quants: np.ndarray, units: np.ndarray, multiples: np.ndarray) -> NDArray[np.uint8]:
    """Blocks of what the kernel left behind: float32 (2, blocks or sub-blocks, rows), quants (columns, rows)."""

    def by_block(values: np.ndarray, count: int) -> np.ndarray:
        return np.ascontiguousarray(values.T).reshape(-1, count)

    n_sub, q = block // grid.sub_values, by_block(quants, block)
    if grid.has_sub_scales:
        (d, dmin), (scales, mins) = (by_block(u, 1) for u in units), (by_block(m, n_sub) for m in multiples)
        return grid.join(Parts(d.astype(np.float16), dmin.astype(np.float16), scales.astype(np.int32), mins.astype(np.int32), q))
    scale, offset = (by_block(m, 1) for m in multiples)
    ones = np.ones(scale.shape, np.int32)
    return grid.join(Parts(scale.astype(np.float16), offset.astype(np.float16), ones * grid.scales[0], ones * grid.mins[0], q))


def _importance(gram: np.ndarray) -> NDArray[np.float32]:
    diagonal = np.diagonal(gram).astype(np.float64)
    most = diagonal.max(initial=0.0)
    return np.ascontiguousarray((diagonal / most if most > 0 else np.ones_like(diagonal)).astype(np.float32))


def _require_gram(gram: np.ndarray, cols: int) -> None:
    if gram.shape != (cols, cols):
        raise ValueError(f"the Gram matrix has the shape {gram.shape}; rows of {cols} weights need ({cols}, {cols})")
    diagonal = np.diagonal(gram)
    if not (np.isfinite(gram.sum()) and (diagonal >= 0).all()):
        raise ValueError("the Gram matrix must be finite, and nowhere negative on the diagonal")
