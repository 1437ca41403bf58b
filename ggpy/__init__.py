"""ggpy: Hugging Face checkpoints to GGUF, and GGUF on the CPU.

import ggpy
model = ggpy.load("model.gguf")
for step in model.stream("Once upon a time", max_tokens=64): print(step.text, end="")
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in `typing`, which is not imported here: see __main__.py
if TYPE_CHECKING:
    from typing import Any

    from ggpy.answers import Step
    from ggpy.api import Model, Prompt, load
    from ggpy.chat.session import Chat
    from ggpy.converter import Report, convert
    from ggpy.errors import GGPyError
    from ggpy.gguf import open_gguf

__all__ = ["Chat", "GGPyError", "Model", "Prompt", "Report", "Step", "__version__", "convert", "load", "open_gguf"]

_HOMES = {"Chat": "ggpy.chat.session", "GGPyError": "ggpy.errors", "Model": "ggpy.api", "Report": "ggpy.converter", "Prompt": "ggpy.api",
          "Step": "ggpy.answers",
          "convert": "ggpy.converter", "load": "ggpy.api", "open_gguf": "ggpy.gguf"}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: `import ggpy` itself costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ggpy' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
