"""Try every causal class of transformers under ggpy's recognition: which are taken for a known architecture, and do they compute the same?

    python tools/compare_classes.py [--only SeedOssForCausalLM,…] [--neutral]

Of each class whose small model can be built a random checkpoint is made, with its own defaults or, with --neutral, with wide heads, biases
and what leaves a Llama's graph as it is. Recognised ones are converted to F32 and run; their logits are compared with transformers'.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import ggpy
from ggpy.arch import HF_CLASSES
from ggpy.errors import GGPyError

DEMO = Path(ggpy.__file__).parent / "demo"
MOST_WEIGHTS = 50_000_000
SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
NEUTRAL: dict[str, Any] = {
    "head_dim": 16, "attention_bias": True, "use_qk_norm": True, "norm_topk_prob": True, "layer_types": ["full_attention"] * 2,
    "attention_multiplier": 0.25, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip


def classes() -> list[str]:
    """Causal classes that ggpy does not know by name."""
    listed = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    names = {name for entry in listed for name in ([entry] if isinstance(entry, str) else entry)}
    return sorted(name for name in names if name.endswith("ForCausalLM") and name not in HF_CLASSES)


def write_model(folder: Path, name: str, wanted: dict[str, Any]) -> None:
    """A small random checkpoint, with the demo model's tokenizer; raises whatever the class does that cannot be made so."""
    kind = getattr(transformers, name)
    known = set(inspect.signature(kind.config_class.__init__).parameters) | set(getattr(kind.config_class, "__dataclass_fields__", {}))
    vocabulary = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    values = {key: copy.deepcopy(value) for key, value in {"vocab_size": vocabulary, **wanted}.items() if key in known}
    config = kind.config_class(**values)
    with torch.device("meta"):
        if sum(values.numel() for values in kind(config).parameters()) > MOST_WEIGHTS:
            raise ValueError("too large")
    torch.manual_seed(7)
    model = kind(config)
    with torch.no_grad():
        for part, values in model.named_parameters():
            if values.ndim == 1:
                values.add_(0.2 * torch.randn_like(values))
            else:
                values.copy_(torch.randn_like(values) * (1.0 if "embed" in part else 1.5 / values.shape[-1] ** 0.5))
    model.save_pretrained(folder)
    for file in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(DEMO / file, folder / file)


def difference(folder: Path, name: str) -> str:
    """How far ggpy's logits are from transformers', in standard deviations of these."""
    report = ggpy.convert(folder, folder / "model.gguf", type="f32")
    model = ggpy.load(report.path, context=64)
    ids = [1, *map(int, np.random.default_rng(0).integers(3, model.tokenizer.n_vocab, 40))]
    theirs = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        wanted = theirs(torch.tensor([ids])).logits[0].numpy()
    found = model.logits(ids)
    agreed = (found.argmax(-1) == wanted.argmax(-1)).mean()
    return f"{np.abs(found - wanted).max() / wanted.std():.2g} of their spread at most, {agreed:.0%} of the likeliest tokens"


def tried(folder: Path, name: str, wanted: dict[str, Any]) -> tuple[str, str]:
    """(how it went in a word, more)."""
    for sizes in (wanted | EXPERTS, wanted):
        try:
            write_model(folder, name, sizes)
            break
        except Exception as error:  # a class may ask for anything
            fault = f"{type(error).__name__}: {error}".splitlines()[0]
            shutil.rmtree(folder, ignore_errors=True)
    else:
        return "not built", fault
    try:
        return "taken", difference(folder, name)
    except GGPyError as error:
        return "refused", str(error).partition("nearest is ")[2] or str(error).rpartition(", ")[2]
    except Exception as error:  # as may its forward pass
        return "not run", f"{type(error).__name__}: {error}".splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of classes, separated by commas")
    parser.add_argument("--neutral", action="store_true", help="with wide heads, biases, and settings that leave the graph as it is")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    counts: dict[str, int] = {}
    for name in args.only.split(",") if args.only else classes():
        with tempfile.TemporaryDirectory() as folder:
            how, more = tried(Path(folder) / "model", name, SMALL | (NEUTRAL if args.neutral else {}))
        counts[how] = counts.get(how, 0) + 1
        print(f"{name}: {how}, {more[:300]}", flush=True)
    print(", ".join(f"{how} {n}" for how, n in counts.items()))


if __name__ == "__main__":
    main()
