"""Which block formats a tensor may be given, and what they do to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BLOCKS, dequantize
from ggpy.converter.source import SourceTensor
from ggpy.runtime.encode import encode_rows

QUANTIZED = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_0", "IQ4_NL", "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0")
"""Formats that both ggpy and llama.cpp write without an importance matrix and run fast, the smallest first; of no use are those of tensors
that were trained for them (ternary ones, MXFP4)."""

PROBES = ("Q4_K", "Q4_0")
"""What a tensor is changed to in order to see what that does: the first that its rows allow."""

_SAMPLED_VALUES = 1 << 17


def candidates(tensor: SourceTensor) -> tuple[str, ...]:
    """Block formats that the tensor's rows allow, the smallest first: quantized ones, 16 bits, and the one that the source has itself."""
    half = "BF16" if tensor.dtype == "BF16" else "F16"
    own = (tensor.dtype,) if tensor.raw is not None and tensor.dtype in BLOCKS and tensor.dtype != "F32" else ()
    fitting = [name for name in dict.fromkeys((*QUANTIZED, half, *own)) if tensor.columns % BLOCKS[name].block_values == 0]
    return tuple(sorted(fitting, key=lambda name: BLOCKS[name].row_bytes(tensor.columns)))


def probe_format(tensor: SourceTensor) -> str:
    """The format a tensor is changed to in order to see how much that matters."""
    return next((name for name in PROBES if tensor.columns % BLOCKS[name].block_values == 0), "BF16")


def importance_of(name: str, importance: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32] | None:
    """float32 (columns,), of a stack of matrices the mean of theirs; None where nothing is known of the tensor."""
    known = importance.get(name)
    return known if known is None or known.ndim == 1 else known.mean(axis=0, dtype=np.float32)


def rounded(values: NDArray[np.float16], format: str, importance: NDArray[np.float32] | None, threads: int) -> NDArray[np.float32]:
    """Values after they went through a block format: float32, of the same shape (rows, columns)."""
    block_format = BLOCKS[format]
    if format == "F16":
        return values.astype(np.float32)
    return dequantize(encode_rows(values, block_format, threads, importance=importance), block_format).reshape(values.shape)


def output_errors(
    values: NDArray[np.float16],
    inputs: NDArray[np.float32] | None,
    formats: Sequence[str],
    importance: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> dict[str, float]:
    """By format, ‖X ΔWᵀ‖² / ‖X Wᵀ‖², ΔW being what the format does to a sample of the rows of W, (rows, columns), and X the inputs, (n,
    columns); without inputs ‖ΔW‖² / ‖W‖²."""
    rows, columns = values.shape
    count = max(1, min(rows, _SAMPLED_VALUES // columns))
    sample = np.ascontiguousarray(values[np.arange(count) * rows // count])
    whole = _energy(sample.astype(np.float32), inputs)
    if not whole:
        return dict.fromkeys(formats, 0.0)
    return {f: _energy(rounded(sample, f, importance, threads) - sample, inputs) / whole for f in formats}


def _energy(values: NDArray[np.float32], inputs: NDArray[np.float32] | None) -> float:
    outputs = values if inputs is None else inputs @ values.T
    return float(np.einsum("ij,ij->", outputs, outputs, dtype=np.float64))
