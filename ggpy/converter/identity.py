"""Who a model is: the `general.*` keys that its directory, its model card and its number of weights tell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.files import RangeFile, read_json
from ggpy.errors import CheckpointError

# basename-SIZE-finetune-version, the usual order of model names: Mistral-7B-Instruct-v0.3
_NAME = re.compile(
    r"(?P<basename>.+?)-(?P<size_label>\d+(?:\.\d+)?[KMBT])(?:-(?P<finetune>.+?))?(?:-(?P<version>v\d[\d.]*))?", re.IGNORECASE
)
_CARD_BYTES = 1 << 16
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)[\"']?[ \t]*$", re.MULTILINE)

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"))

# generation_config.json -> the key under which llama.cpp looks for the same default
_SAMPLING = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


def model_name(directory: Path) -> str:
    """The model's name: the directory's, or the repository's where the directory is a snapshot in the Hub cache."""
    path = directory.resolve()
    if re.fullmatch(r"[0-9a-f]{40}", path.name) and path.parent.name == "snapshots" and "--" in path.parents[1].name:
        return path.parents[1].name.split("--")[-1]
    return path.name or "model"


def size_label(n_values: int) -> str:
    """The number of weights as people say it: 135M, 1.2B."""
    unit, suffix = next((pair for pair in _UNITS if n_values > pair[0]), (1e3, "K"))
    size = n_values / unit
    return f"{size:.{1 if round(size) < 10 else 0}f}{suffix}"


def identity_metadata(directory: Path, n_values: int, warnings: list[str]) -> dict[str, Any]:
    """`general.type`, name, basename, finetune, version, size label, license and recommended sampling, as far as they are known.

    A generation_config.json that cannot be used adds to `warnings`.
    """
    name = model_name(directory)
    values: dict[str, Any] = {"general.type": "model", "general.name": name.replace("-", " ").replace("_", " ")}
    parts = _NAME.fullmatch(name)
    found = {key: text for key, text in parts.groupdict().items() if text} if parts else {}
    values |= {f"general.{key}": found[key] for key in ("version", "finetune", "basename") if key in found}
    values["general.size_label"] = found.get("size_label", size_label(n_values)).upper()
    if (license := _card_license(directory / "README.md")) is not None:
        values["general.license"] = license
    return values | _sampling(directory / "generation_config.json", warnings)


def _card_license(card: Path) -> str | None:
    """The license named in the front matter of a model card."""
    if not card.is_file():
        return None
    file = RangeFile(card)
    try:
        text = file.read(0, min(file.size, _CARD_BYTES)).tobytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
    finally:
        file.close()
    if not text.startswith("---\n"):
        return None
    license = _LICENSE.search(text, 0, max(text.find("\n---", 3), 0))
    return license[1] if license else None


def _sampling(path: Path, warnings: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values: dict[str, Any] = {}
    try:
        config = HFConfig(read_json(path, _CARD_BYTES), str(path))
        for key, name in _SAMPLING.items():
            if key in config:
                values[name] = config.integer(key, minimum=0) if key == "top_k" else config.number(key, above=-1)
    except CheckpointError as error:
        warnings.append(f"recommended sampling settings left out: {error}")
        return {}
    return values
