"""A Hugging Face directory: config.json and the tensors of its safetensors shards, each found once and read where it lies."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.files import read_json
from ggpy.converter.safetensors import SafetensorsFile, StoredTensor
from ggpy.errors import CheckpointError, printable

MAX_CONFIG_BYTES = 1 << 20
MAX_INDEX_BYTES = 64 << 20
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json")


class Checkpoint:
    """An open checkpoint directory; a context manager.

    path: the directory. config: its config.json. tensors: name -> StoredTensor over all shards. Nothing but JSON and safetensors is
    read: pickles are refused, code that the directory brings along is never imported. Raises CheckpointError.
    """

    def __init__(self, path: Path):
        self.path = path
        if not path.is_dir():
            raise CheckpointError(f"{path}: no such directory")
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path}: no config.json, expected a Hugging Face checkpoint directory{_subfolder_hint(path)}")
        self.config = HFConfig(read_json(path / "config.json", MAX_CONFIG_BYTES), str(path / "config.json"))
        self._files: list[SafetensorsFile] = []
        try:
            self.tensors = self._open_shards()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files.clear()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open_shards(self) -> dict[str, StoredTensor]:
        if (self.path / _SINGLE).exists():
            return dict(self._open(_SINGLE).tensors)
        if not (self.path / _INDEX).exists():
            raise _no_weights(self.path)
        index = HFConfig(read_json(self.path / _INDEX, MAX_INDEX_BYTES), str(self.path / _INDEX))
        places = index.section("weight_map")
        tensors: dict[str, StoredTensor] = {}
        for shard in sorted({self._shard_name(places, name) for name in places}):
            for name, tensor in self._open(shard).tensors.items():
                if places.get(name) != shard:
                    place = f"in {printable(places[name])}" if name in places else "nowhere"
                    raise CheckpointError(f"{self.path / shard}: holds {printable(name)}, which {_INDEX} places {place}")
                tensors[name] = tensor
        for name in places:
            if name not in tensors:
                raise CheckpointError(f"{self.path / places[name]}: lacks {printable(name)}, which {_INDEX} places in it")
        return tensors

    def _shard_name(self, places: HFConfig, name: str) -> str:
        shard = places[name]
        if (
            type(shard) is not str
            or not shard.endswith(".safetensors")
            or any(c in "/\\:\0" or ord(c) < 32 for c in shard)
            or shard.startswith(".")
        ):
            raise places.refuse(name, "the plain name of a .safetensors file in the same directory")
        return shard

    def _open(self, shard: str) -> SafetensorsFile:
        file = SafetensorsFile(self.path / shard)
        self._files.append(file)
        return file


def _no_weights(path: Path) -> CheckpointError:
    shards = sorted(p.name for p in path.glob("*.safetensors"))
    pickles = sorted(p.name for pattern in _PICKLES for p in path.glob(pattern))
    if any(name.startswith("adapter_model") for name in shards):
        return CheckpointError(f"{path}: holds a LoRA adapter, not a model; merge it into its base model first")
    if shards:
        return CheckpointError(f"{path}: neither {_SINGLE} nor {_INDEX} beside {printable(shards[0])}; download the index too")
    if pickles:
        return CheckpointError(
            f"{path}: the weights are pickled ({printable(pickles[0])}); loading a pickle can run code, so it is never read. Use the "
            "repository's safetensors revision, or load it with transformers and call save_pretrained(..., safe_serialization=True)"
        )
    return CheckpointError(f"{path}: no weights, expected {_SINGLE} or {_INDEX} with its shards")


def _subfolder_hint(path: Path) -> str:
    found = sorted(p.parent.name for p in path.glob("*/config.json"))
    return f" (there is one in {printable(found[0])}/)" if found else ""
