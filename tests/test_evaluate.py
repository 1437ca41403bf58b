"""Perplexity and KL divergence against naive loops over a model whose predictions are a table."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from ggpy.errors import GGPyError, ModelError
from ggpy.evaluate import evaluate, kl_divergence, log_softmax

BOS = 0


class BigramModel:
    """Predicts the next token from the last one only: row t of `table` (n_vocab, n_vocab) are the logits after token t."""

    def __init__(self, table: np.ndarray, *, add_bos: bool = False, path: str = "bigram"):
        self.table, self.path, self.seen = table.astype(np.float32), path, []
        encode = lambda text, add_special: [BOS] * (add_bos and add_special) + [ord(c) - ord("a") for c in text]  # noqa: E731
        self.tokenizer = SimpleNamespace(n_vocab=len(table), bos=BOS, add_bos=add_bos, encode=encode)

    def logits(self, ids: list[int]) -> np.ndarray:
        self.seen.append(list(ids))
        return self.table[ids]


def random_table(seed: int, n_vocab: int = 26) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (n_vocab, n_vocab))


def random_text(n: int) -> str:
    return "".join(chr(ord("a") + t) for t in np.random.default_rng(5).integers(1, 26, n))


def naive_perplexity(table: np.ndarray, ids: list[int], context: int) -> float:
    losses = []
    for start in range(0, len(ids) - context + 1, context):
        for position in range(start + context // 2, start + context - 1):
            row = table[ids[position]]
            losses.append(math.log(sum(math.exp(v) for v in row)) - row[ids[position + 1]])
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("context", [3, 7, 16])
def test_perplexity_is_that_of_a_naive_loop(context: int):
    table, text = random_table(1), random_text(100)
    found = evaluate(BigramModel(table), text, context=context)
    expected = naive_perplexity(table, [ord(c) - ord("a") for c in text], context)
    assert found.perplexity == pytest.approx(expected, rel=1e-5)
    assert (found.chunks, found.scored) == (100 // context, (100 // context) * (context - 1 - context // 2))
    assert found.comparison is None


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary():
    found = evaluate(BigramModel(np.zeros((26, 26))), random_text(64), context=16)
    assert found.perplexity == pytest.approx(26, rel=1e-6)
    assert found.perplexity_error == pytest.approx(0, abs=1e-5)


def test_every_chunk_begins_with_bos_where_the_model_wants_it():
    model = BigramModel(random_table(2), add_bos=True)
    evaluate(model, random_text(40), context=8)
    assert [chunk[0] for chunk in model.seen] == [BOS] * 5
    plain = BigramModel(random_table(2))
    evaluate(plain, random_text(40), context=8)
    assert all(chunk[0] != BOS for chunk in plain.seen)


def test_one_closing_newline_of_the_text_is_not_scored():
    model = BigramModel(random_table(3))
    assert evaluate(model, random_text(16) + "\n", context=8).chunks == 2


def test_a_model_agrees_with_itself():
    model = BigramModel(random_table(4))
    found = evaluate(model, random_text(64), base=model, context=16)
    assert found.comparison is not None
    assert found.comparison.kl_mean == found.comparison.kl_max == 0
    assert found.comparison.top1 == 1
    assert found.comparison.perplexity == found.perplexity


def test_divergence_from_a_base_is_that_of_a_naive_loop():
    base, other, text = random_table(5), random_table(6), random_text(48)
    found = evaluate(BigramModel(other), text, base=BigramModel(base, path="base"), context=12).comparison
    ids = [ord(c) - ord("a") for c in text]
    divergences, same = [], []
    for start in range(0, 48, 12):
        for token in ids[start + 6 : start + 11]:
            p = np.exp(base[token]) / np.exp(base[token]).sum()
            q = np.exp(other[token]) / np.exp(other[token]).sum()
            divergences.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
            same.append(p.argmax() == q.argmax())
    assert found is not None and found.base == "base"
    assert found.kl_mean == pytest.approx(np.mean(divergences), rel=1e-4)
    assert found.kl_max == pytest.approx(max(divergences), rel=1e-4)
    assert found.top1 == pytest.approx(np.mean(same))


def test_chunks_limits_the_work_and_progress_is_told():
    told = []
    evaluate(BigramModel(random_table(7)), random_text(64), context=16, chunks=2, on_chunk=lambda *call: told.append(call[:2]))
    assert told == [(1, 2), (2, 2)]


def test_a_short_text_and_another_vocabulary_are_refused():
    model = BigramModel(random_table(8))
    with pytest.raises(GGPyError, match=r"10 tokens.*chunk of 16"):
        evaluate(model, random_text(10), context=16)
    with pytest.raises(GGPyError, match="at least 3 tokens"):
        evaluate(model, random_text(64), context=2)
    with pytest.raises(ModelError, match="same vocabulary"):
        evaluate(model, random_text(64), base=BigramModel(random_table(8, 30)), context=16)


def test_log_softmax_holds_where_exponentials_overflow():
    log_probs = log_softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], dtype=np.float32))
    np.testing.assert_allclose(log_probs, [[0, -1e4], [-math.log(2)] * 2], rtol=1e-6)


def test_divergence_is_never_negative_beyond_rounding():
    rng = np.random.default_rng(9)
    log_probs = log_softmax(rng.normal(0, 5, (50, 1000)).astype(np.float32))
    nudged = log_softmax(log_probs + rng.normal(0, 1e-4, log_probs.shape).astype(np.float32))
    assert (kl_divergence(log_probs, nudged) > -1e-6).all()
