"""compressed-tensors, as llm-compressor writes it for vLLM.

pack-quantized: weight_packed int32 (rows, ⌈columns / n⌉), n = 32 // bits values a word, low first, stored as value + 2**(bits − 1);
weight_shape [rows, columns]; weight_zero_point, if there, packed the same way along rows: int32 (⌈rows / n⌉, groups).
int-quantized: weight and weight_zero_point int8. Both: weight_scale (rows, groups), (rows, 1) or one number; weight_g_idx int32
(columns,) under act-order. W = scale · (value − zero point). float-quantized: 8-bit floats, see fp8. naive-quantized: either of the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.prequantized.bits import unpack_words
from ggpy.converter.prequantized.fp8 import float_matrix
from ggpy.converter.prequantized.grid import Grid, measure_span
from ggpy.converter.prequantized.matrix import GridReader, QuantizedMatrix, on_grid
from ggpy.converter.prequantized.parts import FLOAT_DTYPES, Parts, expect_shape, fault, numbers, read_bytes
from ggpy.converter.safetensors import StoredTensor

_FORMATS = ("dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision")


def read_compressed_tensors(parts: Parts, config: HFConfig) -> Iterator[QuantizedMatrix]:
    """The weights with a scale beside them; which of the layouts each has is told by its tensors. Raises CheckpointError."""
    schemes = list(_schemes(config))
    for prefix in parts.prefixes(".weight_packed"):
        yield _packed(parts, prefix, schemes)
    for prefix in parts.prefixes(".weight_scale"):
        weight = parts.left.get(prefix + ".weight")
        if weight is not None and weight.dtype == "I8":
            yield _int8(parts, prefix, weight, schemes)
        elif weight is not None:
            yield float_matrix(parts, prefix, ".weight_scale", next(filter(None, map(_block_size, schemes)), None))
    for name in [name for name in parts.left if name.rpartition(".")[2] in ("input_scale", "input_zero_point", "k_scale", "v_scale")]:
        parts.drop(name)


def _schemes(config: HFConfig) -> Iterator[HFConfig]:
    """What the config says of the weights of each group of layers; raises CheckpointError for layouts that are not supported."""
    sparsity = config.section("sparsity_config").get("format", "dense")
    if sparsity != "dense":
        raise config.refuse("sparsity_config", "none: save the model with dense weights")
    groups = config.section("config_groups")
    for section in (config, *(groups.section(name) for name in groups)):
        if section.string("format", "dense") not in _FORMATS:
            raise section.refuse("format", f"one of {', '.join(_FORMATS)}")
    yield from (weights for weights in (groups.section(name).section("weights") for name in groups) if "num_bits" in weights)


def _block_size(scheme: HFConfig) -> tuple[int, int] | None:
    """(rows, columns) that share a scale under the strategy "block", written [128, 128] or "128x128"."""
    size = scheme.get("block_structure", [])
    if type(size) is str and re.fullmatch(r"[1-9]\d{0,8}x[1-9]\d{0,8}", size, re.ASCII):
        size = [int(n) for n in size.split("x")]
    if type(size) is not list or len(size) not in (0, 2) or not all(type(n) is int and 0 < n < 2**31 for n in size):
        raise scheme.refuse("block_structure", "[rows, columns]")
    return (size[0], size[1]) if size else None


def _packed(parts: Parts, prefix: str, schemes: list[HFConfig]) -> QuantizedMatrix:
    packed = parts.take(prefix + ".weight_packed", "I32", "rows", "columns · bits / 32")
    shape = parts.take(prefix + ".weight_shape", "I64 I32", "2")
    expect_shape(shape, 2)
    rows, columns = (int(n) for n in numbers(shape))
    candidates = [scheme.integer("num_bits", minimum=2, maximum=8) for scheme in schemes]
    bits = next((b for b in candidates if packed.shape == (rows, math.ceil(columns / (32 // b)))), None)
    if bits is None or rows < 1 or columns < 1:
        widths = ", ".join(sorted({str(b) for b in candidates})) or "a number of"
        raise fault(
            packed, f"has shape {list(packed.shape)}, expected room for {rows} × {columns} of {widths} bits (weight_shape, num_bits)"
        )
    scale, group = _scale(parts, prefix, rows, columns, schemes)
    groups = scale.shape[1] if len(scale.shape) == 2 else 1
    half, per_word = 1 << (bits - 1), 32 // bits
    stored = parts.take_if_there(prefix + ".weight_zero_point", "I32 I8", "rows", "groups")
    if stored is not None:
        expect_shape(stored, math.ceil(rows / per_word) if stored.dtype == "I32" else rows, groups)
    zeros = partial(_packed_zeros, stored, rows, bits)
    group_of = _group_of(parts, prefix, columns, groups)
    span = measure_span(0, 2 * half - 1, numbers(scale).reshape(-1, groups), zeros(), columns, group, group_of is None)
    method = f"compressed-tensors int{bits}" + ("" if group_of is None else " act-order")
    open = partial(_open_packed, packed, scale, zeros, (rows, columns), bits, group, group_of)
    return on_grid(prefix + ".weight", (rows, columns), packed.file.path, method, span, open)


def _open_packed(
    packed: StoredTensor,
    scale: StoredTensor,
    read_zeros: Callable[[], NDArray[np.int16]],
    shape: tuple[int, int],
    bits: int,
    group: int,
    group_of: np.ndarray | None,
) -> GridReader:
    words, scales = packed.shape[1], _by_row(scale, shape[0])
    zeros = np.broadcast_to(read_zeros(), scales.shape)

    def read(start: int, stop: int) -> Grid:
        raw = read_bytes(packed, 4 * start * words, 4 * stop * words).view("<u4").reshape(stop - start, words)
        return Grid(unpack_words(raw, bits, shape[1]), scales[start:stop], zeros[start:stop], group, group_of)

    return read


def _packed_zeros(stored: StoredTensor | None, rows: int, bits: int) -> NDArray[np.int16]:
    """(rows, groups), or (1, 1) where all are equal; like the quants, they are stored with 2**(bits − 1) added."""
    half = np.int16(1 << (bits - 1))
    if stored is None:
        return np.full((1, 1), half)
    if stored.dtype == "I8":
        return numbers(stored) + half
    return unpack_words(numbers(stored).T.view(np.uint32), bits, rows).T.astype(np.int16)


def _int8(parts: Parts, prefix: str, weight: StoredTensor, schemes: list[HFConfig]) -> QuantizedMatrix:
    parts.take(weight.name, "I8", "rows", "columns")
    rows, columns = weight.shape
    if not rows or not columns:
        raise fault(weight, f"has shape {list(weight.shape)}, expected rows and columns")
    scale, group = _scale(parts, prefix, rows, columns, schemes)
    groups = scale.shape[1] if len(scale.shape) == 2 else 1
    stored = parts.take_if_there(prefix + ".weight_zero_point", "I8")
    if stored is not None and math.prod(stored.shape) != math.prod(scale.shape):
        raise fault(stored, f"has shape {list(stored.shape)}, expected that of the scales, {list(scale.shape)}")
    zeros = partial(_int8_zeros, stored, groups)
    group_of = _group_of(parts, prefix, columns, groups)
    span = measure_span(-128, 127, numbers(scale).reshape(-1, groups), zeros(), columns, group, group_of is None)
    open = partial(_open_int8, weight, scale, zeros, group, group_of)
    return on_grid(weight.name, (rows, columns), weight.file.path, "compressed-tensors int8", span, open)


def _int8_zeros(stored: StoredTensor | None, groups: int) -> NDArray[np.int16]:
    return np.zeros((1, 1), np.int16) if stored is None else numbers(stored).astype(np.int16).reshape(-1, groups)


def _open_int8(
    weight: StoredTensor, scale: StoredTensor, read_zeros: Callable[[], NDArray[np.int16]], group: int, group_of: np.ndarray | None
) -> GridReader:
    columns, scales = weight.shape[1], _by_row(scale, weight.shape[0])
    zeros = np.broadcast_to(read_zeros(), scales.shape)

    def read(start: int, stop: int) -> Grid:
        quants = read_bytes(weight, start * columns, stop * columns).view(np.int8).reshape(stop - start, columns)
        return Grid(quants, scales[start:stop], zeros[start:stop], group, group_of)

    return read


def _scale(parts: Parts, prefix: str, rows: int, columns: int, schemes: list[HFConfig]) -> tuple[StoredTensor, int]:
    """The scales of a weight, and how many columns share one."""
    scale = parts.take(prefix + ".weight_scale", FLOAT_DTYPES)
    if scale.shape in ((), (1,), (rows,), (1, 1)):
        return scale, columns
    groups = scale.shape[1] if len(scale.shape) == 2 else 0
    if scale.shape[0] != rows or not 0 < groups <= columns:
        raise fault(scale, f"has shape {list(scale.shape)} beside weights of {rows} × {columns}, expected one, {rows}, or {rows} × groups")
    sizes = [size for size in (scheme.integer("group_size", -1, minimum=-1) for scheme in schemes) if size > 0]
    size = next((n for n in sizes or [math.ceil(columns / groups)] if math.ceil(columns / n) == groups), None)
    if size is None:
        raise fault(scale, f"has {groups} groups for {columns} columns, expected groups of {' or '.join(map(str, sizes)) or 'equal size'}")
    return scale, size


def _by_row(scale: StoredTensor, rows: int) -> NDArray[np.float32]:
    """(rows, groups)"""
    values = numbers(scale)
    return np.broadcast_to(values if values.ndim == 2 else values.reshape(-1, 1), (rows, values.shape[1] if values.ndim == 2 else 1))


def _group_of(parts: Parts, prefix: str, columns: int, groups: int) -> np.ndarray | None:
    """The group of every column under act-order; None where groups are neighbours."""
    stored = parts.take_if_there(prefix + ".weight_g_idx", "I32", "columns")
    if stored is None:
        return None
    expect_shape(stored, columns)
    group_of = numbers(stored)
    if (group_of == -1).all():
        return None
    if group_of.min() < 0 or group_of.max() >= groups:
        at = int(np.argmax((group_of < 0) | (group_of >= groups)))
        raise fault(stored, f"is {group_of[at]} at index {at}, expected a group from 0 to {groups - 1}")
    return group_of
