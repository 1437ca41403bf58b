"""A GGUF file cut into the parts of a split model, whole or with faults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ggpy.gguf import GGUFWriter, ValueType, open_gguf
from ggpy.gguf.split import part_path


def split_file(
    source: Path, folder: Path, count: int, changes: Mapping[int, Mapping[str, Any]] | None = None, repeat: str | None = None
) -> list[Path]:
    """`source` in `count` parts in `folder`, tensors dealt out in runs as llama-gguf-split does, the paths in order.

    changes: metadata of a part by its index (None leaves a key out). repeat: a tensor of the first part that the last has as well.
    """
    paths = [folder / part_path(source.stem, i, count) for i in range(count)]
    with open_gguf(source) as file:
        names = list(file.tensors)
        for i, path in enumerate(paths):
            mine = names[i * len(names) // count : (i + 1) * len(names) // count]
            if repeat and i == count - 1:
                mine = [*mine, repeat]
            values = {"split.no": i, "split.count": count, "split.tensors.count": len(names)} | dict((changes or {}).get(i, {}))
            with GGUFWriter(path) as writer:
                for key in file.metadata if i == 0 else ():
                    if key not in values:
                        writer.copy(file.metadata, key)
                for key, value in values.items():
                    if value is not None:
                        kind = {"split.no": ValueType.UINT16, "split.count": ValueType.UINT16, "split.tensors.count": ValueType.INT32}
                        writer.add(key, value, kind.get(key))
                for name in mine:
                    writer.add_tensor(name, file.tensors[name].shape, file.tensors[name].format)
                for name in mine:
                    writer.write_tensor(name, file.tensors[name].data)
    return paths
