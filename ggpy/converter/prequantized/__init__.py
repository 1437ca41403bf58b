"""Checkpoints whose weights are quantized already: a module for each method, from its tensors to exact float rows, and to blocks.

parts.py    bits.py      the tensors of a weight, checked, and their packed integers
grid.py     matrix.py    whole numbers times scales, the block formats that hold them, and a weight made of either
gptq.py     awq.py       bnb.py       compressed_tensors.py       fp8.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.prequantized.awq import read_awq
from ggpy.converter.prequantized.bnb import read_bitsandbytes
from ggpy.converter.prequantized.compressed_tensors import read_compressed_tensors
from ggpy.converter.prequantized.fp8 import read_fp8
from ggpy.converter.prequantized.gptq import read_gptq
from ggpy.converter.prequantized.matrix import QuantizedMatrix
from ggpy.converter.prequantized.parts import Parts
from ggpy.converter.safetensors import StoredTensor
from ggpy.errors import CheckpointError, printable

METHODS: dict[str, Callable[[Parts, HFConfig], Iterator[QuantizedMatrix]]] = {
    "gptq": read_gptq,
    "awq": read_awq,
    "bitsandbytes": read_bitsandbytes,
    "compressed-tensors": read_compressed_tensors,
    "fp8": read_fp8,
    "fbgemm_fp8": read_fp8,
}
"""`quant_method` of a config.json -> the reader of its weights."""

_INSTEAD = {
    "gguf": "give the .gguf file itself",
    "auto-round": "export it in the auto_gptq or auto_awq format",
    "intel/auto-round": "export it in the auto_gptq or auto_awq format",
}
_KEYS = ("quantization_config", "compression_config")
_MARKS = (".qweight", ".SCB", ".weight_packed", ".weight_scale_inv", ".weight_scale", "_blocks")


def dequantized(config: HFConfig, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor | QuantizedMatrix]:
    """The tensors of a checkpoint, those that together stand for a quantized weight replaced by it, under the weight's name.

    Raises CheckpointError for a method that is not supported, and for tensors that do not fit each other.
    """
    key = next((key for key in _KEYS if config.section(key)), None)
    if key is None:
        marked = next((name for name in stored if name.endswith(_MARKS)), None)
        if marked is not None:
            raise CheckpointError(
                f"{config.where}: quantization_config is missing, expected what {printable(marked)} was saved with: it looks quantized"
            )
        return dict(stored)
    settings = config.section(key)
    method = settings.string("quant_method", "compressed-tensors" if key == "compression_config" else "bitsandbytes")
    read = METHODS.get(method)
    if read is None:
        instead = _INSTEAD.get(method, "convert the float checkpoint it was made from")
        raise settings.refuse("quant_method", f"one of {', '.join(METHODS)}; {instead}")
    parts = Parts(stored)
    matrices = {matrix.name: matrix for matrix in read(parts, settings)}
    twice = next((name for name in matrices if name in parts.left), None)
    if twice is not None:
        raise CheckpointError(f"{matrices[twice].path}: {printable(twice)} is there twice, quantized and as it is; expected one of them")
    return {**parts.left, **matrices}


__all__ = ["METHODS", "QuantizedMatrix", "dequantized"]
