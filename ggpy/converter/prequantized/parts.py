"""The tensors that together stand for one quantized weight: found by name, checked for dtype and shape, taken once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ggpy.converter.safetensors import StoredTensor
from ggpy.errors import CheckpointError, printable
from ggpy.runtime.encode import FLOATS, widened

_INTEGERS = {"I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8"}


class Parts:
    """The tensors of a checkpoint that are not yet part of a weight: `left`, by name."""

    def __init__(self, stored: Mapping[str, StoredTensor]):
        self.left = dict(stored)

    def prefixes(self, suffix: str) -> list[str]:
        """The names that end in `suffix`, without it."""
        return [name.removesuffix(suffix) for name in self.left if name.endswith(suffix)]

    def take(self, name: str, dtypes: str, *dimensions: str) -> StoredTensor:
        """The tensor `name`; raises CheckpointError where it is missing, of none of the `dtypes`, or has other than these dimensions."""
        tensor = self.left.pop(name, None)
        if tensor is None:
            other = next(iter(self.left.values()), None)
            where = f"{other.file.path}: " if other else ""
            raise CheckpointError(f"{where}tensor {printable(name)} is missing, a part of a quantized weight")
        if tensor.dtype not in dtypes.split():
            raise fault(tensor, f"is {tensor.dtype}, expected {' or '.join(dtypes.split())}")
        if dimensions and len(tensor.shape) != len(dimensions):
            raise fault(tensor, f"has shape {list(tensor.shape)}, expected [{', '.join(dimensions)}]")
        return tensor

    def take_if_there(self, name: str, dtypes: str, *dimensions: str) -> StoredTensor | None:
        return self.take(name, dtypes, *dimensions) if name in self.left else None

    def drop(self, *names: str) -> None:
        """Leave out tensors that only matter for activations or caches."""
        for name in names:
            self.left.pop(name, None)


FLOAT_DTYPES = " ".join(FLOATS)


def fault(tensor: StoredTensor, what: str) -> CheckpointError:
    """The error about a tensor: the file, its name, and what is wrong with it."""
    return CheckpointError(f"{tensor.file.path}: tensor {printable(tensor.name)} {what}")


def expect_shape(tensor: StoredTensor, *shape: int) -> None:
    """Raises CheckpointError unless the tensor has this shape."""
    if tensor.shape != shape:
        raise fault(tensor, f"has shape {list(tensor.shape)}, expected {list(shape)} by the tensors beside it")


def numbers(tensor: StoredTensor) -> np.ndarray:
    """A whole tensor of integers as they are, or of floats as float32, in its shape."""
    if tensor.dtype in FLOATS:
        return widened(tensor.read(0, tensor.rows)).reshape(tensor.shape)
    return read_bytes(tensor).view(_INTEGERS[tensor.dtype]).reshape(tensor.shape)


def read_bytes(tensor: StoredTensor, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Bytes [start, stop) of a tensor's data: uint8, writable by nobody else."""
    return tensor.file.read(tensor.offset + start, (tensor.n_bytes if stop is None else stop) - start)
