"""What an examination found, tensor by tensor and in all."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ggpy.xray.bins import ERRORS, SCALES
from ggpy.xray.channels import Channels
from ggpy.xray.quants import Quants
from ggpy.xray.sums import WorstBlock

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")


@dataclass(frozen=True)
class ErrorFigures:
    """How far a tensor is from the base's.

    equal: without any error. relative_rmse: sqrt(Σ e² / Σ x²), x the base's weights, e what the file's differ by; output_error: the same
    with every column weighted by its importance, None without. cosine: of the angle between both. max_error: the largest |e|, at max_at
    (row, column). loss: Σ e², with an importance matrix that of an average token's outputs, Σ e² E[x²]; None where the rest of the model
    has an importance and this has not. signal: Σ x², weighted alike. p50, p90, p99: of the relative errors of blocks, to 2 %. blocks:
    counts of blocks by relative error, as `ggpy.xray.bins.ERRORS` has it. exact: blocks without error; lost: blocks of zeros that are none
    in the base. share: the loss's part of all tensors' loss.
    """

    equal: bool
    relative_rmse: float
    cosine: float
    max_error: float
    max_at: tuple[int, int]
    loss: float | None
    signal: float
    p50: float
    p90: float
    p99: float
    blocks: tuple[int, ...]
    exact: int
    lost: int
    worst: tuple[WorstBlock, ...]
    output_error: float | None = None
    share: float | None = None

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio in dB; infinite without error."""
        return decibels(self.relative_rmse)


@dataclass(frozen=True)
class TensorXray:
    """One tensor.

    format: its block format. block_values: weights of what counts as a block, 32 of floats where rows allow it. rms, peak: root mean square
    and largest magnitude of the base's weights, or of its own without a base. zero_blocks: blocks of nothing but 0. nonfinite: weights that
    are NaN or infinite; bad: the first of them, (row, column). base: how the base stores it, None where there is none to compare with;
    why: then in a few words why not, where a base was given. quants: what its blocks show; None for floats. columns, rows: of matrices.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    n_bytes: int
    block_values: int
    rms: float
    peak: float
    zero_blocks: int
    nonfinite: int
    bad: tuple[int, int] | None
    base: str | None = None
    why: str | None = None
    error: ErrorFigures | None = None
    quants: Quants | None = None
    columns: Channels | None = None
    rows: Channels | None = None

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.n_bytes / self.n_values if self.n_values else 0.0

    @property
    def layer(self) -> int | None:
        """The block it belongs to, by its name."""
        found = _LAYER.fullmatch(self.name)
        return int(found[1]) if found else None

    @property
    def kind(self) -> str:
        """What it is, the same in every layer: "attn_q", "token_embd"."""
        found = _LAYER.fullmatch(self.name)
        return (found[2] if found else self.name).removesuffix(".weight")


@dataclass(frozen=True)
class Xray:
    """A file examined. path, base, imatrix: where they are. factor: how many times the median makes an outlier. missing: tensors that only
    the base has."""

    path: Path
    architecture: str
    name: str
    tensors: tuple[TensorXray, ...]
    factor: float
    base: Path | None = None
    imatrix: Path | None = None
    missing: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def n_values(self) -> int:
        return sum(tensor.n_values for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        return 8 * sum(tensor.n_bytes for tensor in self.tensors) / self.n_values if self.n_values else 0.0

    @property
    def compared(self) -> list[TensorXray]:
        """The tensors that were compared with the base's, in the file's order."""
        return [tensor for tensor in self.tensors if tensor.error is not None]

    @property
    def relative_rmse(self) -> float | None:
        """Of all compared tensors together: sqrt(Σ e² / Σ x²)."""
        return pooled(self.compared)

    @property
    def by_loss(self) -> list[TensorXray]:
        """The tensors that were compared: from the largest share of the loss to the smallest, then those without one."""

        def rank(tensor: TensorXray) -> tuple[bool, float, float]:
            assert tensor.error
            return tensor.error.share is None, -(tensor.error.share or 0.0), -_ranked(tensor.error.relative_rmse)

        return sorted(self.compared, key=rank)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; a number that is none becomes a string."""
        return jsonable(
            {
                "file": str(self.path),
                "base": str(self.base) if self.base else None,
                "imatrix": str(self.imatrix) if self.imatrix else None,
                "architecture": self.architecture,
                "n_values": self.n_values,
                "bits_per_weight": self.bits_per_weight,
                "relative_rmse": self.relative_rmse,
                "outlier_factor": self.factor,
                "missing": list(self.missing),
                "seconds": self.seconds,
                "tensors": [_tensor_json(tensor) for tensor in self.tensors],
            }
        )


def decibels(relative: float) -> float:
    """The signal-to-noise ratio that a relative RMS error stands for, in dB."""
    return math.inf if relative == 0 else -20 * math.log10(relative) if relative > 0 else math.nan


def pooled(tensors: Iterable[TensorXray]) -> float | None:
    """sqrt(Σ e² / Σ x²) over tensors with errors; None where there is none. Those that are not finite do not count."""
    errors = squares = 0.0
    counted = False
    for tensor in tensors:
        figures = tensor.error
        if figures is None or not math.isfinite(figures.relative_rmse):
            continue
        counted = True
        size = tensor.n_values * tensor.rms**2
        errors, squares = errors + size * figures.relative_rmse**2, squares + size
    return math.sqrt(errors / squares) if squares else (0.0 if counted else None)


def _ranked(value: float) -> float:
    return value if value == value else math.inf


def _tensor_json(tensor: TensorXray) -> dict[str, Any]:
    """Without profiles; of histograms pairs of where a bin begins and its count, without those that are empty."""
    values = asdict(tensor) | {"kind": tensor.kind, "layer": tensor.layer, "bits_per_weight": tensor.bits_per_weight}
    if tensor.error:
        values["error"] |= {"snr": tensor.error.snr, "blocks": ERRORS.pairs(tensor.error.blocks)}
    if tensor.quants:
        values["quants"]["scales"] = SCALES.pairs(tensor.quants.scales)
    for side in ("columns", "rows"):
        if values[side]:
            values[side] = {key: value for key, value in values[side].items() if key not in ("step", "magnitude", "error", "input")}
    return values


def jsonable(value: Any) -> Any:
    """As JSON has it: lists for tuples, strings for numbers that are none."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
