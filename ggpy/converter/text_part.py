"""The text model in a checkpoint of a model that also sees: its config and its tensors, as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping

from ggpy.arch import TEXT_PARTS
from ggpy.arch.hf_config import HFConfig
from ggpy.converter.safetensors import StoredTensor
from ggpy.errors import CheckpointError, printable


def text_part(config: HFConfig, tensors: dict[str, StoredTensor]) -> tuple[HFConfig, dict[str, StoredTensor], list[str]]:
    """(config.json, tensors by the names they have in a text model, what was left out in one line) of the text model.

    All is as given where config.json's `architectures` names no class of `TEXT_PARTS`. Raises CheckpointError for two tensors of one name.
    """
    name = next((name for name in config.strings("architectures", []) if name in TEXT_PARTS), None)
    if name is None:
        return config, tensors, []
    part = TEXT_PARTS[name]
    values = {**part.defaults, **config, **config.section(part.section), "architectures": [part.hf_class]}
    found: dict[str, StoredTensor] = {}
    n_left = 0
    for stored, tensor in tensors.items():
        if stored.startswith(part.others):
            n_left += 1
            continue
        short = _renamed(stored, part.prefixes)
        if short in found:
            raise CheckpointError(
                f"{config.where}: {printable(found[short].name)} and {printable(stored)} are one tensor of the text model"
            )
        found[short] = tensor
    return HFConfig(values, config.where), found, [f"the text model of a {name}: {n_left} tensors of its other parts are left out"]


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    return next((new + name.removeprefix(old) for old, new in prefixes.items() if name.startswith(old)), name)
