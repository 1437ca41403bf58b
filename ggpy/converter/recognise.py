"""A model by another name: of which known architecture a checkpoint has every tensor and setting, or what differs from the nearest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ggpy.arch import HF_CLASSES, TEXT_PARTS, Architecture
from ggpy.arch.hf_config import HFConfig
from ggpy.arch.hf_keys import LOOKALIKES, USUAL, changes_nothing
from ggpy.arch.hf_rope import THETA_DEFAULT
from ggpy.converter.rules import expand, first_five, names_of, not_ignored, stored_shape
from ggpy.errors import CheckpointError, printable

_CAUSAL = "ForCausalLM"  # how classes end whose checkpoints continue a text; others have the tensors and another use
_SHOWN = 8


class Shaped(Protocol):
    """A tensor, as far as it is looked at here."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Likeness:
    """A checkpoint held against one architecture. config: config.json as that architecture's own class would have it.

    settings: what the architecture would read otherwise, or not at all; tensors: which do not fit; n_unlike: of tensors, how many.
    """

    architecture: Architecture
    config: HFConfig
    settings: list[str]
    tensors: list[str]
    n_unlike: int

    @property
    def fits(self) -> bool:
        return not self.settings and not self.tensors

    def __str__(self) -> str:
        more = [f"{len(self.settings) - _SHOWN} more settings"] if len(self.settings) > _SHOWN else []
        return "; ".join([*self.settings[:_SHOWN], *more, *self.tensors])


def recognise(config: HFConfig, tensors: Mapping[str, Shaped]) -> tuple[Architecture, HFConfig, list[str]]:
    """The architecture of a checkpoint, config.json as its class would have it, and a line of notice where the class was not known by name.

    tensors: by the checkpoint's names. A class that is not known is taken for the one architecture whose rules fit every tensor's name and
    shape, and which reads every key of config.json that may change the graph. Raises CheckpointError naming what differs from the nearest.
    """
    names = config.strings("architectures")
    if any(name in HF_CLASSES for name in names):
        return find_architecture(config), config, []
    if not any(name.endswith(_CAUSAL) for name in names):
        raise config.refuse("architectures", _known_classes())
    for name in names:
        if name in LOOKALIKES:
            raise config.refuse("architectures", f"{_known_classes()}: {LOOKALIKES[name]}")
    candidates = {arch.hf_classes: arch for arch in HF_CLASSES.values() if arch.by_structure}
    likenesses = [compare(arch, config, tensors) for arch in candidates.values()]
    fits = [likeness for likeness in likenesses if likeness.fits]
    if len(fits) == 1:
        return fits[0].architecture, fits[0].config, [_notice(config, fits[0])]
    nearest = min(likenesses, key=lambda likeness: (likeness.n_unlike, len(likeness.settings)))
    if nearest.n_unlike > len(tensors) / 2:
        raise config.refuse("architectures", _known_classes())
    like = nearest.architecture.hf_classes[0]
    raise config.refuse("architectures", _known_classes(f"one that differs in name alone; nearest is {like}, but: {nearest}"))


def find_architecture(config: HFConfig) -> Architecture:
    """The architecture that config.json's `architectures` names; raises CheckpointError listing the supported classes."""
    for name in config.strings("architectures"):
        if name in HF_CLASSES:
            return HF_CLASSES[name]
    raise config.refuse("architectures", _known_classes())


def compare(arch: Architecture, config: HFConfig, tensors: Mapping[str, Shaped]) -> Likeness:
    """What differs between a checkpoint and those of an architecture; biases and their like are there if the tensors are."""
    values: dict[str, Any] = {**config, "architectures": [arch.hf_classes[0]]}
    for rule in arch.rules:
        if rule.switch and rule.hf.replace("{i}", "0") in tensors:
            values[rule.switch] = True
    read = HFConfig(values, config.where)
    settings, sizes = [], {}
    try:
        sizes = arch.sizes(read)
        for part in (arch.metadata, arch.extra_tensors, arch.remarks):
            part(read)
        read.boolean("tie_word_embeddings", False)
    except CheckpointError as error:
        settings.append(str(error).removeprefix(f"{config.where}: "))
    differing, n_unlike = _unlike(arch, read, tensors, sizes)
    head_norms = any("attn_q_norm" in rule.gguf for rule in arch.rules)
    settings += _not_understood(read, config, sizes, head_norms, bool(settings))
    return Likeness(arch, HFConfig(values, config.where), settings, differing, n_unlike)


def _unlike(arch: Architecture, config: HFConfig, tensors: Mapping[str, Shaped], sizes: Mapping[str, int]) -> tuple[list[str], int]:
    """(a text for each way in which tensors differ, of how many); without sizes, names alone are compared."""
    n_layers, n_experts = config.get("num_hidden_layers"), sizes.get("n_experts", 1)
    if type(n_layers) is not int or not 0 < n_layers * n_experts <= len(tensors):
        return [f"{len(tensors)} tensors are too few for {printable(n_layers, 20)} layers"], len(tensors)
    left, missing, other_shapes = dict.fromkeys(tensors), [], []
    for rule, layer in expand(arch.rules, n_layers):
        if rule.switch and not config.get(rule.switch, False):
            continue
        for name in names_of(rule, layer, n_experts):
            if name not in tensors:
                missing += [] if rule.tied else [name]
                continue
            del left[name]
            if sizes:
                wanted = stored_shape(rule, tuple(sizes[size] for size in rule.shape))
                if tensors[name].shape != wanted:
                    other_shapes.append(f"{name} {list(tensors[name].shape)}, not {list(wanted)}")
    kinds = {"missing": missing, "without a place": not_ignored(arch, left), "of another shape": other_shapes}
    found = [f"{len(names)} tensor{'s' * (len(names) > 1)} {kind}: {first_five(names)}" for kind, names in kinds.items() if names]
    return found, sum(len(names) for names in kinds.values())


def _not_understood(read: HFConfig, config: HFConfig, sizes: Mapping[str, int], head_norms: bool, broken_off: bool) -> list[str]:
    """Keys that were not read, and of which it is not known that they leave the graph as it is.

    broken_off: whether reading stopped early.
    """
    theta = config.section("rope_parameters").get("rope_theta", config.get("rope_theta", THETA_DEFAULT))
    known = {**config, "rope_theta": theta, "head_dim": sizes.get("d_head")}
    return [
        f"{printable(key, 60)} is {printable(repr(value), 60)}"
        for key, value in read.unasked().items()
        if not (broken_off and key in USUAL) and not changes_nothing(key, value, known, head_norms)
    ]


def _notice(config: HFConfig, likeness: Likeness) -> str:
    names, like = ", ".join(config.strings("architectures")), likeness.architecture.hf_classes[0]
    text = f"{printable(names, 80)} is not known by name, but has the tensors, their shapes and the settings of {like}: it is taken for one"
    if "rope_theta" not in config and "rope_theta" not in config.section("rope_parameters"):
        text += f"; rope_theta is not given, expected {THETA_DEFAULT:g}"
    return text + ("; code of its own (auto_map) is not run" if "auto_map" in config else "")


def _known_classes(more: str = "") -> str:
    return f"one of {', '.join([*HF_CLASSES, *TEXT_PARTS])}" + (f", or {more}" if more else "")
