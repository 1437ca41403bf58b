"""What an architecture must say of itself: its names on both sides, its metadata, its config, its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TensorRule:
    """One tensor's way from a Hugging Face checkpoint into GGUF. `{i}` in a name stands for the layer.

    `transform(values, hf_config)` maps the float array as stored (rows, cols) to the array GGUF wants; None keeps it.
    """

    gguf: str
    hf: str
    transform: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Architecture:
    """One architecture, for the converter and the runtime alike.

    name: `general.architecture`, and the prefix of its metadata keys.
    hf_classes: names in config.json's `architectures` that mean this one.
    rules: every tensor; what no rule names is reported, never dropped silently.
    metadata(hf_config): the `{name}.*` keys and their values, range-checked; raises CheckpointError.
    extra_tensors(hf_config): tensors that no checkpoint stores, such as `rope_freqs.weight`: name -> float32 array.
    config(metadata): the typed runtime config read from GGUF metadata; raises ModelError.
    shapes(config): every tensor the forward pass needs, name -> shape (rows first); names ending in `?` are optional.
    forward(op, weights, config, tokens): the forward pass, written against the op vocabulary.
    """

    name: str
    hf_classes: tuple[str, ...]
    rules: tuple[TensorRule, ...]
    metadata: Callable[[Mapping[str, Any]], dict[str, Any]]
    extra_tensors: Callable[[Mapping[str, Any]], dict[str, np.ndarray]]
    config: Callable[[Any], Any]
    shapes: Callable[[Any], dict[str, tuple[int, ...]]]
    forward: Callable[..., Any]
