"""The most memory that a conversion takes, against the bound that is promised: twice the largest tensor and 200 MB.

    python tools/make_checkpoint.py 7b DIRECTORY --holes
    python tools/measure_convert_memory.py DIRECTORY --types q8_0,q4_k_m [--threads 2] [--scratch DIR]

Counted is all that was ever resident (ru_maxrss of the process): Python, NumPy, the vocabulary, compiled encoders, buffers. The largest
tensor counts as the checkpoint stores it. Encoders are compiled beforehand. The file is written to --scratch (default: beside DIRECTORY)
and removed. Exit code 1 where the bound is exceeded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compare_convert import measured
from comparison import ggpy_command, ggpy_environment, markdown

from ggpy.blocks import BLOCKS
from ggpy.converter.pipeline import open_source
from ggpy.errors import GGPyError

BESIDE = 200 * 10**6


def bound(largest: int) -> int:
    """Bytes that a conversion may take whose largest tensor has so many."""
    return 2 * largest + BESIDE


def largest_tensor(path: Path) -> int:
    """Bytes of a model's largest tensor as it is stored."""
    source = open_source(path)
    try:
        return max(
            tensor.rows * (BLOCKS[tensor.dtype].row_bytes(tensor.columns) if tensor.dtype in BLOCKS else 4 * tensor.columns)
            for tensor in source.tensors
        )
    finally:
        source.close()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="DIRECTORY", help="or a GGUF file")
    parser.add_argument("--types", default="q8_0,q4_k_m", help="as ggpy-convert's -t (default: q8_0,q4_k_m)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where files are written and removed (default: beside DIRECTORY)")
    parser.add_argument("--ggpy-args", type=str.split, default=[], metavar="ARGS", help="passed on to ggpy-convert")
    args = parser.parse_args(argv)
    try:
        largest = largest_tensor(args.checkpoint)
    except GGPyError as error:
        parser.error(str(error))
    rows, exceeded = [], False
    with tempfile.TemporaryDirectory(dir=args.scratch or args.checkpoint.resolve().parent) as folder:
        small = Path(folder) / "small"
        for type in args.types.split(","):
            out = Path(folder) / "out.gguf"
            compile_encoders(small, out, type)
            command = ggpy_command("convert", args.checkpoint, "-o", out, "-t", type, "--threads", args.threads, "--force", *args.ggpy_args)
            cost = measured(command, ggpy_environment())
            exceeded |= cost.memory > bound(largest)
            rows.append([type, *(f"{n / 1e6:.0f}" for n in (cost.memory, largest, bound(largest))), f"{cost.wall:.1f}"])
    print(markdown(["type", "peak, MB", "largest tensor, MB", "bound, MB", "wall, s"], rows))
    return 1 if exceeded else 0


def compile_encoders(checkpoint: Path, out: Path, type: str) -> None:
    """Convert a checkpoint of one layer: on a fresh machine the encoders would be compiled while memory is measured."""
    import make_checkpoint
    from make_synthetic import Shape

    if not checkpoint.exists():
        make_checkpoint.write(Shape(8, 256, 512, 4, 2, 320, 10000.0, 128, tied=False), checkpoint)
    measured(ggpy_command("convert", checkpoint, "-o", out, "-t", type, "--force"), ggpy_environment())


if __name__ == "__main__":
    sys.exit(main())
