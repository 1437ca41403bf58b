"""Perplexity and KL divergence against naive loops over a model whose predictions are a table."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ggpy.errors import GGPyError, ModelError
from ggpy.evaluate import HUGGING_FACE, Store, evaluate, kl_divergence, log_softmax

from .bigram import BOS, BigramModel, random_table, random_text, tokens


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
    expected = naive_perplexity(table, tokens(text), context)
    assert found.perplexity == pytest.approx(expected, rel=1e-5)
    assert (found.convention, found.context, found.stride) == ("llama.cpp", context, None)
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
    assert found.comparison.kl_max < 1e-7
    assert found.comparison.top1 == found.comparison.top5 == 1
    assert found.comparison.perplexity == pytest.approx(found.perplexity, rel=1e-6)
    assert found.comparison.ratio == pytest.approx(1, rel=1e-6)


def test_divergence_from_a_base_is_that_of_a_naive_loop():
    base, other, text = random_table(5), random_table(6), random_text(48)
    found = evaluate(BigramModel(other), text, base=BigramModel(base, path="base"), context=12).comparison
    ids = tokens(text)
    divergences, same, near, squares = [], [], [], []
    for start in range(0, 48, 12):
        for token, target in zip(ids[start + 6 : start + 11], ids[start + 7 : start + 12], strict=True):
            p = np.exp(base[token]) / np.exp(base[token]).sum()
            q = np.exp(other[token]) / np.exp(other[token]).sum()
            divergences.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
            same.append(p.argmax() == q.argmax())
            near.append(p.argmax() in np.argsort(-q)[:5])
            squares.append((p[target] - q[target]) ** 2)
    assert found is not None and found.base == "base"
    assert found.kl_mean == pytest.approx(np.mean(divergences), rel=1e-4)
    assert found.kl_max == pytest.approx(max(divergences), rel=1e-4)
    quantiles = (found.kl_median, found.kl_p90, found.kl_p99, found.kl_p999)
    assert quantiles == pytest.approx(np.quantile(divergences, [0.5, 0.9, 0.99, 0.999]), rel=1e-3)
    assert (found.top1, found.top5) == pytest.approx((np.mean(same), np.mean(near)))
    assert found.delta_p == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-3)


def test_the_worst_positions_are_told_with_their_text():
    base, text = random_table(5), random_text(48)
    other = base.copy()
    spoilt = tokens(text)[30]
    other[spoilt] = -other[spoilt]
    found = evaluate(BigramModel(other), text, base=BigramModel(base), context=12, worst=2).comparison
    assert found is not None and len(found.worst) == 2
    first = found.worst[0]
    assert tokens(text)[first.position - 1] == spoilt and first.token == text[first.position]
    assert text[: first.position].endswith(first.before) and len(first.before) == 16
    assert (first.choice, first.base_choice) == tuple("abcdefghijklmnopqrstuvwxyz"[table[spoilt].argmax()] for table in (other, base))
    assert first.divergence == found.kl_max


def naive_sliding(table: np.ndarray, ids: list[int]) -> float:
    """A table knows only the last token, so what windows hold does not matter: every token but the first is scored once."""
    rows = table[ids[:-1]]
    return math.exp(np.mean([math.log(np.exp(row).sum()) - row[target] for row, target in zip(rows, ids[1:], strict=True)]))


@pytest.mark.parametrize(("context", "stride"), [(16, None), (16, 15), (16, 5), (50, 1)])
def test_a_sliding_window_scores_every_token_once(context: int, stride: int | None):
    table, text = random_table(1), random_text(50)
    model = BigramModel(table)
    found = evaluate(model, text, context=context, convention=HUGGING_FACE, stride=stride)
    assert found.perplexity == pytest.approx(naive_sliding(table, tokens(text)), rel=1e-5)
    assert (found.scored, found.stride) == (49, stride or 8)
    assert all(len(window) < context for window in model.seen)  # the last token of a window predicts nothing that is scored
    starts = [str(tokens(text)).find(str(window)[1:-1]) for window in model.seen]
    assert min(starts) >= 0


def test_windows_side_by_side_do_not_score_their_first_token():
    table, text = random_table(1), random_text(50)
    found = evaluate(BigramModel(table), text, context=16, convention=HUGGING_FACE, stride=16)
    losses = []
    for start in range(0, 50, 16):
        part = tokens(text)[start : start + 16]
        losses += [math.log(np.exp(table[a]).sum()) - table[a][b] for a, b in pairwise(part)]
    assert found.scored == len(losses) == 46
    assert found.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)


def test_a_run_that_was_ended_goes_on(tmp_path: Path):
    """The second run evaluates what the first did not get to, the third nothing; the figures are those of a run without a store."""
    path = tmp_path / "model"
    path.write_bytes(b"weights")
    text, tables = random_text(64), (random_table(1), random_table(2))

    def run(chunks: int, store: Store | None) -> tuple[object, list[int]]:
        model, base = (BigramModel(table, path=path) for table in tables)
        found = evaluate(model, text, base=base, context=16, chunks=chunks, store=store)
        return found, [found.known_chunks, len(model.seen), len(base.seen)]

    store = Store(tmp_path / "store")
    assert run(2, store)[1] == [0, 2, 2]
    whole, did = run(4, store)
    assert did == [2, 2, 2]
    again, did = run(4, store)
    assert did == [4, 0, 0]
    plain, did = run(4, None)
    assert did == [0, 4, 4]
    assert whole.comparison == again.comparison == plain.comparison


def test_what_is_kept_of_a_base_serves_other_models(tmp_path: Path):
    names = [tmp_path / name for name in ("base", "a", "b")]
    for path in names:
        path.write_bytes(path.name.encode())
    text, kept = random_text(64), Store(tmp_path / "kept", limit=None)
    base = BigramModel(random_table(1), path=names[0])
    runs = [
        evaluate(BigramModel(random_table(seed), path=path), text, base=base, context=16, base_store=kept, store=Store(tmp_path / "scores"))
        for seed, path in enumerate(names[1:])
    ]
    assert len(base.seen) == 4
    assert [run.known_chunks for run in runs] == [0, 0]
    fresh = evaluate(BigramModel(random_table(1), path=names[2]), text, base=base, context=16)
    assert fresh.comparison == runs[1].comparison


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_figures_do_not_depend_on_how_many_chunks_are_at_work(at_once: int):
    model, base = BigramModel(random_table(1)), BigramModel(random_table(2))
    found = evaluate(model, random_text(160), base=base, context=16, at_once=at_once)
    alone = evaluate(model, random_text(160), base=base, context=16, at_once=1)
    assert found.comparison == alone.comparison and found.perplexity == alone.perplexity


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
    with pytest.raises(GGPyError, match="'other' is not known"):
        evaluate(model, random_text(64), context=16, convention="other")
    with pytest.raises(GGPyError, match="has none"):
        evaluate(model, random_text(64), context=16, stride=4)
    with pytest.raises(GGPyError, match="stride 17 is not from 1"):
        evaluate(model, random_text(64), context=16, stride=17, convention=HUGGING_FACE)
    with pytest.raises(GGPyError, match="do not fit the context of 8"):
        evaluate(BigramModel(random_table(8), context=8), random_text(64), context=16)


def test_log_softmax_holds_where_exponentials_overflow():
    log_probs = log_softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], dtype=np.float32))
    np.testing.assert_allclose(log_probs, [[0, -1e4], [-math.log(2)] * 2], rtol=1e-6)


def test_divergence_is_never_negative_beyond_rounding():
    rng = np.random.default_rng(9)
    log_probs = log_softmax(rng.normal(0, 5, (50, 1000)).astype(np.float32))
    nudged = log_softmax(log_probs + rng.normal(0, 1e-4, log_probs.shape).astype(np.float32))
    assert (kl_divergence(log_probs, nudged) > -1e-6).all()
