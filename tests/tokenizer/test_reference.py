"""Token ids against llama.cpp and sentencepiece, on real vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ggpy.gguf import open_gguf
from ggpy.tokenizer import Tokenizer, load_tokenizer

VOCABULARIES = ("llama-spm", "phi-3", "llama-bpe", "gpt-2", "qwen2", "starcoder", "deepseek-llm")


def load(path: Path) -> Tokenizer:
    with open_gguf(path) as file:
        return load_tokenizer(file.metadata)


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path) -> Tokenizer:
    return load(smollm2_gguf)


@pytest.fixture(scope="module")
def cases(shared: Path) -> list[dict[str, Any]]:
    return json.loads((shared / "reference" / "tokens-smollm2.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.real_model
def test_smollm2_ids_are_those_of_llama_cpp(smollm2: Tokenizer, cases: list[dict[str, Any]]) -> None:
    assert len(cases) == 344
    for case in cases:
        assert smollm2.encode(case["text"]) == case["ids"], case["text"]
        assert smollm2.encode(case["text"], parse_special=True) == case["ids_special"], case["text"]
        assert smollm2.encode(case["text"], add_special=True, parse_special=True) == case["ids_addspecial"], case["text"]
        assert b"".join(map(smollm2.token_bytes, case["ids"])).hex() == case["pieces_hex"], case["text"]


@pytest.mark.real_model
def test_smollm2_roles(smollm2: Tokenizer) -> None:
    assert (smollm2.bos, smollm2.eos, smollm2.eot, smollm2.add_bos) == (1, 2, 2, False)
    assert {smollm2.vocabulary[i] for i in smollm2.end_ids} == {"<|im_end|>", "<|endoftext|>", "<reponame>"}
    assert smollm2.chat_template is not None


@pytest.mark.parametrize("name", VOCABULARIES)
def test_ids_of_published_vocabularies(shared: Path, name: str) -> None:
    path = shared / "models" / "vocab" / f"ggml-vocab-{name}.gguf"
    tokenizer = load(path)
    texts = path.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = path.with_suffix(".gguf.out").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 46
    for text, line in zip(texts, lines, strict=False):
        assert tokenizer.encode(text) == [int(i) for i in line.split()], text
