"""Checkpoints that other tools quantized, beside the weights they were made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ggpy.converter.safetensors import SafetensorsFile
from ggpy.runtime.encode import widened


def layers_of(shared: Path, kind: str) -> Iterator[tuple[np.ndarray, str, SafetensorsFile]]:
    """For each linear layer of stories260K: its float32 weights (from bfloat16), its name, and the file of `kind` that quantized it."""
    models = shared / "models"
    source = SafetensorsFile(next((models / "stories260K-bf16").glob("*.safetensors")))
    file = SafetensorsFile(next((models / "quantized" / f"stories260K-{kind}").glob("*.safetensors")))
    for name, tensor in source.tensors.items():
        if name.endswith("_proj.weight"):
            yield widened(tensor.read(0, tensor.shape[0])), name.removesuffix(".weight"), file
    source.close()
    file.close()


def stored_bytes(file: SafetensorsFile, name: str) -> np.ndarray:
    """uint8 (n,): a tensor as it lies there."""
    tensor = file.tensors[name]
    return tensor.file.read(tensor.offset, tensor.n_bytes)
