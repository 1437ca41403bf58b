"""The numbers of the container: magic, versions, limits, and the table of value types. Layout: formats/gguf/container.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # v1 counted in 32 bits and was dropped by every reader; v2 and little-endian v3 have one layout
HEADER_BYTES = 24  # magic, version, tensor count, key count
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

MAX_KEY_BYTES = 65_535
MAX_TENSOR_NAME_BYTES = 64
WRITTEN_TENSOR_NAME_BYTES = 63  # llama.cpp keeps names in 64 bytes with a closing NUL
MAX_DIMENSIONS = 4
MAX_NESTING = 16
# Everything before the tensor data becomes Python objects, in the worst case many times its size on disk. Real models have fewer than
# 100 keys and 20 000 tensors, and stay under 40 MiB (a vocabulary of 262k tokens with its merges).
MAX_METADATA_BYTES = 128 * 2**20
MAX_ENTRIES = 2**20  # keys; tensors
MAX_ELEMENTS = 2**22  # strings and arrays in all arrays together: each becomes an object, numbers do not


class ValueType(IntEnum):
    """The type of a metadata value, as numbered in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


@dataclass(frozen=True)
class Scalar:
    """A value type of fixed size. `code`: its letter in `struct`; `dtype`: its little-endian NumPy type."""

    code: str
    dtype: np.dtype

    @property
    def n_bytes(self) -> int:
        return self.dtype.itemsize


SCALARS: dict[ValueType, Scalar] = {
    ValueType.UINT8: Scalar("B", np.dtype("u1")),
    ValueType.INT8: Scalar("b", np.dtype("i1")),
    ValueType.UINT16: Scalar("H", np.dtype("<u2")),
    ValueType.INT16: Scalar("h", np.dtype("<i2")),
    ValueType.UINT32: Scalar("I", np.dtype("<u4")),
    ValueType.INT32: Scalar("i", np.dtype("<i4")),
    ValueType.FLOAT32: Scalar("f", np.dtype("<f4")),
    ValueType.BOOL: Scalar("B", np.dtype("u1")),
    ValueType.UINT64: Scalar("Q", np.dtype("<u8")),
    ValueType.INT64: Scalar("q", np.dtype("<i8")),
    ValueType.FLOAT64: Scalar("d", np.dtype("<f8")),
}

# An element of an array takes at least this many bytes: a string its length, an array its type and its length.
SMALLEST_ELEMENT: dict[ValueType, int] = {
    ValueType.STRING: 8,
    ValueType.ARRAY: 12,
    **{kind: scalar.n_bytes for kind, scalar in SCALARS.items()},
}

INTEGER_TYPES = frozenset(
    {
        ValueType.UINT8,
        ValueType.INT8,
        ValueType.UINT16,
        ValueType.INT16,
        ValueType.UINT32,
        ValueType.INT32,
        ValueType.UINT64,
        ValueType.INT64,
    }
)
FLOAT_TYPES = frozenset({ValueType.FLOAT32, ValueType.FLOAT64})
