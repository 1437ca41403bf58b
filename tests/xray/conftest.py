"""The bundled checkpoint, converted, and small files with weights that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.gguf import GGUFWriter
from tests.mend.conftest import DEMO, Remake, converted, copied, remade

__all__ = ["DEMO", "Make", "Remake", "converted", "copied", "remade"]

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A GGUF file of the given matrices, each in the format that is named with it, or of raw blocks."""

    def made(name: str, tensors: Mapping[str, tuple[str, np.ndarray]], **raw: np.ndarray) -> Path:
        path = tmp_path / name
        with GGUFWriter(path, force=True) as writer:
            writer.add("general.architecture", "llama")
            for key, (format, values) in tensors.items():
                writer.add_tensor(key, values.shape, BLOCKS[format])
            for key, (format, values) in tensors.items():
                writer.write_tensor(key, raw[key] if key in raw else _encoded(values, BLOCKS[format]))
        return path

    return made


def _encoded(values: np.ndarray, format: BlockFormat) -> np.ndarray:
    """uint8 (rows, row_bytes), by the encoder in NumPy; floats as they are, NaN included."""
    rows, values = values.size // values.shape[-1], values.astype(np.float32)
    if format.name == "F32":
        return values.reshape(rows, -1).view(np.uint8)
    assert format.encode
    return format.encode(values.reshape(-1, format.block_values)).reshape(rows, -1)
