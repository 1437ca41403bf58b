"""The way back: a GGUF file as a Hugging Face directory that transformers loads, with the same logits and the same token ids.

Tensors go through once, a piece at a time; the directory gets its name when everything in it is complete and on the disk.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ggpy.arch import ARCHS, HF_CLASSES, Architecture, Config
from ggpy.arch.hf_config import HFConfig
from ggpy.blocks import BLOCKS
from ggpy.converter.export_tokenizer import json_bytes, tokenizer_files
from ggpy.converter.requantize import GGUFSource
from ggpy.converter.rules import expand, names_of, stored_shape
from ggpy.converter.source import SourceTensor, reordered
from ggpy.converter.stream import CHUNK_VALUES
from ggpy.errors import CheckpointError, GGPyError, ModelError, printable
from ggpy.gguf import GGUFFile, open_gguf
from ggpy.gguf.atomic import sync_directory
from ggpy.runtime.encode import FLOATS, encode_measured, widened

SHARD_BYTES = 5 * 10**9
_TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "penalty_repeat": "repetition_penalty"}

OnBytes = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Exported:
    """A written directory. dtype: of its weights. files: names, in the order of writing."""

    path: Path
    dtype: str
    n_tensors: int
    n_bytes: int
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.n_tensors} tensors in {self.dtype}, {self.n_bytes / 1e6:.1f} MB, {', '.join(self.files)}"


@dataclass(frozen=True)
class _Tensor:
    """A tensor on its way: its name and shape in the checkpoint, and the first of its rows in the file's tensor.

    order: the row of the file that becomes each row; None where the order stays. less: what is subtracted from every value.
    """

    name: str
    source: SourceTensor
    shape: tuple[int, ...]
    order: np.ndarray | None
    less: float
    first: int = 0

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)


def export(
    src: str | os.PathLike[str], out: str | os.PathLike[str], dtype: str | None = None, *, on_bytes: OnBytes = lambda name, n, total: None
) -> Exported:
    """Write the model in the GGUF file `src` as the Hugging Face directory `out`, which must not exist or be empty.

    dtype: f32, f16 or bf16; by default that of the file's own floating-point matrices, f16 for quantized ones.
    on_bytes(name, n, total): called as n more bytes of `total` are written.
    Raises GGUFError, ModelError or TokenizerError for a file that no checkpoint says the same as, GGPyError for a bad dtype or target.
    """
    if dtype is not None and dtype.upper() not in FLOATS:
        raise GGPyError(f"dtype {printable(dtype, 40)} is none of {', '.join(name.lower() for name in FLOATS)}")
    target = Path(out)
    _refuse_target(target)
    source = GGUFSource(Path(src))
    try:
        with open_gguf(src) as file:
            config, tensors = _plan(file, source)
            chosen = dtype.upper() if dtype else _own_dtype(tensors)
            files = {
                "config.json": json_bytes(config | {"dtype": _TORCH_NAMES[chosen], **_token_ids(file)}),
                **tokenizer_files(file.metadata),
            }
            files["generation_config.json"] = json_bytes(_generation(file))
        with _directory(target) as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)
            written = _write_shards(folder, tensors, chosen, on_bytes)
            _sync(folder)
            total = sum(path.stat().st_size for path in folder.iterdir())
        return Exported(target, chosen, len(tensors), total, (*files, *written))
    finally:
        source.close()


def _plan(file: GGUFFile, source: GGUFSource) -> tuple[dict[str, Any], list[_Tensor]]:
    """config.json, and the tensors under the checkpoint's names."""
    arch, typed = _architecture(file)
    assert arch.hf_config is not None
    values = arch.hf_config(file, typed)
    config, left = HFConfig(values, str(file.path)), {tensor.name: tensor for tensor in source.tensors}
    for extra in arch.extra_tensors(config):
        left.pop(extra, None)
    sizes, tensors = arch.sizes(config), []
    for rule, layer in expand(arch.rules, typed.n_layers):
        if rule.switch and not values.get(rule.switch):
            continue
        gguf = rule.gguf.replace("{i}", str(layer))
        tensor = left.pop(gguf, None)
        if tensor is None and rule.tied:
            continue
        shape = tuple(sizes[size] for size in rule.shape)
        if tensor is None or tensor.shape != shape:
            found = "missing" if tensor is None else f"of shape {list(tensor.shape)}"
            raise ModelError(f"{file.path}: tensor {gguf} is {found}, expected {list(shape)}")
        if BLOCKS[tensor.dtype].decode is None:
            raise ModelError(f"{file.path}: tensor {gguf} is {tensor.dtype}, which ggpy cannot decode")
        order = None if rule.row_order is None else np.argsort(rule.row_order(config, shape[0]))
        names = names_of(rule, layer, typed.n_experts)
        own = stored_shape(rule, shape)
        tensors += [_Tensor(name, tensor, own, order, rule.plus, i * tensor.rows // len(names)) for i, name in enumerate(names)]
    if left:
        names = ", ".join(printable(name, 64) for name in list(left)[:5])
        raise ModelError(f"{file.path}: {len(left)} tensors have no place in a {values['architectures'][0]}: {names}")
    return values, tensors


def _architecture(file: GGUFFile) -> tuple[Architecture, Config]:
    """Of those whose files bear this name, the one that has experts if the file has them; and what it reads of the file."""
    name = file.metadata.string("general.architecture")
    if name not in ARCHS:
        known = ", ".join(name for name, arch in ARCHS.items() if arch.hf_config)
        raise ModelError(
            f"{file.path}: general.architecture is '{printable(name, 40)}', of which no checkpoint can be written; known are {known}"
        )
    typed = ARCHS[name].config(file)
    for arch in HF_CLASSES.values():
        if arch.name == name and any("{e}" in rule.hf for rule in arch.rules) == bool(typed.n_experts):
            return arch, typed
    raise ModelError(f"{file.path}: {name}.expert_count is {typed.n_experts}, of which no checkpoint can be written")


def _own_dtype(tensors: list[_Tensor]) -> str:
    """The floating-point format of most matrix values, F16 where they are quantized: it keeps three more bits of a product than BF16."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        if len(tensor.source.shape) > 1:
            counts[tensor.source.dtype] = counts.get(tensor.source.dtype, 0) + tensor.n_values
    most = max(counts, key=lambda name: counts[name], default="F32")
    return most if most in FLOATS else "F16"


def _token_ids(file: GGUFFile) -> dict[str, int]:
    ids = {role: file.metadata.integer(f"tokenizer.ggml.{key}", None) for role, key in _ID_KEYS.items()}
    return {f"{role}_token_id": i for role, i in ids.items() if i is not None}


_ID_KEYS = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "padding_token_id"}


def _generation(file: GGUFFile) -> dict[str, Any]:
    """The ids that end a text, all of them, and the sampling that the file recommends."""
    from ggpy.tokenizer import load_tokenizer

    values: dict[str, Any] = _token_ids(file)
    ends = sorted(load_tokenizer(file.metadata).end_ids)
    if ends:
        values["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    for key, name in _SAMPLING.items():
        value = file.metadata.get(f"general.sampling.{key}")
        if isinstance(value, int | float | np.integer | np.floating):
            values[name] = int(value) if key == "top_k" else float(str(np.float32(value)))
    if any(name in values for name in _SAMPLING.values()):
        values["do_sample"] = True
    return values


def _write_shards(folder: Path, tensors: list[_Tensor], dtype: str, on_bytes: OnBytes) -> list[str]:
    size = FLOATS[dtype].itemsize
    shards: list[list[_Tensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and size * (sum(t.n_values for t in shards[-1]) + tensor.n_values) > SHARD_BYTES:
            shards.append([])
        shards[-1].append(tensor)
    n = len(shards)
    names = ["model.safetensors"] if n == 1 else [f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)]
    total = size * sum(tensor.n_values for tensor in tensors)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise GGPyError(f"{printable(folder.parent)}: {total} bytes are needed, but the disk has {free} free")
    for name, shard in zip(names, shards, strict=True):
        with open(folder / name, "wb") as file:
            _write_shard(file.write, shard, dtype, lambda tensor, n_bytes: on_bytes(tensor, n_bytes, total))
    if n == 1:
        return names
    places = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / "model.safetensors.index.json").write_bytes(json_bytes(index))
    return [*names, "model.safetensors.index.json"]


def _write_shard(write: Callable[[Any], object], tensors: list[_Tensor], dtype: str, on_bytes: Callable[[str, int], None]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        n_bytes = tensor.n_values * FLOATS[dtype].itemsize
        header[tensor.name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        for data in _encoded(tensor, dtype):
            write(data.data)
            on_bytes(tensor.name, data.nbytes)


def _encoded(tensor: _Tensor, dtype: str) -> Iterator[np.ndarray]:
    """The tensor's bytes in the order of the checkpoint, a piece at a time."""
    source, read = tensor.source, tensor.source.open()
    is_vector = len(source.shape) == 1
    if tensor.order is not None and not is_vector:
        read = reordered(read, tensor.order)
    step = max(1, CHUNK_VALUES // max(1, source.columns))
    last = tensor.first + tensor.n_values // source.columns
    for start in range(tensor.first, last, step):
        values = read(start, min(start + step, last))
        if tensor.order is not None and is_vector:
            values = np.ascontiguousarray(values[:, tensor.order])
        if tensor.less:
            values = widened(values) - np.float32(tensor.less)
        try:
            encoded = encode_measured(values, BLOCKS[dtype])
        except ValueError as error:
            raise CheckpointError(f"tensor {printable(source.name)}: {error}, expected finite weights: damaged?") from None
        if dtype == "F16" and encoded.peak >= 65520:
            raise GGPyError(
                f"tensor {printable(source.name)} holds values up to {encoded.peak:g}, which overflow f16; expected dtype bf16 or f32"
            )
        yield encoded.blocks


def _refuse_target(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise GGPyError(f"{printable(target)}: exists already; name another output directory")


@contextlib.contextmanager
def _directory(target: Path) -> Iterator[Path]:
    """A new directory beside `target` that takes its name when the block ends well, and goes when it does not."""
    folder = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir()
        yield folder
        if target.is_dir():
            target.rmdir()  # empty, or this fails
        folder.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise GGPyError(f"{printable(target)}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    sync_directory(folder)
