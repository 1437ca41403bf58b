"""AWQ in its GEMM layout, as AutoAWQ and GPTQModel write it.

qweight: int32 (inputs, outputs / 8), qzeros: int32 (groups, outputs / 8): eight neighbouring outputs a word, low first in the order
0, 2, 4, 6, 1, 3, 5, 7. scales: (groups, outputs). W[o, i] = scales[g, o] · (q − z), g = i // group_size. The channel scales that AWQ
searched are folded into the norm or matrix before, so weights are not those of the float model, and need not be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.prequantized.grid import Grid, measure_span
from ggpy.converter.prequantized.matrix import GridReader, QuantizedMatrix, on_grid
from ggpy.converter.prequantized.parts import FLOAT_DTYPES, Parts, expect_shape, fault, numbers
from ggpy.converter.safetensors import StoredTensor

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def read_awq(parts: Parts, config: HFConfig) -> Iterator[QuantizedMatrix]:
    """The weights that a checkpoint's `qweight` tensors stand for. Raises CheckpointError."""
    version = config.string("version", "gemm")
    if version.lower() != "gemm":
        raise config.refuse("version", "gemm, the layout of almost all AWQ checkpoints; save it again in that")
    if config.integer("bits", 4, maximum=64) != 4:
        raise config.refuse("bits", "4, as the GEMM layout has it")
    size = config.integer("group_size", 128, minimum=-1)
    for prefix in parts.prefixes(".qweight"):
        qweight = parts.take(prefix + ".qweight", "I32", "inputs", "outputs / 8")
        qzeros = parts.take(prefix + ".qzeros", "I32", "groups", "outputs / 8")
        scales = parts.take(prefix + ".scales", FLOAT_DTYPES, "groups", "outputs")
        (inputs, words), (groups, outputs) = qweight.shape, scales.shape
        if not inputs or not groups or outputs % 8:
            raise fault(scales, f"has shape {list(scales.shape)} beside {inputs} inputs, expected groups and a multiple of 8 outputs")
        expect_shape(qweight, inputs, outputs // 8)
        expect_shape(qzeros, groups, words)
        group = inputs if size <= 0 else size
        if math.ceil(inputs / group) != groups:
            raise fault(scales, f"has {groups} groups, expected {math.ceil(inputs / group)} of {group} of {inputs} inputs")
        span = measure_span(0, 15, numbers(scales), _zeros(qzeros), inputs, group, True)
        open = partial(_open, qweight, qzeros, scales, group)
        yield on_grid(prefix + ".weight", (outputs, inputs), qweight.file.path, "AWQ 4-bit", span, open)


def _open(qweight: StoredTensor, qzeros: StoredTensor, scales: StoredTensor, group: int) -> GridReader:
    """The packed weights are read whole: they lie input by input, and rows are outputs."""
    words, factors, zeros = numbers(qweight), numbers(scales), _zeros(qzeros)

    def read(start: int, stop: int) -> Grid:
        first = start // 8
        quants = _unpack(words[:, first : math.ceil(stop / 8)])[start - 8 * first : stop - 8 * first]
        return Grid(quants, factors[:, start:stop].T, zeros[:, start:stop].T, group)

    return read


def _unpack(words: np.ndarray) -> NDArray[np.uint8]:
    """int32 (n, outputs / 8) -> uint8 (outputs, n)"""
    by_word = np.ascontiguousarray(words.T)  # (outputs / 8, n)
    found = np.empty((len(by_word), 8, by_word.shape[1]), np.uint8)
    for i, output in enumerate(_ORDER):
        found[:, output] = (by_word >> (4 * i)) & 15
    return found.reshape(-1, by_word.shape[1])


def _zeros(qzeros: StoredTensor) -> NDArray[np.int16]:
    """int16 (groups, outputs)"""
    return _unpack(numbers(qzeros)).T.astype(np.int16)
