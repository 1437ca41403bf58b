"""How good a model is on a text: perplexity, and with a base model KL divergence and top-1 agreement.

The convention is that of llama-perplexity, so that figures compare: the text (less one closing newline) is cut into chunks of `context`
tokens; each chunk is evaluated on its own, its first token replaced by BOS where the model wants one; the predictions
of its second half are scored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ggpy.errors import GGPyError, ModelError

if TYPE_CHECKING:
    from ggpy.api import Model


@dataclass(frozen=True)
class Comparison:
    """How a model's predictions differ from those of a base model, over the scored positions.

    kl_mean: mean of KL(base || model) in nats per token, and its standard error; kl_p99, kl_max: 99th percentile and largest.
    top1: share of positions where both find the same token most likely. perplexity: that of the base.
    """

    base: str
    perplexity: float
    kl_mean: float
    kl_error: float
    kl_p99: float
    kl_max: float
    top1: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. perplexity: exp of the mean negative log-likelihood, with its standard error; scored: tokens scored."""

    model: str
    context: int
    chunks: int
    scored: int
    perplexity: float
    perplexity_error: float
    seconds: float
    comparison: Comparison | None = None


def evaluate(
    model: Model,
    text: str,
    *,
    base: Model | None = None,
    context: int = 512,
    chunks: int | None = None,
    on_chunk: Callable[[int, int, float], None] | None = None,
) -> Evaluation:
    """Perplexity of `model` on `text`, and with `base` how far its predictions are from the base's.

    chunks: how many chunks of `context` tokens at the most; None for all. on_chunk(done, total, perplexity so far) reports progress.
    Raises GGPyError if the text is shorter than one chunk, ModelError if the two models have different vocabularies.
    """
    start = time.perf_counter()
    ids = model.tokenizer.encode(text.removesuffix("\n"), add_special=True)
    if base is not None and base.tokenizer.n_vocab != model.tokenizer.n_vocab:
        raise ModelError(
            f"{model.path} has {model.tokenizer.n_vocab} tokens and the base {base.path} {base.tokenizer.n_vocab}; "
            "predictions can be compared only over the same vocabulary"
        )
    if context < 3:
        raise GGPyError(f"context {context}: a chunk needs at least 3 tokens to score one in its second half")
    available = len(ids) // context
    if available == 0:
        raise GGPyError(f"the text has {len(ids)} tokens, fewer than one chunk of {context}; use a longer text or a smaller context")
    n_chunks = available if chunks is None else min(chunks, available)
    losses, base_losses, divergences, agreements = [], [], [], []
    for chunk in range(n_chunks):
        part = ids[chunk * context : (chunk + 1) * context]
        log_probs, targets = predictions(model, part)
        losses.append(negative_log_likelihood(log_probs, targets))
        if base is not None:
            base_log_probs, _ = predictions(base, part)
            base_losses.append(negative_log_likelihood(base_log_probs, targets))
            divergences.append(kl_divergence(base_log_probs, log_probs))
            agreements.append(base_log_probs.argmax(-1) == log_probs.argmax(-1))
        if on_chunk is not None:
            on_chunk(chunk + 1, n_chunks, math.exp(np.concatenate(losses).mean()))
    loss = np.concatenate(losses)
    perplexity = math.exp(loss.mean())
    return Evaluation(
        model=str(model.path),
        context=context,
        chunks=n_chunks,
        scored=loss.size,
        perplexity=perplexity,
        perplexity_error=perplexity * standard_error(loss),
        seconds=time.perf_counter() - start,
        comparison=None if base is None else _compare(str(base.path), base_losses, divergences, agreements),
    )


def _compare(base: str, losses: Sequence[np.ndarray], divergences: Sequence[np.ndarray], agreements: Sequence[np.ndarray]) -> Comparison:
    divergence = np.concatenate(divergences)
    return Comparison(
        base=base,
        perplexity=math.exp(np.concatenate(losses).mean()),
        kl_mean=float(divergence.mean()),
        kl_error=standard_error(divergence),
        kl_p99=float(np.quantile(divergence, 0.99)),
        kl_max=float(divergence.max()),
        top1=float(np.concatenate(agreements).mean()),
    )


def predictions(model: Model, chunk: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities float32 (n_scored, n_vocab) for the second half of a chunk, and the tokens (n_scored,) that came."""
    tokenizer = model.tokenizer
    ids = [tokenizer.bos, *chunk[1:]] if tokenizer.add_bos and tokenizer.bos is not None else list(chunk)
    first = len(ids) // 2
    logits = model.logits(ids)[first:-1]
    return log_softmax(logits), np.asarray(chunk[first + 1 :], dtype=np.int64)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax over the last axis, float32; the sums are taken in float64."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def negative_log_likelihood(log_probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Nats lost at each position: float64 (n,) from log-probabilities (n, n_vocab) and the tokens that came (n,)."""
    return -log_probs[np.arange(targets.size), targets].astype(np.float64)


def kl_divergence(base: np.ndarray, other: np.ndarray) -> np.ndarray:
    """KL(base || other) at each position in nats: float64 (n,) from two sets of log-probabilities (n, n_vocab)."""
    return (np.exp(base) * (base - other)).sum(-1, dtype=np.float64)


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of `values`; 0 for a single value."""
    return float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else 0.0
