"""Log-probabilities that llama-perplexity kept: read as it reads them, refused where they are damaged or of another text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggpy.errors import GGPyError
from ggpy.evaluate import StoredBase, evaluate, is_stored_base, log_softmax

from .bigram import BigramModel, random_table, random_text, tokens

CONTEXT = 16


def write(path: Path, table: np.ndarray, ids: list[int], n_ctx: int = CONTEXT) -> Path:
    """What llama-perplexity writes, by the description of its format."""
    n_vocab, chunks = len(table), len(ids) // n_ctx
    parts = [b"_logits_", np.array([n_ctx, n_vocab, chunks], "<i4").tobytes(), np.array(ids[: chunks * n_ctx], "<i4").tobytes()]
    for start in range(0, chunks * n_ctx, n_ctx):
        for token in ids[start + n_ctx // 2 : start + n_ctx - 1]:
            row = log_softmax(table[token].astype(np.float32))
            least = np.maximum(row.min(), row.max() - 16)
            step = np.float32((row.max() - least) / 65535)
            values = np.zeros((n_vocab + 1) // 2 * 2, "<u2")
            values[:n_vocab] = np.rint(np.maximum(row - least, 0) / step)
            parts += [np.array([step, least], "<f4").tobytes(), values.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


@pytest.fixture
def text() -> str:
    return random_text(64)


@pytest.mark.parametrize("n_vocab", [26, 27])
def test_figures_are_those_of_the_base_itself(tmp_path: Path, text: str, n_vocab: int):
    base, model = random_table(1, n_vocab), BigramModel(random_table(2, n_vocab))
    path = write(tmp_path / "base.kld", base, tokens(text))
    assert is_stored_base(path)
    found = evaluate(model, text, base=path, context=CONTEXT).comparison
    exact = evaluate(model, text, base=BigramModel(base), context=CONTEXT).comparison
    assert found is not None and exact is not None and found.base == str(path)
    assert (found.kl_mean, found.perplexity, found.delta_p) == pytest.approx((exact.kl_mean, exact.perplexity, exact.delta_p), rel=1e-3)
    assert (found.top1, found.top5) == (exact.top1, exact.top5)


def test_what_was_cut_off_is_left_out(tmp_path: Path, text: str):
    base = random_table(1)
    base[:, 25] = -40
    other = base.copy()
    other[:, 25] = -90  # less likely still, which a value raised to 16 below the largest would make a difference of
    found = evaluate(BigramModel(other), text, base=write(tmp_path / "base.kld", base, tokens(text)), context=CONTEXT).comparison
    assert found is not None and abs(found.kl_mean) < 1e-5


def test_another_text_another_chunk_or_too_much_text_is_refused(tmp_path: Path, text: str):
    model, path = BigramModel(random_table(1)), write(tmp_path / "base.kld", random_table(1), tokens(text))
    with pytest.raises(GGPyError, match=r"base\.kld: chunk 2 has other tokens"):
        evaluate(model, text[:20] + "zz" + text[22:], base=path, context=CONTEXT)
    with pytest.raises(GGPyError, match="--ctx 16"):
        evaluate(model, text, base=path, context=8)
    with pytest.raises(GGPyError, match="has 4 chunks, the text 8"):
        evaluate(model, text * 2, base=path, context=CONTEXT)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"_logits", "not a file of log-probabilities"),
        (b"_logits_\x10\0\0\0", "expected at least 3, 1, 1"),
        (b"_logits_" + np.array([16, -1, 4], "<i4").tobytes(), "n_vocab -1"),
        (b"_logits_" + np.array([2**31 - 1] * 3, "<i4").tobytes(), "has 20 bytes, expected 9903520"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, said: str):
    path = tmp_path / "base.kld"
    path.write_bytes(content)
    with pytest.raises(GGPyError, match=said):
        StoredBase(path)


def test_other_files_are_not_taken_for_one(tmp_path: Path):
    assert not is_stored_base(tmp_path) and not is_stored_base(tmp_path / "absent")
