"""Unigram models in a tokenizer.json: written as their tokenizer.model would be, or refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from ggpy.converter.vocabulary import read_vocabulary
from ggpy.converter.vocabulary_proof import proof_texts, prove_tokenizer
from ggpy.errors import CheckpointError
from ggpy.tokenizer import TokenType, load_tokenizer
from tests.converter.tokenizers_on_disk import rewritten_unigram, sentencepiece_model, write_tokenizer


def model_of(byte_fallback: bool = False, rule: str = "nmt_nfkc", merging: bool = True) -> bytes:
    size = 340 if byte_fallback else 90
    options = {"normalization_rule_name": rule, "remove_extra_whitespaces": merging, "byte_fallback": byte_fallback}
    return sentencepiece_model(size, model_type="unigram", **options)


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize(("rule", "merging"), [("nmt_nfkc", True), ("nmt_nfkc", False), ("identity", False)])
def test_it_becomes_what_tokenizer_model_becomes(tmp_path: Path, rule: str, merging: bool, byte_fallback: bool):
    model = model_of(byte_fallback, rule, merging)
    folder = write_tokenizer(tmp_path / "json", tokenizer_json=rewritten_unigram(model))
    ours = read_vocabulary(folder, {"eos_token_id": 2})
    expected = read_vocabulary(write_tokenizer(tmp_path / "model", tokenizer_model=model), {"eos_token_id": 2})
    assert ours.source == "tokenizer.json" and ours.metadata.keys() == expected.metadata.keys()
    normal = expected.metadata["tokenizer.ggml.token_type"] == TokenType.NORMAL
    for key, value in expected.metadata.items():
        chosen = normal if key.endswith(".scores") else ...  # nobody asks for the scores of control tokens
        assert np.array_equal(np.asarray(ours.metadata[key])[chosen], np.asarray(value)[chosen]), key
    assert any("llama.cpp reads the unknown token instead" in warning for warning in ours.warnings) is byte_fallback
    read, reference = load_tokenizer(ours.metadata), load_tokenizer(expected.metadata)
    assert all(read.encode(text) == reference.encode(text) for text in proof_texts())


@pytest.mark.parametrize("words", [False, True])
def test_ids_are_those_of_tokenizers(tmp_path: Path, words: bool):
    """But where its normalizer differs from sentencepiece's, which readers of GGUF follow: letters with marks, taken as one."""
    folder = write_tokenizer(tmp_path, tokenizer_json=rewritten_unigram(model_of(), words=words))
    proof = prove_tokenizer(read_vocabulary(folder, {"eos_token_id": 2}).metadata, folder)
    assert proof.n_texts > 300 and proof.n_different <= proof.n_texts // 50


def changed(part: str, value: Any) -> dict[str, Any]:
    found = json.loads(json.dumps(rewritten_unigram(model_of())))
    found["model" if part in found["model"] else "."] = found["model"] | {part: value}
    return found


def with_part(**parts: Any) -> dict[str, Any]:
    engine = Tokenizer.from_str(json.dumps(rewritten_unigram(model_of())))
    for name, part in parts.items():
        setattr(engine, name, part)
    return json.loads(engine.to_str())


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (
            lambda: with_part(normalizer=normalizers.Lowercase()),
            "normalizer 'Lowercase'; GGUF says of unigram models only Precompiled, Strip",
        ),
        (
            lambda: with_part(normalizer=normalizers.Replace("a", "b")),
            "normalizer Replace of {'String': 'a'}; GGUF knows that of spaces only",
        ),
        (lambda: with_part(pre_tokenizer=pre_tokenizers.Digits()), "pre_tokenizer 'Digits'; GGUF says of unigram models only Metaspace"),
        (lambda: changed("unk_id", None), "unk_id"),
    ],
)
def test_what_gguf_cannot_say_is_refused(tmp_path: Path, tokenizer: Any, message: str):
    with pytest.raises(CheckpointError) as refusal:
        read_vocabulary(write_tokenizer(tmp_path, tokenizer_json=tokenizer()), {})
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("vocab", [[], [["a"]], [["a", "b"]], [["", 0.0]], [["a", True]], [["a", 1e300]], {"a": 1}, [["a", float("nan")]]])
def test_damaged_vocabularies_are_refused_with_one_line(tmp_path: Path, vocab: Any):
    with pytest.raises(CheckpointError) as refusal:
        read_vocabulary(write_tokenizer(tmp_path, tokenizer_json=changed("vocab", vocab)), {})
    assert str(refusal.value).startswith(str(tmp_path)) and "\n" not in str(refusal.value)
