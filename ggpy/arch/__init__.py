"""The architectures ggpy knows, one file each; converter and runtime read the same table."""

from ggpy.arch.architecture import Architecture, TensorRule, TextPart
from ggpy.arch.config import Config
from ggpy.arch.gemma import GEMMA
from ggpy.arch.gemma2 import GEMMA2
from ggpy.arch.gemma3 import GEMMA3
from ggpy.arch.llama import LLAMA
from ggpy.arch.mixtral import MIXTRAL
from ggpy.arch.phi3 import PHI3
from ggpy.arch.qwen2 import QWEN2
from ggpy.arch.qwen2moe import QWEN2MOE
from ggpy.arch.qwen3 import QWEN3
from ggpy.arch.qwen3moe import QWEN3MOE

ARCHS: dict[str, Architecture] = {arch.name: arch for arch in (LLAMA, QWEN2, QWEN2MOE, QWEN3, QWEN3MOE, PHI3, GEMMA, GEMMA2, GEMMA3)}
"""By `general.architecture`."""

HF_CLASSES: dict[str, Architecture] = {name: arch for arch in (*ARCHS.values(), MIXTRAL) for name in arch.hf_classes}
"""Llama's files may have experts: Mixtral's are such. By the names that config.json's `architectures` holds."""

TEXT_PARTS: dict[str, TextPart] = {name: part for arch in ARCHS.values() for name, part in arch.text_parts.items()}
"""Likewise, of models of which only the text model is known."""

__all__ = ["ARCHS", "HF_CLASSES", "TEXT_PARTS", "Architecture", "Config", "TensorRule", "TextPart"]
