"""What became of weights that were quantized before, method by method, in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ggpy.runtime.encode import FLOATS

if TYPE_CHECKING:
    from ggpy.converter.report import TensorReport


def repacking_lines(tensors: Sequence[TensorReport]) -> Iterator[str]:
    """A line for each method and what was done: repacked bit for bit, up to a rounding, or decoded and encoded."""
    groups: dict[tuple[str, str | None, bool], list[TensorReport]] = {}
    for tensor in tensors:
        if tensor.method:
            groups.setdefault((tensor.method, tensor.repacked, tensor.requantized), []).append(tensor)
    for (method, repacked, requantized), group in groups.items():
        formats = ", ".join(f"{count} {format}" for format, count in Counter(t.format for t in group).items())
        subject = f"{method}: {len(group)} {'tensor' if len(group) == 1 else 'tensors'}"
        if repacked and group[0].dtype in FLOATS:  # floats, whose values alone show that they were quantized
            largest = max(t.worst_error or 0.0 for t in group)
            loss = f"error {_rmse(group):.4%}, no weight off by more than {largest:.3%} of its block's largest" if largest else "no loss"
            lie, stay = ("tensor lies", "stays") if len(group) == 1 else ("tensors lie", "stay")
            yield f"{len(group)} {lie} {method} and {stay} on it ({formats}): {loss}"
        elif repacked == "exact":
            yield f"{subject} repacked bit for bit ({formats})"
        elif repacked == "rounded":
            worst = max(t.worst_error or 0.0 for t in group)
            yield (
                f"{subject} repacked ({formats}), quants as they are, scales or minimums rounded to half precision: "
                f"error {_rmse(group):.4%}, no weight off by more than {worst:.4%} of its block's largest"
            )
        else:
            verb = "quantized a second time" if requantized else "decoded"
            measured = all(t.relative_rmse is not None for t in group)
            error = f", error {_rmse(group):.4%} on top of the method's own" if measured else ""
            yield f"{subject} {verb} ({formats}){error}"


def _rmse(group: Sequence[TensorReport]) -> float:
    n_values = sum(t.n_values for t in group)
    return math.sqrt(sum(t.n_values * (t.relative_rmse or 0.0) ** 2 for t in group) / n_values) if n_values else 0.0
