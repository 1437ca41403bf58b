"""The memory of a program's buffers is used again from layer to layer."""

from __future__ import annotations

from pathlib import Path

import ggpy

from .tiny import write_llama


def arena_bytes(path: Path, layers: int) -> int:
    with ggpy.load(write_llama(path / f"{layers}.gguf", "Q4_K", layers=layers), threads=2, context=128) as model:
        return model.generator().program._arena.nbytes


def test_more_layers_take_no_more_buffers(tmp_path: Path):
    few, many = arena_bytes(tmp_path, 2), arena_bytes(tmp_path, 9)
    assert many == few
