"""A small file that tests write in this process and in others: `python small_model.py PATH [again]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ggpy.blocks import BLOCKS
from ggpy.gguf import GGUFWriter, open_gguf

VALUES = np.arange(300, dtype=np.float32)
N_BYTES = 2592


def write(path: Path, force: bool = False) -> None:
    """Two tensors in chunks."""
    with GGUFWriter(path, force=force) as writer:
        writer.add("general.architecture", "llama")
        for name in ("a", "b"):
            writer.add_tensor(name, (3, 100), BLOCKS["F32"])
        for name in ("a", "b"):
            writer.write_tensor(name, (VALUES[i : i + 100] for i in range(0, 300, 100)))


def valid(path: Path) -> bool:
    """Whether the file is what `write` writes, whole."""
    with open_gguf(path) as file:
        values = [tensor.dequantize().reshape(-1) for tensor in file.tensors.values()]
    return list(file.tensors) == ["a", "b"] and all(np.array_equal(got, VALUES) for got in values) and file.file_size == N_BYTES


if __name__ == "__main__":
    print("ready", flush=True)
    write(Path(sys.argv[1]))
    while len(sys.argv) > 2:
        write(Path(sys.argv[1]), force=True)
