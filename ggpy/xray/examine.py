"""A GGUF file examined tensor by tensor, against the base it was made from where that is at hand; memory does not grow with the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ggpy.blocks import BLOCKS, BlockFormat, dequantize
from ggpy.converter.imatrix import ImportanceMatrix, read_imatrix
from ggpy.converter.pipeline import open_source
from ggpy.converter.progress import Meter, OnProgress
from ggpy.converter.requantize import GGUFSource
from ggpy.converter.source import RowReader, SourceTensor
from ggpy.converter.stream import Workers
from ggpy.converter.tensor_types import EMBEDDINGS
from ggpy.errors import GGPyError, printable
from ggpy.runtime.encode import widened
from ggpy.xray.bins import ERRORS
from ggpy.xray.channels import channels
from ggpy.xray.quants import QuantSums, describe, take_apart
from ggpy.xray.record import ErrorFigures, TensorXray, Xray
from ggpy.xray.sums import FLOAT_BLOCK, Piece, Total, look

OUTLIER_FACTOR = 6.0
_PIECE_VALUES = 1 << 18  # what is looked at at once stays in the second-level cache


def xray(
    path: Path,
    base: Path | None = None,
    imatrix: Path | None = None,
    *,
    threads: int = 1,
    factor: float = OUTLIER_FACTOR,
    on_progress: OnProgress | None = None,
) -> Xray:
    """Examine the GGUF file at `path`.

    base: what it was made from, a checkpoint directory or a GGUF file. imatrix: an importance matrix, by which errors are weighted: what
    they do to a tensor's outputs. factor: channels of so many times the median are outliers.
    Raises GGPyError for a base that is another model, and what reading the files raises.
    """
    began = time.perf_counter()
    matrix = read_imatrix(imatrix) if imatrix is not None else None
    file = GGUFSource(path)
    try:
        with Opened(base) as source:
            theirs = {tensor.name: tensor for tensor in source.tensors}
            if base is not None and not any(tensor.name in theirs for tensor in file.tensors):
                raise GGPyError(f"{printable(base)}: has none of the tensors of {printable(path)}: another model?")
            meter = Meter("examine", sum(tensor.n_values for tensor in file.tensors), on_progress)
            plans = [plan_tensor(tensor, theirs if base is not None else None, matrix) for tensor in file.tensors]
            tensors = examine(plans, threads, factor, meter)
            names = {tensor.name for tensor in file.tensors}
            missing = tuple(name for name in theirs if name not in names)
            name = file.metadata.get("general.name")
            shown = name if isinstance(name, str) else ""
            seconds = time.perf_counter() - began
            return Xray(path, file.architecture, shown, _with_shares(tensors), factor, base, imatrix, missing, seconds)
    finally:
        file.close()


class Opened:
    """The tensors of a base, or none where there is none; a context manager."""

    def __init__(self, base: Path | None):
        self._source = open_source(base) if base is not None else None
        self.tensors: list[SourceTensor] = self._source.tensors if self._source else []

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._source:
            self._source.close()


def examine(plans: list[TensorPlan], threads: int, factor: float, on_values: Callable[[str, int], None]) -> list[TensorXray]:
    """What the plans' tensors show, in their order; on_values(name, n) is called after n more weights of a tensor."""
    workers = Workers(threads)
    try:
        pieces = workers.in_order(look_at for plan in plans for look_at in plan.tasks())
        found = []
        for plan in plans:
            gathered = Gathered(plan)
            for _ in plan.pieces():
                looked = next(pieces)
                gathered.add(*looked)
                on_values(plan.tensor.name, looked[0].values)
            found.append(gathered.result(factor))
        return found
    finally:
        workers.close()


@dataclass(frozen=True)
class TensorPlan:
    """A tensor and what it is held against. why: where a base was given and is not used, in a few words why. importance: (columns,), or
    (matrices, columns) of a stack. weighted: whether other tensors have an importance."""

    tensor: SourceTensor
    format: BlockFormat
    base: SourceTensor | None
    why: str | None
    importance: np.ndarray | None
    weighted: bool

    @property
    def block(self) -> int:
        """Values of what counts as a block."""
        columns = self.tensor.columns
        small = FLOAT_BLOCK if columns % FLOAT_BLOCK == 0 else max(1, columns)
        return self.format.block_values if self.format.block_values > 1 else small

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(first row, row after the last) of what is looked at at once, all rows of the same matrix of a stack."""
        rows, columns = self.tensor.rows, self.tensor.columns
        if not rows or not columns or self.format.decode is None:
            return
        step = max(1, _PIECE_VALUES // columns)
        matrix = rows // (len(self.importance) if self.importance is not None and self.importance.ndim > 1 else 1)
        for first in range(0, rows, matrix):
            yield from ((start, min(start + step, first + matrix)) for start in range(first, first + matrix, step))

    def tasks(self) -> Iterator[Callable[[], tuple[Piece, QuantSums | None]]]:
        """What examines each of the pieces, in order."""
        read_base = self.base.open() if self.base is not None else None
        return (partial(self._look, read_base, start, stop) for start, stop in self.pieces())

    def _look(self, read_base: RowReader | None, start: int, stop: int) -> tuple[Piece, QuantSums | None]:
        assert self.tensor.raw is not None
        raw, sums, ends = self.tensor.raw(start, stop), None, None
        if self.format.block_values > 1:
            values, sums, ends = take_apart(raw, self.format)
        else:
            values = dequantize(raw, self.format)
        base = None
        if read_base is not None:
            base = np.ascontiguousarray(widened(read_base(start, stop)))
            if ends is not None and sums is not None:
                with np.errstate(all="ignore"):
                    sums.clipped = ends.clipped(values - base)
        importance = self.importance
        if importance is not None and importance.ndim > 1:
            importance = importance[start // (self.tensor.rows // len(importance))]
        return look(start, values, base, importance, self.block), sums


def plan_tensor(tensor: SourceTensor, base: Mapping[str, SourceTensor] | None, matrix: ImportanceMatrix | None) -> TensorPlan:
    """What of `base`, tensors by name, it is held against, None for no base, and what is known of its inputs."""
    format, why, twin = BLOCKS[tensor.dtype], None, None
    if format.decode is None:
        why = f"{format.name} cannot be decoded"
    elif base is not None:
        twin = base.get(tensor.name)
        if twin is None:
            why = "not in the base"
        elif twin.shape != tensor.shape:
            twin, why = None, f"{' × '.join(map(str, twin.shape))} in the base"
        elif twin.dtype in BLOCKS and BLOCKS[twin.dtype].decode is None:
            twin, why = None, f"{twin.dtype} in the base, which cannot be decoded"
    importance = None
    if matrix is not None and len(tensor.shape) > 1:
        entry = matrix.entries.get(tensor.name)
        if entry is not None and (tensor.name not in EMBEDDINGS or entry.sums.size == tensor.columns):
            importance = matrix.of(tensor.name, tensor.shape)
    return TensorPlan(tensor, format, twin, why, importance, matrix is not None)


class Gathered:
    """What was found of a tensor so far."""

    def __init__(self, plan: TensorPlan):
        self._plan = plan
        tensor = plan.tensor
        self._total = Total(tensor.rows, tensor.columns, plan.base is not None)
        self._quants: QuantSums | None = None

    def add(self, piece: Piece, sums: QuantSums | None) -> None:
        self._total.add(piece)
        if sums is not None and self._quants is not None:
            self._quants.add(sums)
        else:
            self._quants = sums

    @np.errstate(all="ignore")
    def result(self, factor: float) -> TensorXray:
        plan, total, tensor = self._plan, self._total, self._plan.tensor
        found = TensorXray(
            tensor.name,
            plan.format.name,
            tensor.shape,
            tensor.rows * plan.format.row_bytes(tensor.columns),
            plan.block,
            math.sqrt(total.squares / total.values) if total.values else 0.0,
            float(total.column_peaks.max(initial=0.0)),
            total.zeros,
            total.nonfinite,
            total.bad,
            plan.base.dtype if plan.base else None,
            plan.why,
            self._errors() if total.compared and total.values else None,
            describe(self._quants, plan.format, total.compared) if self._quants else None,
        )
        if len(tensor.shape) < 2 or not total.values:
            return found
        inputs = None
        if plan.importance is not None:
            inputs = np.sqrt(plan.importance.reshape(-1, tensor.columns).mean(axis=0, dtype=np.float64))
        sides = []
        for squares, errors, others, input in (
            (total.column_squares, total.column_errors, tensor.rows, inputs),
            (total.row_squares, total.row_errors, tensor.columns, None),
        ):
            compared = total.compared and total.errors > 0
            sides.append(channels(factor, np.sqrt(squares / others), np.sqrt(errors / others) if compared else None, input))
        return replace(found, columns=sides[0], rows=sides[1])

    def _errors(self) -> ErrorFigures:
        total, plan = self._total, self._plan
        squares, errors = total.squares, total.errors
        cosine = (
            (squares + total.decoded - errors) / (2 * math.sqrt(squares) * math.sqrt(total.decoded)) if squares and total.decoded else 1.0
        )
        loss = None if plan.weighted and plan.importance is None and errors > 0 else total.weighted_errors
        output = None if plan.importance is None else _relative(total.weighted_errors, total.weighted_squares)
        p50, p90, p99 = (ERRORS.quantile(total.blocks, share, total.exact) for share in (0.5, 0.9, 0.99))
        return ErrorFigures(
            errors == 0,
            _relative(errors, squares),
            min(1.0, cosine) if errors else 1.0,
            total.max_error,
            total.max_at,
            loss,
            total.weighted_squares,
            p50,
            p90,
            p99,
            tuple(total.blocks.tolist()),
            total.exact,
            total.lost,
            tuple(total.worst),
            output,
        )


def _relative(errors: float, squares: float) -> float:
    return math.sqrt(errors / squares) if squares > 0 else 0.0 if errors == 0 else errors if errors != errors else math.inf


def _with_shares(tensors: list[TensorXray]) -> tuple[TensorXray, ...]:
    """Each tensor's part of all loss that is finite."""
    losses = [t.error.loss if t.error and t.error.loss is not None and math.isfinite(t.error.loss) else None for t in tensors]
    whole = sum(loss for loss in losses if loss is not None)
    return tuple(
        tensor
        if loss is None or tensor.error is None
        else replace(tensor, error=replace(tensor.error, share=loss / whole if whole else 0.0))
        for tensor, loss in zip(tensors, losses, strict=True)
    )
