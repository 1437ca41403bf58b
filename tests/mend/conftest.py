"""Files to examine: the bundled checkpoint, converted, and small files with what a test asks for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import ggpy
from ggpy.converter import convert
from ggpy.gguf import GGUFWriter, open_gguf

DEMO = Path(ggpy.__file__).parent / "demo"


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return convert(DEMO, tmp_path_factory.mktemp("mend") / "demo.gguf", "q4_k_m").path


@pytest.fixture
def copied(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(converted, tmp_path / "demo.gguf"))


Remake = Callable[..., Path]


@pytest.fixture
def remade(converted: Path, tmp_path: Path) -> Remake:
    """The converted file with keys changed (None deletes one) and the data of tensors replaced."""

    def remake(keys: Mapping[str, Any] | None = None, data: Mapping[str, bytes] | None = None) -> Path:
        keys, data, path = dict(keys or {}), data or {}, tmp_path / "remade.gguf"
        with open_gguf(converted) as source, GGUFWriter(path, force=True) as writer:
            for key in source.metadata:
                if key not in keys:
                    writer.copy(source.metadata, key)
            for key, value in keys.items():
                if value is not None:
                    writer.add(key, value)
            for tensor in source.tensors.values():
                writer.add_tensor(tensor.name, tensor.shape, tensor.format)
            for tensor in source.tensors.values():
                writer.write_tensor(tensor.name, data.get(tensor.name, tensor.data))
        return path

    return remake
