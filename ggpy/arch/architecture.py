"""What an architecture must say of itself: its names on both sides, its metadata, its config, its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ggpy.arch.config import Config
from ggpy.arch.hf_config import HFConfig
from ggpy.gguf import GGUFFile


@dataclass(frozen=True)
class TensorRule:
    """One tensor's way from a Hugging Face checkpoint into GGUF. `{i}` in a name stands for the layer.

    `shape`: rows first, each size by its name in `Architecture.sizes`.
    `row_order(hf_config, n)`: int (n,), the stored row that becomes row i of the GGUF tensor, for every i; None keeps the order. Of a
        vector, its elements. Rows move whole, so that packed rows can be reordered as well as floats.
    `plus`: what is added to every stored value: norms that are stored as their difference from 1.
    `switch`: the boolean config key that says whether the tensor exists; without one it must be there.
    `one_row`: whether the checkpoint stores the vector as a matrix of one row.
    `tied`: name of the checkpoint's tensor that stands for this one too when the config ties the two.
    """

    gguf: str
    hf: str
    shape: tuple[str, ...]
    row_order: Callable[[HFConfig, int], np.ndarray] | None = None
    plus: float = 0.0
    switch: str | None = None
    one_row: bool = False
    tied: str | None = None


@dataclass(frozen=True)
class TextPart:
    """The text model in checkpoints of a model that also sees.

    hf_class: the class of the text model alone. section: of config.json, whose keys count more than those around it. defaults: of keys that
    such a config may leave out. prefixes: of tensor names, and what stands there in a text model. others: prefixes of the other parts.
    """

    hf_class: str
    section: str
    defaults: Mapping[str, Any]
    prefixes: Mapping[str, str]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Architecture:
    """One architecture, for the converter and the runtime alike.

    name: `general.architecture`, and the prefix of its metadata keys.
    hf_classes: names in config.json's `architectures` that mean this one.
    text_parts: by names in config.json's `architectures`: models whose text model is of this architecture.
    rules: every tensor; what no rule names is reported, never dropped silently.
    sizes(hf_config): the sizes that the rules' shapes name; raises CheckpointError.
    metadata(hf_config): the `{name}.*` keys and their values, range-checked; raises CheckpointError.
    extra_tensors(hf_config): tensors that no checkpoint stores, such as `rope_freqs.weight`: name -> float32 array.
    remarks(hf_config): what the file cannot express, one line each; the conversion goes on.
    ignored: checkpoint tensors that are computed at run time and need no place in the file.
    attn_v_boost(metadata): whether llama-quantize gives this model's attn_v more bits because many heads share it.
    config(file): the typed runtime config read from a GGUF file; raises GGUFError or ModelError.
    shapes(config): every tensor the forward pass needs, name -> shape (rows first); names ending in `?` are optional.
    by_structure: whether a checkpoint of another class may be taken for one of this architecture when all its tensors and config.json fit;
        not where the graph has what neither of them tells.
    hf_config(file, config): config.json of the checkpoint that a file holds; raises ModelError. None: there is no way back.
    forward(op, weights, config): the forward pass, written against the op vocabulary; returns the logits.
    """

    name: str
    hf_classes: tuple[str, ...]
    rules: tuple[TensorRule, ...]
    sizes: Callable[[HFConfig], dict[str, int]]
    metadata: Callable[[HFConfig], dict[str, Any]]
    extra_tensors: Callable[[HFConfig], dict[str, np.ndarray]]
    remarks: Callable[[HFConfig], list[str]]
    config: Callable[[GGUFFile], Config]
    shapes: Callable[[Config], dict[str, tuple[int, ...]]]
    forward: Callable[..., Any]
    ignored: tuple[str, ...] = ()
    text_parts: Mapping[str, TextPart] = field(default_factory=dict)
    by_structure: bool = True
    attn_v_boost: Callable[[Mapping[str, Any]], bool] = lambda _: False
    hf_config: Callable[[GGUFFile, Config], dict[str, Any]] | None = None
