"""A row of an importance matrix beside rows of weights: what it must be, and how much an error at each place then matters."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import require_finite
from ggpy.blocks.rounding import running_sum


def require_importance(importance: np.ndarray, cols: int) -> None:
    """ValueError, naming what is wrong, unless `importance` is (cols,), finite and nowhere negative."""
    if importance.shape != (cols,):
        raise ValueError(f"importance has the shape {importance.shape}; rows of {cols} weights need ({cols},)")
    wrong = ~(np.isfinite(importance) & (importance >= 0))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"importance is {float(importance[index])} at index {index}: it must be finite and not negative")


def weighted_blocks(rows: np.ndarray, importance: np.ndarray, name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`rows`, float32 (n_rows, cols), and the importance of each weight in blocks: float32 (n_blocks, n) both.

    ValueError: cols is not a whole number of blocks of `n`; a weight is NaN or infinite; importance is not finite, negative or not (cols,).
    """
    cols = rows.shape[1]
    if cols % n:
        raise ValueError(f"a row of {cols} values is not a whole number of {name} blocks of {n}")
    require_importance(importance, cols)
    require_finite(rows, name)
    spread = np.broadcast_to(importance.astype(np.float32, copy=False), rows.shape)
    return rows.reshape(-1, n), spread.reshape(-1, n)


def in_rows(blocks: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """`blocks` of `rows`, `n` values each, uint8 (n_blocks, block_bytes), as uint8 (n_rows, row_bytes); also of no rows."""
    return blocks.reshape(len(rows), rows.shape[1] // n * blocks.shape[1])


def weights_of(values: np.ndarray, importance: np.ndarray, share: np.float32) -> np.ndarray:
    """importance * sqrt(share * mean(x * x) + x * x), the mean over a row of `values`; all float32 (n, m)."""
    squares = values * values
    mean = (share * running_sum(squares)) / np.float32(values.shape[1])
    return importance * np.sqrt(mean[:, None] + squares)


def row_weights(rows: np.ndarray, importance: np.ndarray, name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """As `weighted_blocks`, with the `weights_of` each value, their mean being over the row, in place of the importance."""
    weighted_blocks(rows, importance, name, n)
    return rows.reshape(-1, n), weights_of(rows, importance.astype(np.float32, copy=False), np.float32(1)).reshape(-1, n)
