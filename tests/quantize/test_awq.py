"""AWQ folded into files: the float model stays what it is, of every architecture; what is kept does better on tokens nobody searched on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggpy.arch import ARCHS
from ggpy.blocks import BLOCKS, dequantize
from ggpy.gguf import open_gguf
from ggpy.quantize.awq import Folded, fold
from ggpy.quantize.calibration import Matrix, weight_tree
from ggpy.quantize.links import find_links
from ggpy.quantize.products import Products
from ggpy.quantize.texts import cut, read_texts
from ggpy.runtime.encode import encode_rows
from ggpy.runtime.reference import ReferenceOps
from ggpy.tokenizer import load_tokenizer
from tests.runtime.tiny import write_llama

SMALL = {"d_model": 64, "d_ff": 96, "context": 64}
TEXT = "The quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs! " * 40
CASES = {
    "llama": {"biases": True, "tied": False},
    "qwen3": {"architecture": "qwen3", "head_dim": 32},
    "phi3": {"architecture": "phi3"},
    "gemma3": {"architecture": "gemma3", "extra": {"attention.sliding_window": 7, "attention.sliding_window_pattern": 2}},
    "gemma2": {"architecture": "gemma2", "extra": {"attention.sliding_window": 7, "attn_logit_softcapping": 3.0}},
    "experts": {"experts": 4},
}
Q4_0 = BLOCKS["Q4_0"]


class Model:
    """A file's tensors as the search reads them; some columns of every norm made large, as those of real models are."""

    def __init__(self, path: Path):
        with open_gguf(path) as file:
            self.arch = ARCHS[file.metadata.string("general.architecture")]
            self.config = self.arch.config(file).for_context(64)
            self.tokenizer = load_tokenizer(file.metadata)
            values = {name: tensor.dequantize().reshape(-1, tensor.shape[-1]) for name, tensor in file.tensors.items()}
        rng = np.random.default_rng(0)
        for name in values:
            if name.endswith(("attn_norm.weight", "ffn_norm.weight")) and "post" not in name:
                values[name] = values[name] * np.where(np.arange(values[name].shape[1]) % 16 == 3, 12, 1).astype(np.float32)
            elif ".bias" in name:
                values[name] = rng.standard_normal(values[name].shape).astype(np.float32)
        self.tensors = {name: matrix(name, found) for name, found in values.items()}
        self.formats = {name: Q4_0 for name in values if name.startswith("blk.") and "norm" not in name and "bias" not in name}

    def fold(self, tmp_path: Path) -> Folded:
        text = tmp_path / "text.txt"
        text.write_text(TEXT, encoding="utf-8")
        chunks = cut(self.tokenizer, read_texts(text), 64)
        with Products(1) as products:
            return fold(self.arch, self.config, self.tensors, chunks, self.formats, products)

    def logits(self, changed: dict[str, Matrix]) -> np.ndarray:
        ops = ReferenceOps(self.config.cache_shape)
        ops.tokens, ops.n_outputs = np.arange(40) * 7 % 250 + 3, 40
        return self.arch.forward(ops, weight_tree(self.tensors | changed, self.arch.shapes(self.config)), self.config)


def matrix(name: str, values: np.ndarray) -> Matrix:
    return Matrix(name, len(values), values.shape[1], len(values), lambda start, stop: values[start:stop])


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    return Model(write_llama(tmp_path / "model.gguf", **CASES[request.param], **SMALL))


def test_the_float_model_stays_what_it_is(model: Model, tmp_path: Path):
    found = model.fold(tmp_path)
    assert found.kept >= 2 and all(0 <= link.exponent <= 1 for link in found.links)
    before, after = model.logits({}), model.logits(found.tensors)
    assert np.abs(before - after).max() < 1e-5 * np.abs(before).max()
    changed = [name for name, tensor in found.tensors.items() if not np.array_equal(tensor.values(), model.tensors[name].values())]
    assert set(changed) == set(found.tensors) and any("norm" in name for name in changed)
    assert all("token_embd" not in name and "output" not in name.split(".")[0] for name in changed)


def test_what_was_kept_does_better(model: Model, tmp_path: Path):
    """Rounded to Q4_0, the folded model's predictions are nearer to the float model's."""
    found = model.fold(tmp_path)
    assert all(link.gain < 1 if link.exponent else link.gain == 1 for link in found.links)
    before = model.logits({})
    errors = []
    for changed in ({}, found.tensors):
        rounded = {}
        for name, tensor in (model.tensors | changed).items():
            values = tensor.values()
            rounded[name] = matrix(name, dequantize(encode_rows(values, Q4_0), Q4_0) if name in model.formats else values)
        errors.append(np.linalg.norm(model.logits(rounded) - before))
    assert errors[1] < errors[0]


def links_of(tmp_path: Path, **settings) -> dict[str, tuple[str, ...]]:
    model = Model(write_llama(tmp_path / "links.gguf", **settings, **SMALL))
    found = find_links(model.arch, model.config, model.tensors)
    return {link.producer.name: tuple(m.name for m in link.consumers) for link in found if link.producer.name.startswith("blk.0.")}


def test_links_are_those_of_the_graph(tmp_path: Path):
    blk = "blk.0.{}.weight".format
    dense = {
        blk("attn_norm"): (blk("attn_q"), blk("attn_k"), blk("attn_v")),
        blk("attn_v"): (blk("attn_output"),),
        blk("ffn_norm"): (blk("ffn_gate"), blk("ffn_up")),
        blk("ffn_up"): (blk("ffn_down"),),
    }
    assert links_of(tmp_path) == links_of(tmp_path, architecture="gemma3") == dense
    assert links_of(tmp_path, architecture="qwen3", head_dim=32) == dense  # the norms of heads scale nothing that a matrix reads
    assert links_of(tmp_path, architecture="phi3") == {
        blk("attn_norm"): (blk("attn_qkv"),) * 3,
        blk("attn_qkv"): (blk("attn_output"),),
        blk("ffn_norm"): (blk("ffn_up"),) * 2,
        blk("ffn_up"): (blk("ffn_down"),),
    }
    # what experts read is read by their router as well, and not by one product: left alone
    experts = {name: links for name, links in dense.items() if "attn" in name}
    assert links_of(tmp_path, experts=4) == experts


def test_a_tied_head_is_no_consumer(tmp_path: Path):
    for tied in (True, False):
        model = Model(write_llama(tmp_path / f"{tied}.gguf", tied=tied, **SMALL))
        assert "output_norm.weight" not in {link.producer.name for link in find_links(model.arch, model.config, model.tensors)}
