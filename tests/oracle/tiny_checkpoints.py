"""Tiny random checkpoints that transformers makes: one of each architecture, with the tokenizer of the demo model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import ggpy

DEMO = Path(ggpy.__file__).parent / "demo"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def write_checkpoint(folder: Path, kind: str, learned: Sequence[int] = (), **changes: Any) -> Path:
    """A checkpoint of transformers' `{kind}Config` and `{kind}ForCausalLM`; random biases and norms, too. Skips without the library.

    learned: token ids that the model is taught to write one by one, each far likelier than any other.
    """
    torch, transformers = (
        pytest.importorskip(name, reason=f"{name} is not installed (pip install -e '.[oracle]')") for name in ("torch", "transformers")
    )
    vocabulary = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = getattr(transformers, f"{kind}Config")(**{"vocab_size": vocabulary, **SIZES, **changes})
    torch.manual_seed(7)
    of_embeddings = 0.06 if learned else 1.0  # what a tied head begins with should prefer nothing
    model = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim == 1:
                values.add_(0.2 * torch.randn_like(values))
            else:
                values.copy_(torch.randn_like(values) * (of_embeddings if "embed" in name else 1.5 / values.shape[-1] ** 0.5))
    if learned:
        _learn(torch, model, learned)
    model.save_pretrained(folder, safe_serialization=True)
    for name in TOKENIZER_FILES:
        if (DEMO / name).exists():
            shutil.copy(DEMO / name, folder / name)
    return folder


def _learn(torch: Any, model: Any, ids: Sequence[int], lead: float = 4.0, steps: int = 200) -> None:
    """Train until each id is the likeliest behind those before it, by `lead` in log-probability; some twenty steps."""
    tokens = torch.tensor([ids])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        logits, wanted = model(tokens).logits[0, :-1], tokens[0, 1:]
        others = logits.detach().scatter(1, wanted[:, None], -torch.inf).max(1).values
        if (logits.detach().gather(1, wanted[:, None])[:, 0] - others).min() > lead:
            return
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, wanted).backward()
        optimizer.step()
    raise AssertionError(f"{type(model).__name__} has not learned {len(ids)} tokens in {steps} steps")
