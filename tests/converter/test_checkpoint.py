"""Checkpoint directories: whole ones are read in every layout, damaged and hostile ones are refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggpy
from ggpy.converter import convert
from ggpy.converter.checkpoint import Checkpoint
from ggpy.errors import CheckpointError
from ggpy.gguf import open_gguf
from ggpy.runtime.encode import widened

from .checkpoints import CONFIG, random_weights, safetensors_bytes, stored, write_checkpoint

INDEX = "model.safetensors.index.json"


def read_all(path: Path) -> dict[str, np.ndarray]:
    with Checkpoint(path) as checkpoint:
        return {name: widened(t.read(0, t.rows)).reshape(t.shape) for name, t in checkpoint.tensors.items()}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_layout_is_read_exactly(tmp_path: Path, dtype: str, shards: int):
    weights = random_weights(CONFIG)
    found = read_all(write_checkpoint(tmp_path, weights=weights, dtype=dtype, shards=shards))
    assert found.keys() == weights.keys()
    for name, values in weights.items():
        expected = values.astype(np.float16).astype(np.float32) if dtype == "F16" else values
        if dtype == "BF16":
            expected = (values.view("<u4") & 0xFFFF0000).view("<f4")
        np.testing.assert_array_equal(found[name], expected)


def test_shards_may_be_links_into_a_cache(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "snapshot", shards=2)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for i, shard in enumerate(folder.glob("*.safetensors")):
        shard.rename(blobs / str(i))
        shard.symlink_to(blobs / str(i))
    assert read_all(folder).keys() == random_weights(CONFIG).keys()


def edit_json(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def place(name: str, shard: str) -> Callable[[Path], None]:
    """A fault: the index says that tensor `name` lies in `shard`."""
    return lambda folder: edit_json(folder / INDEX, lambda index: index["weight_map"].update({name: shard}))


def point_to_fifo(folder: Path) -> None:
    shard = folder / "model-00001-of-00002.safetensors"
    shard.unlink()
    os.mkfifo(shard)


def add_a_tensor_twice(folder: Path) -> None:
    """Both shards hold the norm, the index names one."""
    with Checkpoint(folder) as checkpoint:
        other = next(t.file.path for t in checkpoint.tensors.values() if t.file is not checkpoint.tensors["model.norm.weight"].file)
    other.write_bytes(safetensors_bytes({"model.norm.weight": stored(np.ones(64))}))


# what is wrong -> (how the directory of two shards becomes so, what the message says)
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "no config.json"),
    "config a directory": (lambda d: ((d / "config.json").unlink(), (d / "config.json").mkdir()), "no config.json"),
    "config no JSON": (lambda d: (d / "config.json").write_text("{'a': 1}", encoding="utf-8"), "not legal JSON"),
    "config a list": (lambda d: (d / "config.json").write_text("[]", encoding="utf-8"), "expected a JSON object"),
    "config too large": (lambda d: (d / "config.json").write_text(" " * (1 << 21), encoding="utf-8"), "more than the 1048576"),
    "config nested": (lambda d: (d / "config.json").write_text('{"a":' * 10**5 + "1" + "}" * 10**5, encoding="utf-8"), "nested too deeply"),
    "config NaN": (lambda d: (d / "config.json").write_text('{"rms_norm_eps": NaN}', encoding="utf-8"), "NaN"),
    "config key twice": (lambda d: (d / "config.json").write_text('{"a": 1, "a": 2}', encoding="utf-8"), "'a' twice"),
    "config no UTF-8": (lambda d: (d / "config.json").write_bytes(b'{"a": "\xff"}'), "not UTF-8"),
    "config an LFS pointer": (lambda d: (d / "config.json").write_bytes(b"version https://git-lfs.github.com/spec/v1"), "LFS"),
    "no index": (lambda d: (d / INDEX).unlink(), f"neither model.safetensors nor {INDEX}"),
    "index without map": (lambda d: (d / INDEX).write_text("{}", encoding="utf-8"), "embed_tokens"),
    "map no object": (lambda d: edit_json(d / INDEX, lambda index: index.update(weight_map=[1])), "weight_map"),
    "shard a number": (lambda d: edit_json(d / INDEX, lambda index: index["weight_map"].update({"model.norm.weight": 3})), "plain name"),
    "shard above": (place("model.norm.weight", "../secret.safetensors"), "plain name"),
    "shard absolute": (place("model.norm.weight", "/etc/secret.safetensors"), "plain name"),
    "shard with backslash": (place("model.norm.weight", "..\\secret.safetensors"), "plain name"),
    "shard on a drive": (place("model.norm.weight", "c:secret.safetensors"), "plain name"),
    "shard a URL": (place("model.norm.weight", "https://host/x.safetensors"), "plain name"),
    "shard with NUL": (place("model.norm.weight", "a\0.safetensors"), "plain name"),
    "shard a pickle": (place("model.norm.weight", "pytorch_model.bin"), "plain name"),
    "shard missing": (lambda d: (d / "model-00001-of-00002.safetensors").unlink(), "No such file"),
    "shard a FIFO": (point_to_fifo, "not a regular file"),
    "shard cut": (lambda d: os.truncate(d / "model-00002-of-00002.safetensors", 5000), "cut short"),
    "tensor in the other shard": (place("model.norm.weight", "model-00001-of-00002.safetensors"), "model.norm.weight"),
    "tensor that is not there": (place("model.extra.weight", "model-00001-of-00002.safetensors"), "model.extra.weight"),
    "tensor in two shards": (add_a_tensor_twice, "model.norm.weight"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_damaged_directories_are_refused_by_name(tmp_path: Path, fault: str):
    folder = write_checkpoint(tmp_path / "model", shards=2)
    (tmp_path / "secret.safetensors").write_bytes(safetensors_bytes({"model.norm.weight": stored(np.ones(64))}))
    spoil, message = BAD[fault]
    spoil(folder)
    with pytest.raises(CheckpointError) as caught:
        convert(folder, tmp_path / "out.gguf", "f16")
    assert message in str(caught.value) and str(folder) in str(caught.value)
    assert not list(tmp_path.glob("*.gguf*")) and not list(tmp_path.glob(".*"))


class Canary:
    def __reduce__(self):
        return (sys.exit, ("a pickle was loaded",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.safetensors"])
def test_pickles_are_never_loaded(tmp_path: Path, name: str):
    import pickle

    folder = write_checkpoint(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Canary()))
    with pytest.raises(CheckpointError, match="pickle"):
        Checkpoint(folder)


def test_code_of_the_checkpoint_is_never_imported(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "model", CONFIG | {"auto_map": {"AutoConfig": "configuration_x.Config"}})
    for name in ("configuration_x.py", "modeling_x.py", "json.py", "numpy.py"):
        (folder / name).write_text("raise SystemExit('imported')", encoding="utf-8")
    report = convert(folder, tmp_path / "out.gguf", "f16")
    assert any("auto_map" in line for line in report.warnings)
    assert str(folder) not in sys.path


def test_modules_in_the_checkpoint_shadow_none_even_from_within(tmp_path: Path):
    """`python -m` puts the current directory before everything else."""
    folder = write_checkpoint(tmp_path / "model")
    for name in ("json", "numpy", "struct", "zlib", "dataclasses", "rich", "tokenizers", "numba", "typing", "argparse"):
        (folder / f"{name}.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(ggpy.__file__).parents[1])}
    command = [sys.executable, "-m", "ggpy", "convert", ".", "-o", tmp_path / "out.gguf", "-t", "f16"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0 and "imported" not in done.stderr, done.stderr
    open_gguf(tmp_path / "out.gguf").close()


def test_a_directory_above_the_checkpoint_gets_a_hint(tmp_path: Path):
    write_checkpoint(tmp_path / "model")
    with pytest.raises(CheckpointError, match="there is one in model/"):
        Checkpoint(tmp_path)


def test_a_lora_adapter_is_named(tmp_path: Path):
    folder = write_checkpoint(tmp_path)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="LoRA"):
        Checkpoint(folder)


def test_a_real_pickle_checkpoint_is_refused_with_a_hint(shared: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="save_pretrained"):
        convert(shared / "models" / "stories260K-f32-ptbin", tmp_path / "out.gguf")
