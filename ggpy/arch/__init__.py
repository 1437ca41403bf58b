"""The architectures ggpy knows, one file each; converter and runtime read the same table."""

from ggpy.arch.architecture import Architecture, TensorRule
from ggpy.arch.config import Config
from ggpy.arch.llama import LLAMA

ARCHS: dict[str, Architecture] = {arch.name: arch for arch in (LLAMA,)}
"""By `general.architecture`."""

HF_CLASSES: dict[str, Architecture] = {name: arch for arch in ARCHS.values() for name in arch.hf_classes}
"""By the names that config.json's `architectures` holds."""

__all__ = ["ARCHS", "HF_CLASSES", "Architecture", "Config", "TensorRule"]
