"""GGUF, the container: metadata and tensors in one file that is mapped, not read. See formats/gguf/container.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ggpy.gguf.metadata import Metadata
from ggpy.gguf.reader import GGUFFile, open_gguf
from ggpy.gguf.tensor import Tensor
from ggpy.gguf.types import ValueType

if TYPE_CHECKING:
    from ggpy.gguf.writer import GGUFWriter

__all__ = ["GGUFFile", "GGUFWriter", "Metadata", "Tensor", "ValueType", "open_gguf"]


def __getattr__(name: str) -> Any:
    """The writer is imported when first used: reading needs none of it."""
    if name != "GGUFWriter":
        raise AttributeError(f"module 'ggpy.gguf' has no attribute {name!r}")
    from ggpy.gguf.writer import GGUFWriter

    return GGUFWriter
