"""A model's tensors as the runtime sees them: addresses into the mapped file, checked against what the architecture expects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.errors import ModelError, printable
from ggpy.gguf import GGUFFile, Tensor
from ggpy.runtime.compiled import has_kernel

T = TypeVar("T")

OnDecode = Callable[[str, str, int], None]
"""Called for a tensor whose format has no kernel: (name, format, bytes its float32 copy takes)."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A matrix, a vector as one row, or several matrices one below the other. `data`: uint8 (rows, row bytes), where mmap put it unless
    the format had to be decoded."""

    name: str
    format: BlockFormat
    rows: int
    cols: int
    data: np.ndarray
    bias: np.ndarray | None = None  # (rows,) float32

    @property
    def address(self) -> int:
        return self.data.ctypes.data

    @property
    def row_bytes(self) -> int:
        return self.format.row_bytes(self.cols)

    def split(self, *rows: int) -> tuple[Weight, ...]:
        """Views of the first `rows[0]` rows, the next `rows[1]` and so on, of all there are: matrices stored as one."""
        assert sum(rows) == self.rows and self.bias is None
        return tuple(
            replace(self, name=f"{self.name}[{end - n}:{end}]", rows=n, data=self.data[end - n : end])
            for n, end in zip(rows, accumulate(rows), strict=True)
        )


def load_weights(file: GGUFFile, shapes: Mapping[str, tuple[int, ...]], on_decode: OnDecode | None = None) -> SimpleNamespace:
    """The tensors named by `shapes` as a tree: `blk.3.attn_q.weight` is found at `.layers[3].attn_q`, a bias at `.bias` of its matrix.

    shapes: name -> shape, rows first; a name ending in `?` may be absent. Vectors (norms, biases, factors) become float32.
    ModelError: tensors missing (the first five and their count), or of another shape than expected.
    """
    missing = [name for name in shapes if not name.endswith("?") and name not in file.tensors]
    if missing:
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ModelError(f"{file.path}: tensors missing: {listed}")
    root = SimpleNamespace(layers=[])
    for key, shape in shapes.items():
        name = key.removesuffix("?")
        tensor = file.tensors.get(name)
        if tensor is None or name.endswith(".bias"):
            continue
        _check(file, tensor, shape)
        bias = file.tensors.get(name.removesuffix("weight") + "bias")
        bias_shape = shapes.get(name.removesuffix("weight") + "bias?")
        if bias is not None and bias_shape is not None:
            _check(file, bias, bias_shape)
        home, leaf = _place(root, name)
        values = bias.dequantize() if bias is not None and bias_shape is not None else None
        setattr(home, leaf, _weight(tensor, values, on_decode))
    return root


def _check(file: GGUFFile, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape and not (len(shape) == 1 and tensor.shape == (1, *shape)):  # files have vectors as matrices of one row, too
        raise ModelError(f"{file.path}: tensor {printable(tensor.name)} has shape {tensor.shape}, expected {shape}")
    if tensor.format.decode is None:
        raise ModelError(f"{file.path}: tensor {printable(tensor.name)} is {tensor.format.name}, which ggpy cannot decode yet")


def lazy_weights(
    tensors: Mapping[str, T],
    shapes: Mapping[str, tuple[int, ...]],
    size: Callable[[T], tuple[int, int]],
    weight: Callable[[T, T | None], Any],
) -> SimpleNamespace:
    """The tree of `load_weights`, of tensors that are read when needed.

    size(tensor): its rows and columns. weight(tensor, bias): what stands in the tree; bias: the tensor that is its bias, if it has one.
    ModelError: a tensor is missing or of another size than expected.
    """
    root = SimpleNamespace(layers=[])
    for key, shape in shapes.items():
        name = key.removesuffix("?")
        tensor = tensors.get(name)
        if name.endswith(".bias") or (tensor is None and key != name):
            continue
        if tensor is None or size(tensor) != (math.prod(shape[:-1]), shape[-1]):
            found = "missing" if tensor is None else "{} × {}".format(*size(tensor))
            raise ModelError(f"tensor {printable(name)} is {found}, expected {' × '.join(map(str, shape))}")
        bias = name.removesuffix("weight") + "bias"
        home, leaf = _place(root, name)
        setattr(home, leaf, weight(tensor, tensors.get(bias) if bias + "?" in shapes else None))
    return root


def _place(root: SimpleNamespace, name: str) -> tuple[SimpleNamespace, str]:
    """Where a tensor such as blk.3.attn_q belongs under `root`: its layer, made where it is not there yet, or `root`; and its last name."""
    parts = name.split(".")
    if parts[0] != "blk":
        return root, parts[0]
    while len(root.layers) <= int(parts[1]):
        root.layers.append(SimpleNamespace())
    return root.layers[int(parts[1])], parts[2]


def _weight(tensor: Tensor, bias: np.ndarray | None, on_decode: OnDecode | None) -> Weight:
    rows, cols = math.prod(tensor.shape[:-1]), tensor.shape[-1]
    if len(tensor.shape) == 1:
        return Weight(tensor.name, BLOCKS["F32"], 1, cols, _bytes(tensor.dequantize().reshape(1, cols)))
    if not has_kernel(tensor.format.name.lower()):
        if on_decode:
            on_decode(tensor.name, tensor.format.name, rows * cols * 4)
        return Weight(tensor.name, BLOCKS["F32"], rows, cols, _bytes(tensor.dequantize().reshape(rows, cols)), bias)
    return Weight(tensor.name, tensor.format, rows, cols, tensor.data, bias)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint8)
