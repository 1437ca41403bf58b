"""Hugging Face's convention gives the perplexity that the loop in transformers' own documentation gives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import ggpy
from ggpy.evaluate import HUGGING_FACE, evaluate

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # the peers' own deprecations


@pytest.mark.parametrize("stride", [16, 24, 48])
def test_a_sliding_window(shared: Path, tmp_path: Path, stride: int):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install -e '.[oracle]')")
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install -e '.[oracle]')")
    checkpoint = shared / "models" / "stories260K"
    text = (shared / "texts" / "tinystories-sample.txt").read_text(encoding="utf-8")[:1500].strip()
    with ggpy.load(ggpy.convert(checkpoint, tmp_path / "model.gguf", "f32").path, context=48) as model:
        found = evaluate(model, text, context=48, convention=HUGGING_FACE, stride=stride)
        ids = torch.tensor([model.tokenize(text, bos=True)])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    total, tokens, scored = 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride):
        end = min(begin + 48, ids.shape[1])
        labels = ids[:, begin:end].clone()
        labels[:, : scored - begin] = -100
        counted = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(theirs(ids[:, begin:end], labels=labels).loss) * counted if counted else 0.0
        tokens, scored = tokens + counted, end
        if end == ids.shape[1]:
            break
    assert found.scored == tokens
    assert found.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-3)
