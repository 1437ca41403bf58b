"""Convert a GGUF file with ggpy and with llama-quantize, and list the blocks in which the two differ.

    python tools/compare_bytes.py MODEL-F16.gguf path/to/llama-quantize [TYPE ...] [--imatrix FILE]

Without a TYPE every recipe is compared, one after the other. Exit code 1 where a tensor has another type or one block differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggpy.converter import convert
from ggpy.converter.recipes import RECIPES
from ggpy.gguf import open_gguf

_CHUNK_ROWS = 1 << 12


@dataclass(frozen=True)
class Difference:
    """Of one tensor: its formats in both files, and how many of its blocks differ, of how many; first: the first of them."""

    name: str
    ours: str
    theirs: str
    n_different: int = 0
    n_blocks: int = 0
    first: int = 0

    def __str__(self) -> str:
        if self.ours != self.theirs:
            return f"{self.name}: {self.ours}, llama-quantize has {self.theirs}"
        return f"{self.name}: {self.n_different} of {self.n_blocks} {self.ours} blocks differ, the first is block {self.first}"


def differences(ours: Path, theirs: Path) -> list[Difference]:
    """Tensors in which two files differ, in type, presence, or bytes."""
    found = []
    with open_gguf(ours) as a, open_gguf(theirs) as b:
        for name in a.tensors.keys() | b.tensors.keys():
            one, other = a.tensors.get(name), b.tensors.get(name)
            if one is None or other is None or one.format != other.format or one.shape != other.shape:
                found.append(Difference(name, one.format.name if one else "absent", other.format.name if other else "absent"))
                continue
            different, first = 0, 0
            for start in range(0, len(one.data), _CHUNK_ROWS):
                pair = (t.data[start : start + _CHUNK_ROWS].reshape(-1, t.format.block_bytes) for t in (one, other))
                wrong = np.flatnonzero(np.not_equal(*pair).any(axis=1))
                if len(wrong) and not different:
                    first = start * (one.shape[-1] // one.format.block_values) + int(wrong[0])
                different += len(wrong)
            if different:
                name_, n_blocks = one.format.name, one.n_values // one.format.block_values
                found.append(Difference(name, name_, name_, different, n_blocks, first))
    return sorted(found, key=lambda difference: difference.name)


def llama_quantize(program: Path, source: Path, out: Path | None, recipe: str, options: Sequence[str] = (), threads: int = 1) -> str:
    """Run llama-quantize, without `out` only to be told what it would do; returns what it says. Its last lines are the error."""
    words = [
        "--allow-requantize",
        *([] if out else ["--dry-run"]),
        *options,
        str(source),
        *([str(out)] if out else []),
        recipe,
        str(threads),
    ]
    done = subprocess.run([program, *words], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        sys.exit(f"llama-quantize {recipe} failed: " + " / ".join(done.stdout.strip().splitlines()[-3:]))
    return done.stdout


def compare(program: Path, source: Path, folder: Path, recipe: str, imatrix: Path | None, threads: int) -> list[Difference]:
    """Both conversions of one recipe, in `folder`, where nothing is left of them."""
    ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
    try:
        llama_quantize(program, source, theirs, recipe, ["--imatrix", str(imatrix)] if imatrix else [], threads)
        convert(source, ours, recipe, imatrix=imatrix, threads=threads, verify="bytes", force=True)
        return differences(ours, theirs)
    finally:
        ours.unlink(missing_ok=True)
        theirs.unlink(missing_ok=True)


def say(recipe: str, found: Sequence[Difference], sizes: Mapping[str, int]) -> None:
    """One line for a recipe, and one for each tensor that differs."""
    print(f"{recipe}: {'equal' if not found else f'{len(found)} of {len(sizes)} tensors differ'}", flush=True)
    for difference in found:
        print(f"  {difference}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file of floats")
    parser.add_argument("quantize", type=Path, help="the llama-quantize program")
    parser.add_argument("types", nargs="*", metavar="TYPE", help="recipes (default: all)")
    parser.add_argument("--imatrix", type=Path, metavar="FILE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the files go, two at a time (default: the system's temporary directory)")
    args = parser.parse_args()
    with open_gguf(args.model) as file:
        sizes = {name: tensor.n_values for name, tensor in file.tensors.items()}
    types = args.types or [name for name, recipe in RECIPES.items() if args.imatrix or not recipe.needs_importance]
    failed = False
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for recipe in types:
            found = compare(args.quantize, args.model, Path(folder), recipe, args.imatrix, args.threads)
            say(recipe, found, sizes)
            failed |= bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    main()
