"""The forward pass over a calibration text shows every matrix the inputs that the reference ops give it, of every architecture."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ggpy.arch import ARCHS
from ggpy.converter.count import count_inputs
from ggpy.converter.statistics_file import StatisticsFile
from ggpy.gguf import open_gguf
from ggpy.quantize.texts import cut, read_texts
from ggpy.runtime.reference import ReferenceOps
from ggpy.runtime.weights import load_weights
from ggpy.tokenizer import load_tokenizer
from tests.runtime.tiny import write_llama

SMALL = {"d_model": 64, "d_ff": 96, "context": 64}
TEXT = "The quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs! " * 8
WINDOWED = {"attention.sliding_window": 7, "attention.sliding_window_pattern": 2}


class Recording(ReferenceOps):
    """The reference ops, with what every matrix was multiplied by."""

    def __init__(self, shape):
        super().__init__(shape)
        self.seen: dict[str, list[np.ndarray]] = defaultdict(list)

    def linear(self, x, *weights):
        for weight in weights:
            self.seen[weight.name].append(x)
        return super().linear(x, *weights)


def reference(path: Path, text: Path, length: int) -> dict[str, np.ndarray]:
    """Inputs, (tokens, n), by the names of weights; parts of tensors as [from:to] behind the name."""
    with open_gguf(path) as file:
        arch = ARCHS[file.metadata.string("general.architecture")]
        config = arch.config(file).for_context(length)
        weights = load_weights(file, arch.shapes(config))
        chunks = cut(load_tokenizer(file.metadata), read_texts(text), length)
        seen: dict[str, list[np.ndarray]] = defaultdict(list)
        for ids in chunks.ids:
            ops = Recording(config.cache_shape)
            ops.tokens, ops.n_outputs = ids, length
            arch.forward(ops, weights, config)
            for name, found in ops.seen.items():
                seen[name] += found
    return {name: np.concatenate(found) for name, found in seen.items()}


CASES = {
    "llama": {"biases": True, "tied": False},
    "qwen3": {"architecture": "qwen3", "head_dim": 32},
    "phi3": {"architecture": "phi3"},
    "gemma3": {"architecture": "gemma3", "extra": WINDOWED | {"attn_logit_softcapping": 3.0}},
    "gemma2": {"architecture": "gemma2", "extra": WINDOWED | {"attn_logit_softcapping": 3.0}},
    "experts": {"experts": 4},
}


@pytest.mark.parametrize("case", CASES)
def test_inputs_are_those_of_the_reference(case: str, tmp_path: Path):
    model = write_llama(tmp_path / "model.gguf", **CASES[case], **SMALL)  # pyright: ignore[reportArgumentType]
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    found = count_inputs(model, text, tmp_path / "s.gguf", hessians=True, head=True, chunk_tokens=48, threads=2)
    expected = reference(model, text, 48)
    assert found.tokens == len(expected["blk.0.attn_output.weight"]) == 960
    with StatisticsFile(tmp_path / "s.gguf") as file:
        names = {name for counts in file.counts for name in counts.names}
        assert names == {name.split("[")[0] for name in expected}
        for counts in file.counts:
            for number in range(len(counts.squares)):
                rows = sorted({name for name in expected if name.split("[")[0] == counts.names[0]}, key=_first_row)
                x = expected.get(rows[number if len(counts.squares) > 1 else 0]) if number < len(rows) else None
                gram = file.gram(counts, number)
                assert gram is not None
                if x is None:
                    assert gram.tokens == 0
                    continue
                exact = x.astype(np.float64).T @ x.astype(np.float64)
                assert gram.tokens == len(x) == counts.tokens[number]
                np.testing.assert_allclose(gram.matrix, exact, rtol=2e-3, atol=2e-3 * np.abs(exact).max())
                np.testing.assert_allclose(gram.importance * gram.tokens, np.diagonal(exact), rtol=2e-3)


def _first_row(name: str) -> int:
    return int(name.split("[")[1].split(":")[0]) if "[" in name else 0
