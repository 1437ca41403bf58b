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
    model, theirs = ggpy.load(gguf, context=128), transformers.AutoTokenizer.from_pretrained(exported)
    for text in proof_texts() if same_tokens else ():
        assert theirs(text).input_ids == model.tokenizer.encode(text, add_special=True, parse_special=True), text
    ids = model.tokenize(TEXT, bos=model.tokenizer.add_bos)
    ours, logits = model.logits(ids), transformers_logits(exported, ids)
    assert np.abs(ours - logits).max() < 0.01 * logits.std()
    assert np.array_equal(logits, transformers_logits(checkpoint, ids))


def test_stories260k(shared: Path, tmp_path: Path):
    check(shared / "models" / "stories260K", tmp_path)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name.partition(",")[0] in ("llama", "qwen2", "qwen3")])
def test_tiny_checkpoints(name: str, tmp_path: Path):
    kind, changes = ARCHITECTURES[name]
    same_tokens = kind != "Qwen2"  # transformers takes any tokenizer of this kind for byte-level BPE, and the demo's is SentencePiece
    check(write_checkpoint(tmp_path / "checkpoint", kind, **changes), tmp_path, same_tokens=same_tokens)


@pytest.mark.real_model
@pytest.mark.slow
def test_smollm2(smollm2_checkpoint: Path, tmp_path: Path):
    check(smollm2_checkpoint, tmp_path)
