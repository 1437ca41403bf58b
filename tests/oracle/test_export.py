"""An exported directory, loaded by transformers, has the file's logits and the file's token ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.converter.export import export
from ggpy.converter.vocabulary_proof import proof_texts

from .test_transformers import ARCHITECTURES, TEXT, transformers_logits
from .tiny_checkpoints import write_checkpoint

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # the peers' own deprecations


def check(checkpoint: Path, folder: Path, *, same_tokens: bool = True) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install -e '.[oracle]')")
    gguf = ggpy.convert(checkpoint, folder / "model.gguf", "f32").path
    exported = export(gguf, folder / "exported").path
    model, theirs = ggpy.load(gguf, context=64), transformers.AutoTokenizer.from_pretrained(exported)
    for text in proof_texts() if same_tokens else ():
        assert theirs(text).input_ids == model.tokenizer.encode(text, add_special=True, parse_special=True), text
    ids = model.tokenize(TEXT, bos=model.tokenizer.add_bos)
    ours, logits = model.logits(ids), transformers_logits(exported, ids)
    assert np.abs(ours - logits).max() < 0.01 * logits.std()
    # the order of sums may depend on where weights lie
    np.testing.assert_allclose(logits, transformers_logits(checkpoint, ids), rtol=0, atol=1e-4 * logits.std())


def test_stories260k(shared: Path, tmp_path: Path):
    check(shared / "models" / "stories260K", tmp_path)


EXPORTED = ("llama", "qwen2", "qwen3", "mixtral", "qwen2moe", "qwen3moe", "phi3", "gemma")


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n.partition(",")[0] in EXPORTED and "another name" not in n])
def test_tiny_checkpoints(name: str, tmp_path: Path):
    kind, changes = ARCHITECTURES[name]
    # transformers takes any tokenizer of this kind for byte-level BPE, and the demo's is SentencePiece
    same_tokens = kind not in ("Qwen2", "Qwen2Moe")
    check(write_checkpoint(tmp_path / "checkpoint", kind, **changes), tmp_path, same_tokens=same_tokens)


@pytest.mark.real_model
@pytest.mark.slow
def test_smollm2(smollm2_checkpoint: Path, tmp_path: Path):
    check(smollm2_checkpoint, tmp_path)
