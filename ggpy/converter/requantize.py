"""A GGUF file as a source: metadata kept byte for byte, tensors decoded when their format changes and copied when it does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ggpy.arch import ARCHS
from ggpy.blocks import dequantize
from ggpy.converter.files import RangeFile
from ggpy.converter.recipes import QUANTIZATION_VERSION, Recipe
from ggpy.converter.source import SourceTensor, model_facts
from ggpy.gguf import GGUFWriter, Tensor, open_gguf
from ggpy.runtime.encode import FLOATS

_PART = re.compile(r"-\d{5}-of-\d{5}$")


class GGUFSource:
    """The tensors and metadata of a GGUF file, or of one split into parts; see `Source`. weighted: whether it was made with an importance
    matrix. Raises GGUFError for a file that is not legal."""

    def __init__(self, path: Path):
        self._gguf = open_gguf(path)
        self._files: dict[Path, RangeFile] = {}
        try:
            for part in self._gguf.paths:
                self._files[part] = RangeFile(part)
        except BaseException:
            self.close()
            raise
        metadata = self._gguf.metadata
        self.metadata: Mapping[str, Any] = metadata
        self.name, self.alignment, self.warnings = _PART.sub("", path.stem), self._gguf.alignment, []
        self.merged: tuple[str, ...] = ()
        self.scaled: frozenset[str] = frozenset()
        self.files = {file.identity for file in self._files.values()}
        self.architecture = arch = metadata.string("general.architecture")
        self.facts = model_facts(metadata, arch)
        self.weighted = "quantize.imatrix.file" in metadata
        if arch not in ARCHS:
            self.warnings.append(f"architecture {arch} is new to ggpy: tensors get their types by the general rules")
        self.tensors = [self._source_tensor(tensor) for tensor in self._gguf.tensors.values()]

    def describe(self, writer: GGUFWriter, recipe: Recipe, added: Mapping[str, str | int]) -> None:
        replaced = {"general.file_type": recipe.file_type, "general.quantization_version": QUANTIZATION_VERSION, **added}
        for key in self._gguf.metadata:
            if key in replaced:
                writer.add(key, replaced.pop(key))
            elif not key.startswith(("split.", "ggpy.")):  # of that file, not of what is made from it
                writer.copy(self._gguf.metadata, key)
        for key, value in replaced.items():
            writer.add(key, value)

    def prove_tokenizer(self) -> str | None:
        return None

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._gguf.close()

    def _source_tensor(self, tensor: Tensor) -> SourceTensor:
        format = tensor.format.name
        file = self._files[self._gguf.path_of(tensor.name)]
        reader = partial(self._read, file, tensor)
        return SourceTensor(tensor.name, tensor.name, tensor.shape, format, format, lambda: reader, partial(self._read_raw, file, tensor))

    @staticmethod
    def _read_raw(file: RangeFile, tensor: Tensor, start: int, stop: int) -> np.ndarray:
        row_bytes = tensor.format.row_bytes(tensor.shape[-1])
        return file.read(tensor.offset + start * row_bytes, (stop - start) * row_bytes).reshape(stop - start, row_bytes)

    def _read(self, file: RangeFile, tensor: Tensor, start: int, stop: int) -> np.ndarray:
        raw = self._read_raw(file, tensor, start, stop)
        return raw.view(FLOATS[tensor.format.name]) if tensor.format.name in FLOATS else dequantize(raw, tensor.format)
