"""Record which tensor types llama-quantize chooses, for tests/converter/llama_quantize_types.json.

    python tools/record_quantize_types.py path/to/llama-quantize [--bytes]

Models of several shapes are made, random and small, and llama-quantize is asked for every recipe, without and with an importance matrix,
and with choices beside the recipe. What is recorded: for each kind of tensor its types, layer by layer, as [type, how many layers in a row]
pairs. With --bytes the models are converted by both; compare_bytes.py does that for models of one's own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from compare_bytes import differences, llama_quantize

from ggpy.blocks import BLOCKS
from ggpy.converter import convert
from ggpy.converter.imatrix import Collected, ImportanceMatrix, write_imatrix
from ggpy.converter.recipes import RECIPES
from ggpy.gguf import GGUFWriter

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
    "two heads share": PLAIN | {"layers": 9, "kv_heads": 4, "d_ff": 256},
}
# [   2/  12]   blk.0.attn_k.weight  - [ 256,  64, 1, 1], type =    f32, size =  0.06 MiB ->  0.01 MiB (q4_K)
_SAID = re.compile(r"\[ *\d+/ *\d+\] +(\S+) +- \[.*?\], type = +(\w+), size = [^\[]*?MiB(?: -> +[\d.]+ MiB \((\w+)\))?\n")
OPTIONS = {
    "overrides": "--tensor-type",
    "output_type": "--output-tensor-type",
    "embedding_type": "--token-embedding-type",
    "keep_output": "--leave-output-tensor",
    "pure": "--pure",
}
CHOICES: list[tuple[str, dict[str, Any], bool]] = [
    ("Q4_K_M", {"pure": True}, False),
    ("MXFP4_MOE", {"pure": True}, False),
    ("Q4_K_M", {"keep_output": True}, False),
    ("Q4_K_M", {"output_type": "q8_0"}, False),
    ("Q4_K_M", {"embedding_type": "q6_K"}, False),
    ("Q4_K_M", {"embedding_type": "q8_0", "output_type": "q5_0"}, True),
    ("Q4_0", {"pure": True, "output_type": "f16"}, True),
    ("F16", {"embedding_type": "q8_0"}, False),
    ("Q4_K_M", {"overrides": {"attn_v": "q8_0"}}, False),
    ("Q5_K_M", {"overrides": {r"blk\\.(0|2)\\.ffn_down": "q4_0", "ffn_.*": "q5_1", "token_embd": "q6_k"}}, False),
    ("Q3_K_M", {"overrides": {"attn_v": "q2_k"}, "pure": True}, True),
    ("Q4_K_S", {"overrides": {r"blk\\.[0-3]\\.attn_v": "bf16"}}, False),
    ("Q2_K_S", {"overrides": {"attn_(q|k)": "q4_k"}, "embedding_type": "q4_k"}, True),
    ("Q2_K", {"overrides": {"OUTPUT": "f32"}}, True),
]


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


def types_by_kind(types: dict[str, str]) -> dict[str, list[tuple[str, int]]]:
    """kind -> its types in the order of the layers, run-length coded."""
    kinds: dict[str, dict[int, str]] = {}
    for name, format in types.items():
        layer = re.match(r"blk\.(\d+)\.", name)
        kinds.setdefault(re.sub(r"^blk\.\d+", "blk", name), {})[int(layer[1]) if layer else 0] = format
    in_order = {kind: [found[layer] for layer in sorted(found)] for kind, found in sorted(kinds.items())}
    return {kind: [(name, len(list(run))) for name, run in itertools.groupby(found)] for kind, found in in_order.items()}


def write_importance(path: Path, model: dict[str, int]) -> None:
    """A random importance matrix of every matrix but the embedding, of each expert by itself."""
    rng = np.random.default_rng(1)
    entries = {}
    for name, shape in shapes(**model).items():  # pyright: ignore[reportArgumentType]
        if len(shape) > 1 and name != "token_embd.weight" and "ffn_gate_inp" not in name:
            matrices = shape[0] if len(shape) == 3 else 1
            sums = rng.gamma(0.5, 100, (matrices, shape[-1])).astype(np.float32)
            entries[name] = Collected(sums, rng.integers(1, 1000, matrices))
    write_imatrix(ImportanceMatrix(entries, ("random.txt",), 2, 512), path, force=True)


def record(quantize: Path, folder: Path, with_bytes: bool) -> dict[str, object]:
    found = {}
    for label, model in MODELS.items():
        both = _Both(quantize, folder, with_bytes)
        write_model(both.source, model)
        write_importance(both.imatrix, model)
        types = {name: both.types(name) for name, recipe in RECIPES.items() if not recipe.needs_importance}
        weighted = {name: both.types(name, weighted=True) for name in RECIPES}
        changed = {name: kinds for name, kinds in weighted.items() if kinds != types.get(name)}
        chosen = []
        for recipe, choices, weight in CHOICES if label in ("plain", "tied", "8 experts") else ():
            chosen.append({"recipe": recipe, "choices": choices, "weighted": weight, "types": both.types(recipe, choices, weight)})
        equal = ", every block is equal to llama-quantize's" if with_bytes else ""
        print(f"{label}: {len(types) + len(weighted) + len(chosen)} files{equal}", flush=True)
        found[label] = {"model": model, "types": types, "weighted": changed, "chosen": chosen}
    return found


class _Both:
    """Both programs at work on one model; ggpy where bytes are to be compared."""

    def __init__(self, quantize: Path, folder: Path, with_bytes: bool):
        self._quantize, self._folder, self._with_bytes = quantize, folder, with_bytes
        self.source, self.imatrix = folder / "source.gguf", folder / "imatrix.gguf"

    def types(self, recipe: str, choices: dict[str, Any] | None = None, weighted: bool = False) -> dict[str, list[tuple[str, int]]]:
        """What llama-quantize chooses."""
        choices = choices or {}
        options = ["--imatrix", str(self.imatrix)] if weighted else []
        for name, value in choices.items():
            for words in value.items() if name == "overrides" else [(value,)]:
                options += [OPTIONS[name], *(["=".join(words)] if value is not True else [])]
        if self._with_bytes:
            ours, theirs = self._folder / "ours.gguf", self._folder / "theirs.gguf"
            llama_quantize(self._quantize, self.source, theirs, recipe, options)
            convert(self.source, ours, recipe, imatrix=self.imatrix if weighted else None, verify="bytes", force=True, **choices)
            if found := differences(ours, theirs):
                sys.exit(f"{recipe} {choices}: {'; '.join(map(str, found[:5]))}")
        said = llama_quantize(self._quantize, self.source, None, recipe, options)
        return types_by_kind({name: (new or old).upper() for name, old, new in _SAID.findall(said)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quantize", type=Path, help="the llama-quantize program")
    parser.add_argument("--bytes", action="store_true", help="convert by both programs, and stop where a block differs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = record(args.quantize, Path(folder), args.bytes)
    lines = ",\n".join(f"{json.dumps(label)}: {json.dumps(entry, separators=(',', ':'))}" for label, entry in found.items())
    OUTPUT.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
