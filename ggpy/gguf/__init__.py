"""GGUF, the container: metadata and tensors in one file that is mapped, not read. See formats/gguf/container.md."""

from __future__ import annotations

from ggpy.gguf.metadata import Metadata
from ggpy.gguf.reader import GGUFFile, open_gguf
from ggpy.gguf.tensor import Tensor
from ggpy.gguf.types import ValueType
from ggpy.gguf.writer import GGUFWriter

__all__ = ["GGUFFile", "GGUFWriter", "Metadata", "Tensor", "ValueType", "open_gguf"]
