"""Record which tensor types llama-quantize chooses, for tests/converter/llama_quantize_types.json.

    python tools/record_quantize_types.py path/to/llama-quantize

Models of several shapes are made, random and small, and quantized with every recipe by both; the tool stops where one byte of any tensor
differs. What is recorded: for each kind of tensor its types, layer by layer, as [type, how many layers in a row] pairs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ggpy.blocks import BLOCKS
from ggpy.converter import convert
from ggpy.converter.recipes import RECIPES
from ggpy.gguf import GGUFFile, GGUFWriter, open_gguf

OUTPUT = Path(__file__).parents[1] / "tests" / "converter" / "llama_quantize_types.json"

PLAIN = {"layers": 24, "d_model": 256, "d_ff": 768, "heads": 8, "kv_heads": 2, "tied": False, "experts": 0}
MODELS = {
    "plain": PLAIN,
    "tied": PLAIN | {"layers": 16, "tied": True},
    "rows of 64 and 172": PLAIN | {"layers": 5, "d_model": 64, "d_ff": 172, "kv_heads": 4},
    "rows of 96 and 160, tied": PLAIN | {"layers": 9, "d_model": 96, "d_ff": 160, "heads": 3, "kv_heads": 3, "tied": True},
    "80 layers, grouped heads": PLAIN | {"layers": 80, "d_ff": 256, "kv_heads": 1},
    "80 layers, own heads": PLAIN | {"layers": 80, "d_ff": 256, "kv_heads": 8},
    "8 experts": PLAIN | {"layers": 8, "d_ff": 256, "experts": 8},
    "4 experts": PLAIN | {"layers": 16, "d_ff": 256, "experts": 4},
    "one layer": PLAIN | {"layers": 1},
    "7 layers": PLAIN | {"layers": 7},
}


def shapes(layers: int, d_model: int, d_ff: int, heads: int, kv_heads: int, tied: bool, experts: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a llama model."""
    d_kv = d_model // heads * kv_heads
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (512, d_model), "output_norm.weight": (d_model,)}
    if not tied:
        found["output.weight"] = (512, d_model)
    feed_forward = {"ffn_gate": (d_ff, d_model), "ffn_up": (d_ff, d_model), "ffn_down": (d_model, d_ff)}
    if experts:
        feed_forward = {f"{name}_exps": (experts, *shape) for name, shape in feed_forward.items()} | {"ffn_gate_inp": (experts, d_model)}
    attention = {"attn_q": (d_model, d_model), "attn_k": (d_kv, d_model), "attn_v": (d_kv, d_model), "attn_output": (d_model, d_model)}
    layer = {**attention, **feed_forward, "attn_norm": (d_model,), "ffn_norm": (d_model,)}
    for i in range(layers):
        found |= {f"blk.{i}.{name}.weight": shape for name, shape in layer.items()}
    return found


def write_model(path: Path, model: dict[str, int]) -> None:
    """A random F32 model."""
    rng = np.random.default_rng(0)
    keys = {
        "block_count": model["layers"],
        "context_length": 128,
        "embedding_length": model["d_model"],
        "feed_forward_length": model["d_ff"],
        "attention.head_count": model["heads"],
        "attention.head_count_kv": model["kv_heads"],
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": 512,
        "rope.dimension_count": model["d_model"] // model["heads"],
    }
    if model["experts"]:
        keys |= {"expert_count": model["experts"], "expert_used_count": 2}
    with GGUFWriter(path, force=True) as writer:
        writer.add("general.architecture", "llama")
        for key, value in keys.items():
            writer.add(f"llama.{key}", value)
        tensors = shapes(**model)  # pyright: ignore[reportArgumentType]
        for name, shape in tensors.items():
            writer.add_tensor(name, shape, BLOCKS["F32"])
        for name, shape in tensors.items():
            writer.write_tensor(name, rng.standard_normal(shape, np.float32))


def types_by_kind(file: GGUFFile) -> dict[str, list[tuple[str, int]]]:
    """kind -> its types in the order of the layers, run-length coded."""
    kinds: dict[str, dict[int, str]] = {}
    for name, tensor in file.tensors.items():
        layer = re.match(r"blk\.(\d+)\.", name)
        kinds.setdefault(re.sub(r"^blk\.\d+", "blk", name), {})[int(layer[1]) if layer else 0] = tensor.format.name
    in_order = {kind: [types[layer] for layer in sorted(types)] for kind, types in sorted(kinds.items())}
    return {kind: [(name, len(list(run))) for name, run in itertools.groupby(types)] for kind, types in in_order.items()}


def record(quantize: Path, folder: Path) -> dict[str, object]:
    found = {}
    for label, model in MODELS.items():
        source, ours, theirs = folder / "source.gguf", folder / "ours.gguf", folder / "theirs.gguf"
        write_model(source, model)
        recipes = {}
        for recipe in RECIPES:
            subprocess.run([quantize, source, theirs, recipe, "2"], check=True, capture_output=True)
            convert(source, ours, recipe, force=True)
            with open_gguf(ours) as a, open_gguf(theirs) as b:
                differing = [
                    n for n, t in b.tensors.items() if a.tensors[n].format != t.format or not np.array_equal(a.tensors[n].data, t.data)
                ]
                if differing or len(a.tensors) != len(b.tensors):
                    sys.exit(f"{label}, {recipe}: differs in {', '.join(differing[:5])}")
                recipes[recipe] = types_by_kind(b)
        print(f"{label}: every tensor of {len(recipes)} files is equal to llama-quantize's")
        found[label] = {"model": model, "types": recipes}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quantize", type=Path, help="the llama-quantize program")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = record(args.quantize, Path(folder))
    lines = ",\n".join(f"{json.dumps(label)}: {json.dumps(entry, separators=(',', ':'))}" for label, entry in found.items())
    OUTPUT.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
