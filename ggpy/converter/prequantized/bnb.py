"""bitsandbytes: LLM.int8(), and the 4-bit codebooks NF4 and FP4, whose scales may be quantized again.

int8: weight int8 (rows, columns), SCB float32 (rows,), W = w · SCB / 127.
4-bit: weight holds two values a byte, the first in the high bits, row after row; absmax has a scale for every `blocksize` of them, across
rows. W = quant_map[q] · absmax[i // blocksize]. Double-quantized, absmax[j] = nested_quant_map[a] · nested_absmax[j // nested_blocksize] +
nested_offset. What belongs to the weight is told by a JSON object in bytes, `weight.quant_state.bitsandbytes__nf4`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.files import parse_json
from ggpy.converter.prequantized.grid import Grid, measure_span
from ggpy.converter.prequantized.matrix import GridReader, QuantizedMatrix, off_grid, on_grid
from ggpy.converter.prequantized.parts import FLOAT_DTYPES, Parts, expect_shape, fault, numbers, read_bytes
from ggpy.converter.safetensors import DTYPE_BITS, StoredTensor
from ggpy.converter.source import RowReader
from ggpy.errors import printable

_STATE = ".quant_state.bitsandbytes__"
_MAX_STATE_BYTES = _MAX_BLOCK = 1 << 16


def read_bitsandbytes(parts: Parts, config: HFConfig) -> Iterator[QuantizedMatrix]:
    """The weights that were quantized, by what lies beside them. Raises CheckpointError."""
    for prefix in parts.prefixes(".SCB"):
        yield _int8(parts, prefix)
    for kind in ("nf4", "fp4"):
        for name in parts.prefixes(_STATE + kind):
            yield _four_bit(parts, name, kind)


def _int8(parts: Parts, prefix: str) -> QuantizedMatrix:
    weight = parts.take(prefix + ".weight", "I8", "rows", "columns")
    scb = parts.take(prefix + ".SCB", "F32", "rows")
    expect_shape(scb, weight.shape[0])
    format = parts.take_if_there(prefix + ".weight_format", "U8")
    if format is not None and numbers(format).ravel().tolist() != [0]:
        raise fault(format, f"is {printable(numbers(format).ravel().tolist(), 40)}, expected 0: rows as they are, not a layout of one GPU")
    rows, columns = weight.shape
    if not columns:
        raise fault(weight, f"has shape {list(weight.shape)}, expected columns")
    scales = (numbers(scb)[:, None] / np.float32(127)).astype(np.float32)
    span = measure_span(-128, 127, scales, np.zeros((1, 1), np.int16), columns, columns, True)
    return on_grid(weight.name, (rows, columns), weight.file.path, "bitsandbytes int8", span, partial(_open_int8, weight, scales))


def _open_int8(weight: StoredTensor, scales: NDArray[np.float32]) -> GridReader:
    rows, columns = weight.shape
    zeros = np.zeros((rows, 1), np.int16)

    def read(start: int, stop: int) -> Grid:
        quants = read_bytes(weight, start * columns, stop * columns).view(np.int8).reshape(stop - start, columns)
        return Grid(quants, scales[start:stop], zeros[start:stop], columns)

    return read


def _four_bit(parts: Parts, name: str, kind: str) -> QuantizedMatrix:
    stored_state = parts.take(name + _STATE + kind, "U8", "bytes")
    if stored_state.n_bytes > _MAX_STATE_BYTES:
        raise fault(stored_state, f"has {stored_state.n_bytes} bytes, expected a few of JSON, at most {_MAX_STATE_BYTES}")
    where = f"{stored_state.file.path}: tensor {printable(stored_state.name)}"
    state = HFConfig(parse_json(read_bytes(stored_state).tobytes(), where), where)
    shape = state.get("shape")
    if type(shape) is not list or len(shape) != 2 or not all(type(n) is int and 0 < n < 2**31 for n in shape):
        raise state.refuse("shape", "[rows, columns]")
    rows, columns = shape
    block = state.integer("blocksize", maximum=_MAX_BLOCK)
    weight = parts.take(name, " ".join(DTYPE_BITS))
    if weight.n_bytes != math.ceil(rows * columns / 2):
        raise fault(weight, f"has {weight.n_bytes} bytes, expected {math.ceil(rows * columns / 2)} for {rows} × {columns} of 4 bits")
    n_blocks = math.ceil(rows * columns / block)
    codebook = parts.take(name + ".quant_map", "F32", "16")
    expect_shape(codebook, 16)
    absmax = parts.take(name + ".absmax", f"U8 {FLOAT_DTYPES}", "blocks")
    expect_shape(absmax, n_blocks)
    nested = _Nested(parts, name, state, n_blocks) if absmax.dtype == "U8" else None
    method = f"bitsandbytes {kind.upper()}" + (" double-quantized" if nested else "")
    open = partial(_open_four_bit, weight, numbers(codebook), absmax, nested, columns, block)
    return off_grid(name, (rows, columns), weight.file.path, method, open)


class _Nested:
    """The scales of scales."""

    def __init__(self, parts: Parts, name: str, state: HFConfig, n_blocks: int):
        self._block = state.integer("nested_blocksize", maximum=_MAX_BLOCK)
        self._offset = np.float32(state.number("nested_offset"))
        codebook = parts.take(name + ".nested_quant_map", "F32", "256")
        expect_shape(codebook, 256)
        absmax = parts.take(name + ".nested_absmax", "F32", "blocks")
        expect_shape(absmax, math.ceil(n_blocks / self._block))
        self._codebook, self._absmax = numbers(codebook), absmax

    def scales(self, stored: np.ndarray) -> NDArray[np.float32]:
        absmax = numbers(self._absmax)
        return self._codebook[stored] * np.repeat(absmax, self._block)[: len(stored)] + self._offset


def _open_four_bit(
    weight: StoredTensor, codebook: np.ndarray, absmax: StoredTensor, nested: _Nested | None, columns: int, block: int
) -> RowReader:
    scales = nested.scales(numbers(absmax)) if nested else numbers(absmax)

    def read(start: int, stop: int) -> NDArray[np.float32]:
        first, last = start * columns, stop * columns  # values, row after row
        packed = read_bytes(weight, first // 2, math.ceil(last / 2))
        quants = np.empty((len(packed), 2), np.uint8)
        quants[:, 0], quants[:, 1] = packed >> 4, packed & 15
        values = codebook[quants.reshape(-1)[first % 2 : first % 2 + last - first]]
        at = first // block
        spread = np.repeat(scales[at : math.ceil(last / block)], block)
        values *= spread[first - at * block : last - at * block]
        return values.reshape(stop - start, columns)

    return read
