"""The bundled checkpoint: what lies there, and the text it must tell at temperature 0, in every type it is converted to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.cli.model_file import DEMO
from ggpy.evaluate import log_softmax

STORY = (
    " God created the heaven and the earth. And the earth was without form, and void; and darkness was upon the face of the deep."
    " And the Spirit of God moved upon the face of the waters. And God said, Let there be light: and there was light."
)


def test_the_checkpoint_is_small_and_sharded():
    sizes = {path.name: path.stat().st_size for path in DEMO.iterdir() if path.is_file()}
    assert sum(sizes.values()) < 4_000_000
    shards = [name for name in sizes if name.endswith(".safetensors")]
    assert len(shards) == 2 and all(sizes[name] < 2_000_000 for name in shards)
    index = json.loads((DEMO / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"].values()) == set(shards)
    config = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))
    assert config["hidden_size"] % 256 == 0 and config["intermediate_size"] % 256 == 0
    assert {"README.md", "config.json", "generation_config.json", "tokenizer.model", "tokenizer_config.json"} < set(sizes)


@pytest.fixture(scope="module", params=["f32", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / f"{request.param}.gguf"
    ggpy.convert(DEMO, path, type=request.param)
    return path


def test_the_story_is_told(converted: Path):
    with ggpy.load(converted) as model:
        assert model.complete("In the beginning", max_tokens=80, temperature=0).startswith(STORY)


def test_the_story_does_not_depend_on_threads_or_on_where_the_prompt_ends(converted: Path):
    begun = "In the beginning God created the heaven"
    with ggpy.load(converted, threads=1) as one, ggpy.load(converted, threads=2) as two:
        told = one.complete(begun, max_tokens=40, temperature=0)
        assert told == two.complete(begun, max_tokens=40, temperature=0)
    assert ("In the beginning" + STORY).startswith(begun + told)


def test_it_has_learned_more_than_the_beginning(converted: Path):
    """At random, each of these tokens would cost 6.6 nats, the logarithm of 768 pieces."""
    text = "And the LORD spake unto Moses, saying, Speak unto the children of Israel, and say unto them, I am the LORD your God."
    with ggpy.load(converted) as model:
        ids = model.tokenize(text, bos=True)
        scores = log_softmax(model.logits(ids))
    assert -scores[np.arange(len(ids) - 1), ids[1:]].mean() < 2.0
