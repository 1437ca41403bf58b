"""Two GGUF files side by side: keys and tokens that differ, and how far the tensors are from each other, and each from a base."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ggpy.blocks import BLOCKS
from ggpy.converter.imatrix import read_imatrix
from ggpy.converter.progress import Meter, OnProgress
from ggpy.converter.requantize import GGUFSource
from ggpy.converter.source import SourceTensor
from ggpy.errors import GGPyError, printable
from ggpy.gguf import open_gguf
from ggpy.gguf.summary import total
from ggpy.xray.examine import OUTLIER_FACTOR, Opened, TensorPlan, examine, plan_tensor
from ggpy.xray.keys import KeyDifference, key_differences
from ggpy.xray.record import ErrorFigures, TensorXray, decibels, jsonable

_PIECE_VALUES = 1 << 20


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that differs. a, b: its type and shape, None where the file lacks it. bits: of a weight, in either; n_values: weights.

    error: of B's weights against A's; None where they cannot be compared. base_errors: of A's and of B's against the base, where there is
    one that has the tensor.
    """

    name: str
    a: str | None
    b: str | None
    bits: tuple[float, float] = (0.0, 0.0)
    n_values: int = 0
    error: ErrorFigures | None = None
    base_errors: tuple[ErrorFigures, ErrorFigures] | None = None

    @property
    def gain(self) -> float | None:
        """By how many dB B is nearer to the base than A; negative where it is farther, None where that is not known."""
        if self.base_errors is None:
            return None
        a, b = (error.output_error if error.output_error is not None else error.relative_rmse for error in self.base_errors)
        return 0.0 if a == b else decibels(b) - decibels(a)

    @property
    def moved(self) -> float:
        """By how much B's loss against the base is less than A's; without a base, the loss of B against A."""
        if self.base_errors is not None:
            a, b = (error.loss for error in self.base_errors)
            return 0.0 if a is None or b is None else a - b
        return (self.error.loss or 0.0) if self.error else 0.0


@dataclass(frozen=True)
class Differences:
    """bits_per_weight: of either file. n_equal: tensors that have the same type and bytes. base_errors: of all tensors of either file that
    the base has, together: relative RMSE, with an importance matrix of the outputs."""

    a: Path
    b: Path
    bits_per_weight: tuple[float, float]
    keys: list[KeyDifference] = field(default_factory=list)
    tensors: list[TensorDifference] = field(default_factory=list)
    n_equal: int = 0
    base: Path | None = None
    imatrix: Path | None = None
    base_errors: tuple[float, float] | None = None

    def __bool__(self) -> bool:
        return bool(self.keys or self.tensors)

    @property
    def ranked(self) -> list[TensorDifference]:
        """The tensors that cannot be compared, then those that are farthest apart, by loss or by what was gained or lost."""
        size = lambda t: abs(t.moved) if math.isfinite(t.moved) else math.inf  # noqa: E731
        return sorted(self.tensors, key=lambda t: (t.error is not None, -size(t)))

    def to_json(self) -> dict[str, Any]:
        """As JSON values; a number that is none becomes a string."""
        return jsonable(
            {
                "a": str(self.a),
                "b": str(self.b),
                "base": str(self.base) if self.base else None,
                "imatrix": str(self.imatrix) if self.imatrix else None,
                "equal": not self,
                "bits_per_weight": list(self.bits_per_weight),
                "base_errors": self.base_errors,
                "keys": [asdict(key) for key in self.keys],
                "tensors": [_tensor_json(tensor) for tensor in self.tensors],
                "n_equal": self.n_equal,
            }
        )


def diff(
    a: Path,
    b: Path,
    base: Path | None = None,
    imatrix: Path | None = None,
    *,
    threads: int = 1,
    on_progress: OnProgress | None = None,
) -> Differences:
    """Compare two files, with `base` each with what both were made from, errors weighted by an importance matrix where it is given.

    Raises GGUFError for a file that is not legal, GGPyError for a base that is another model.
    """
    matrix = read_imatrix(imatrix) if imatrix is not None else None
    first, second = GGUFSource(a), None
    try:
        second = GGUFSource(b)
        with open_gguf(a) as file_a, open_gguf(b) as file_b:
            bits = tuple(total(file.tensors.values()).bits_per_weight for file in (file_a, file_b))
            keys = key_differences(file_a.metadata, file_b.metadata)
        with Opened(base) as source:
            ours, theirs, common = (_by_name(tensors) for tensors in (first.tensors, second.tensors, source.tensors))
            if base is not None and not common.keys() & (ours.keys() | theirs.keys()):
                raise GGPyError(f"{printable(base)}: has none of the tensors of {printable(a)} and {printable(b)}: another model?")
            equal = {name for name in ours.keys() & theirs.keys() if _equal(ours[name], theirs[name])}
            against = _Against(matrix, threads, on_progress)
            against.add("b", theirs, {name: tensor for name, tensor in ours.items() if name not in equal})
            against.add("base a", ours, common)
            against.add("base b", {name: tensor for name, tensor in theirs.items() if name not in equal}, common)
            found = against.examine()
        tensors = [_difference(name, ours, theirs, found) for name in dict.fromkeys([*ours, *theirs]) if name not in equal]
        base_errors = _in_all(found, equal) if base is not None else None
        return Differences(a, b, (bits[0], bits[1]), keys, tensors, len(equal), base, imatrix, base_errors)
    finally:
        first.close()
        if second is not None:
            second.close()


class _Against:
    """What is to be held against what, gone through at once: `add` plans, `examine` gives TensorXrays by (which, tensor name)."""

    def __init__(self, matrix: Any, threads: int, on_progress: OnProgress | None):
        self._matrix, self._threads, self._on_progress = matrix, threads, on_progress
        self._plans: dict[tuple[str, str], TensorPlan] = {}

    def add(self, which: str, tensors: Mapping[str, SourceTensor], base: Mapping[str, SourceTensor]) -> None:
        for name, tensor in tensors.items():
            plan = plan_tensor(tensor, base, self._matrix)
            if plan.base is not None:
                self._plans[which, name] = plan

    def examine(self) -> dict[tuple[str, str], TensorXray]:
        plans = list(self._plans.values())
        meter = Meter("examine", sum(plan.tensor.n_values for plan in plans), self._on_progress)
        return dict(zip(self._plans, examine(plans, self._threads, OUTLIER_FACTOR, meter), strict=True))


def _difference(
    name: str, ours: Mapping[str, SourceTensor], theirs: Mapping[str, SourceTensor], found: Mapping[tuple[str, str], TensorXray]
) -> TensorDifference:
    a, b = ours.get(name), theirs.get(name)
    left, right = (None if t is None else f"{t.dtype} {' × '.join(map(str, t.shape))}" for t in (a, b))
    bits = tuple(0.0 if t is None or not t.n_values else 8 * t.rows * BLOCKS[t.dtype].row_bytes(t.columns) / t.n_values for t in (a, b))
    direct, from_a, from_b = (found.get((which, name)) for which in ("b", "base a", "base b"))
    both = (from_a.error, from_b.error) if from_a and from_b and from_a.error and from_b.error else None
    one = a or b
    n_values = one.n_values if one else 0
    return TensorDifference(name, left, right, (bits[0], bits[1]), n_values, direct.error if direct else None, both)


def _in_all(found: Mapping[tuple[str, str], TensorXray], equal: Set[str]) -> tuple[float, float]:
    """The errors of both files, in all tensors that both and the base have; A's stand for both where they are equal."""
    sums = np.zeros((2, 2))  # of A, of B: errors, squares
    for (which, name), in_a in found.items():
        in_b = in_a if name in equal else found.get(("base b", name))
        if which != "base a" or in_b is None:
            continue
        errors = [tensor.error for tensor in (in_a, in_b)]
        pairs = [(error.loss, error.signal) for error in errors if error is not None and error.loss is not None]
        if len(pairs) == 2 and np.isfinite(pairs).all():
            sums += np.array(pairs)
    a, b = (math.sqrt(errors / squares) if squares else 0.0 for errors, squares in sums.tolist())
    return a, b


def _by_name(tensors: list[SourceTensor]) -> dict[str, SourceTensor]:
    return {tensor.name: tensor for tensor in tensors}


def _equal(a: SourceTensor, b: SourceTensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    assert a.raw is not None and b.raw is not None
    step = max(1, _PIECE_VALUES // max(1, a.columns))
    pieces = ((start, min(start + step, a.rows)) for start in range(0, a.rows, step))
    return all(np.array_equal(a.raw(start, stop), b.raw(start, stop)) for start, stop in pieces)


def _tensor_json(tensor: TensorDifference) -> dict[str, Any]:
    def figures(error: ErrorFigures | None) -> dict[str, Any] | None:
        if error is None:
            return None
        kept = ("relative_rmse", "output_error", "cosine", "max_error", "max_at", "loss", "p50", "p90", "p99")
        return {key: getattr(error, key) for key in kept} | {"snr": error.snr}

    values = {"name": tensor.name, "a": tensor.a, "b": tensor.b, "bits_per_weight": list(tensor.bits), "n_values": tensor.n_values}
    values |= (
        {"relative_rmse": tensor.error.relative_rmse, "max_error": tensor.error.max_error}
        if tensor.error
        else {
            "relative_rmse": None,
            "max_error": None,
        }
    )
    return values | {
        "error": figures(tensor.error),
        "base_errors": [figures(error) for error in tensor.base_errors] if tensor.base_errors else None,
        "gain": tensor.gain,
    }
