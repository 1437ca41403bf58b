"""GPTQ, as AutoGPTQ and GPTQModel write it.

qweight: int32 (inputs · bits / 32, outputs), each column a stream of `bits` per input, low first. qzeros: int32 (groups,
outputs · bits / 32), each row such a stream over the outputs. scales: (groups, outputs). g_idx: int32 (inputs,), the group of each input;
without it, or with act-order off, groups are neighbours. W[o, i] = scales[g, o] · (q − z), g = g_idx[i]. Checkpoint format "gptq" stores
z − 1, modulo 2**bits; "gptq_v2" stores z.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.prequantized.bits import unpack_stream
from ggpy.converter.prequantized.grid import Grid, measure_span
from ggpy.converter.prequantized.matrix import GridReader, QuantizedMatrix, on_grid
from ggpy.converter.prequantized.parts import FLOAT_DTYPES, Parts, expect_shape, fault, numbers
from ggpy.converter.safetensors import StoredTensor

_BITS = (2, 3, 4, 8)
_LESS_ONE = {"gptq": 1, "gptq_v2": 0}


def read_gptq(parts: Parts, config: HFConfig) -> Iterator[QuantizedMatrix]:
    """The weights that a checkpoint's `qweight` tensors stand for. Raises CheckpointError."""
    version = config.string("checkpoint_format", "gptq")
    if version not in _LESS_ONE:
        raise config.refuse("checkpoint_format", "gptq or gptq_v2; save it again in one of these")
    if config.integer("bits", maximum=64) not in _BITS:
        raise config.refuse("bits", f"one of {', '.join(map(str, _BITS))}")
    for prefix in parts.prefixes(".qweight"):
        layer = _Layer(
            parts.take(prefix + ".qweight", "I32", "inputs · bits / 32", "outputs"),
            parts.take(prefix + ".qzeros", "I32", "groups", "outputs · bits / 32"),
            parts.take(prefix + ".scales", FLOAT_DTYPES, "groups", "outputs"),
            parts.take_if_there(prefix + ".g_idx", "I32", "inputs"),
            _LESS_ONE[version],
        )
        yield layer.matrix(prefix + ".weight", config)


@dataclass(frozen=True)
class _Grouping:
    """Which columns share a scale: `size` neighbours. order: the groups in the order in which they come, where that is not 0, 1, 2, …
    scattered: the group of every column, where columns of a group are no neighbours."""

    size: int
    order: np.ndarray | None = None
    scattered: np.ndarray | None = None


@dataclass(frozen=True)
class _Layer:
    qweight: StoredTensor
    qzeros: StoredTensor
    scales: StoredTensor
    g_idx: StoredTensor | None
    less: int  # what was subtracted from the stored zeros

    def matrix(self, name: str, config: HFConfig) -> QuantizedMatrix:
        groups, outputs = self.scales.shape
        bits = self._bits(config)
        inputs, rest = divmod(self.qweight.shape[0] * 32, bits)
        if rest or not groups or not inputs:
            raise fault(self.qweight, f"has shape {list(self.qweight.shape)} with {groups} groups, no whole number of {bits}-bit inputs")
        expect_shape(self.qweight, self.qweight.shape[0], outputs)
        grouping = self._grouping(inputs, groups, config)
        neighbours = grouping.scattered is None
        span = measure_span(0, (1 << bits) - 1, numbers(self.scales), self._zeros(bits), inputs, grouping.size, neighbours)
        method = f"GPTQ {bits}-bit" + ("" if neighbours else " act-order")
        return on_grid(name, (outputs, inputs), self.qweight.file.path, method, span, partial(self._open, bits, grouping))

    def _bits(self, config: HFConfig) -> int:
        """As the shapes have it; other than the config's only where layers are said to differ."""
        groups, outputs = self.scales.shape
        meant = config.integer("bits")
        allowed = _BITS if "dynamic" in config else (meant,)
        for bits in allowed:
            if self.qzeros.shape == (groups, outputs * bits // 32) and outputs * bits % 32 == 0:
                return bits
        shape = [groups, f"{outputs} · {meant} / 32"]
        raise fault(self.qzeros, f"has shape {list(self.qzeros.shape)}, expected {shape[0]} × {shape[1]} by the scales and {meant} bits")

    def _grouping(self, inputs: int, groups: int, config: HFConfig) -> _Grouping:
        size = config.integer("group_size", -1, minimum=-1)
        size = inputs if size <= 0 or size > inputs else size
        if math.ceil(inputs / size) != groups:
            if "dynamic" not in config or inputs % groups:
                raise fault(self.scales, f"has {groups} groups, expected {math.ceil(inputs / size)} of {size} of {inputs} inputs")
            size = inputs // groups
        if self.g_idx is None:
            return _Grouping(size)
        expect_shape(self.g_idx, inputs)
        order = numbers(self.g_idx)
        if order.min() < 0 or order.max() >= groups:
            at = int(np.argmax((order < 0) | (order >= groups)))
            raise fault(self.g_idx, f"is {order[at]} at index {at}, expected a group from 0 to {groups - 1}")
        if np.array_equal(order, np.arange(inputs) // size):
            return _Grouping(size)
        if inputs % 32 == 0 and (order.reshape(-1, 32) == order[::32, None]).all():
            return _Grouping(32, order=order[::32])
        return _Grouping(size, scattered=order)

    def _zeros(self, bits: int) -> np.ndarray:
        """int16 (groups, outputs)"""
        stored = unpack_stream(np.ascontiguousarray(numbers(self.qzeros)).view(np.uint8), bits)
        return ((stored + np.uint8(self.less)) & np.uint8((1 << bits) - 1)).astype(np.int16)

    def _open(self, bits: int, grouping: _Grouping) -> GridReader:
        """The packed weights are read whole: they lie input by input, and rows are outputs."""
        words, scales, zeros = numbers(self.qweight), numbers(self.scales), self._zeros(bits)
        if grouping.order is not None:
            scales, zeros = scales[grouping.order], zeros[grouping.order]

        def read(start: int, stop: int) -> Grid:
            packed = np.ascontiguousarray(words[:, start:stop].T).view(np.uint8)  # (rows, inputs · bits / 8)
            quants = unpack_stream(packed, bits)
            return Grid(quants, scales[:, start:stop].T, zeros[:, start:stop].T, grouping.size, grouping.scattered)

        return read
