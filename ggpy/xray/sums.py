"""What is summed up over a tensor while its rows stream past: squares and errors by block, row and column."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggpy.xray.bins import ERRORS

FLOAT_BLOCK = 32  # values that count as a block where the format has none
KEPT = 5  # worst blocks of a tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WorstBlock:
    """A block with a large error. row, block: where it is, from 0. relative: its error as a part of its magnitude, both RMS; loss: what it
    adds to the tensor's; peak: largest magnitude in the base; max_error: largest error."""

    row: int
    block: int
    relative: float
    loss: float
    peak: float
    max_error: float


@dataclass
class Piece:
    """Sums over some rows of a tensor. x: the base's weights, or the file's where there is no base; e: what the file's differ from them.

    column_squares, column_errors: Σ x², Σ e² of every column, float64 (columns,); column_peaks: largest |x|. row_squares, row_errors: of
    every row. decoded: Σ of the file's weights squared. weighted_squares, weighted_errors: Σ x², Σ e², each column weighted by its
    importance. blocks: counts of blocks by relative error, as `ERRORS` has it. zeros: blocks of nothing but 0 in the file; lost: those of
    them that are something in the base. nonfinite: weights that are NaN or infinite. bad: the first of them, (row, column).
    """

    start: int
    values: int
    column_squares: Floats
    column_peaks: NDArray[np.float32]
    row_squares: Floats
    weighted_squares: float
    zeros: int = 0
    nonfinite: int = 0
    bad: tuple[int, int] | None = None
    decoded: float = 0.0
    column_errors: Floats | None = None
    row_errors: Floats | None = None
    weighted_errors: float = 0.0
    max_error: float = 0.0
    max_at: tuple[int, int] = (0, 0)
    blocks: NDArray[np.int64] | None = None
    exact: int = 0
    lost: int = 0
    worst: tuple[WorstBlock, ...] = ()


@np.errstate(all="ignore")
def look(
    start: int, decoded: NDArray[np.float32], base: NDArray[np.float32] | None, importance: NDArray[np.float32] | None, block: int
) -> Piece:
    """Sum up rows of a tensor from row `start` on. decoded, base: (rows, columns); importance: of the columns, (columns,), 1 where None;
    block: values of a block, of which a row has a whole number."""
    rows, columns = decoded.shape
    x = decoded if base is None else base
    blocks = x.reshape(-1, block)
    block_squares = np.einsum("ij,ij->i", blocks, blocks)
    column_squares = np.einsum("ij,ij->j", x, x).astype(np.float64)
    piece = Piece(
        start,
        decoded.size,
        column_squares,
        np.maximum.reduce(np.abs(x), axis=0),
        block_squares.reshape(rows, -1).sum(axis=1, dtype=np.float64),
        _weighted(column_squares, importance),
    )
    own = block_squares if base is None else np.einsum("ij,ij->i", *(decoded.reshape(-1, block),) * 2)
    piece.decoded = float(own.sum(dtype=np.float64))
    empty = own == 0
    piece.zeros = int(np.count_nonzero(empty))
    if not math.isfinite(piece.decoded):
        finite = np.isfinite(decoded)
        piece.nonfinite = decoded.size - int(np.count_nonzero(finite))
        if piece.nonfinite:
            row, column = divmod(int(np.argmin(finite)), columns)
            piece.bad = start + row, column
    if base is not None:
        _compare(piece, decoded - base, block_squares, empty, base, importance, block)
    return piece


def _compare(
    piece: Piece,
    errors: NDArray[np.float32],
    block_squares: np.ndarray,
    empty: np.ndarray,
    base: NDArray[np.float32],
    importance: NDArray[np.float32] | None,
    block: int,
) -> None:
    rows, columns = errors.shape
    blocks = errors.reshape(-1, block)
    block_errors = np.einsum("ij,ij->i", blocks, blocks)
    column_errors = np.einsum("ij,ij->j", errors, errors).astype(np.float64)
    piece.column_errors, piece.weighted_errors = column_errors, _weighted(column_errors, importance)
    piece.row_errors = block_errors.reshape(rows, -1).sum(axis=1, dtype=np.float64)
    magnitudes = np.abs(errors)
    at = int(np.argmax(magnitudes))  # the first NaN, where there is one
    piece.max_error, piece.max_at = float(magnitudes.flat[at]), (piece.start + at // columns, at % columns)
    relative = np.sqrt(block_errors / block_squares)
    piece.exact = int(np.count_nonzero(block_errors == 0))
    piece.lost = int(np.count_nonzero(empty & (block_squares > 0)))
    piece.blocks = ERRORS.counted(relative)
    piece.blocks[-1] += int(np.count_nonzero(np.isposinf(relative)))  # something where the base is 0
    losses = block_errors
    if importance is not None:
        weighted = errors * np.sqrt(importance)
        losses = np.einsum("ij,ij->i", *(weighted.reshape(-1, block),) * 2)
    piece.worst = tuple(_block(piece, int(i), losses, relative, base, errors, block) for i in _largest(losses))


def _largest(losses: np.ndarray) -> np.ndarray:
    """Where the largest are, at most `KEPT`; NaN counts as nothing, it is told elsewhere."""
    losses = np.where(losses > 0, losses, 0)
    found = np.argpartition(losses, -KEPT)[-KEPT:] if len(losses) > KEPT else np.arange(len(losses))
    return found[losses[found] > 0]


def _block(piece: Piece, at: int, losses: np.ndarray, relative: np.ndarray, base: np.ndarray, errors: np.ndarray, block: int) -> WorstBlock:
    row, number = divmod(at, base.shape[1] // block)
    peak, largest = (float(np.abs(values.reshape(-1, block)[at]).max()) for values in (base, errors))
    return WorstBlock(piece.start + row, number, float(relative[at]), float(losses[at]), peak, largest)


def _weighted(column_sums: Floats, importance: NDArray[np.float32] | None) -> float:
    return float(column_sums.sum() if importance is None else column_sums @ importance.astype(np.float64))


class Total:
    """The pieces of a tensor put together, in order: the same result whatever the number of threads."""

    def __init__(self, rows: int, columns: int, compared: bool):
        self.rows, self.columns, self.compared = rows, columns, compared
        self.column_squares, self.column_errors = np.zeros(columns), np.zeros(columns)
        self.column_peaks = np.zeros(columns, np.float32)
        self.row_squares, self.row_errors = np.zeros(rows), np.zeros(rows)
        self.values = self.zeros = self.lost = self.exact = self.nonfinite = 0
        self.decoded = self.weighted_squares = self.weighted_errors = self.max_error = 0.0
        self.max_at = (0, 0)
        self.bad: tuple[int, int] | None = None
        self.blocks = np.zeros(ERRORS.count, np.int64)
        self.worst: list[WorstBlock] = []

    def add(self, piece: Piece) -> None:
        rows = slice(piece.start, piece.start + len(piece.row_squares))
        self.row_squares[rows] = piece.row_squares
        self.column_squares += piece.column_squares
        np.maximum(self.column_peaks, piece.column_peaks, out=self.column_peaks)
        self.values, self.zeros, self.nonfinite = self.values + piece.values, self.zeros + piece.zeros, self.nonfinite + piece.nonfinite
        self.decoded, self.weighted_squares = self.decoded + piece.decoded, self.weighted_squares + piece.weighted_squares
        self.bad = self.bad or piece.bad
        if piece.column_errors is None or piece.row_errors is None or piece.blocks is None:
            return
        self.row_errors[rows] = piece.row_errors
        self.column_errors += piece.column_errors
        self.weighted_errors += piece.weighted_errors
        self.exact, self.lost = self.exact + piece.exact, self.lost + piece.lost
        self.blocks += piece.blocks
        if not (piece.max_error <= self.max_error or math.isnan(self.max_error)):
            self.max_error, self.max_at = piece.max_error, piece.max_at
        self.worst = heapq.nlargest(KEPT, [*self.worst, *piece.worst], key=lambda block: block.loss)

    @property
    def squares(self) -> float:
        """Σ x²."""
        return float(self.column_squares.sum())

    @property
    def errors(self) -> float:
        """Σ e²."""
        return float(self.column_errors.sum())
