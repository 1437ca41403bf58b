"""What an evaluation found: figures with their errors, and the positions where a model and its base differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ggpy.evaluate.statistics import Interval, Mean, exponential, mean_of, root

if TYPE_CHECKING:
    from ggpy.api import Model

TOP = 5
_SHOWN_TOKENS = 16  # of the text before a position


@dataclass(frozen=True)
class Settings:
    """How a text was cut (see ggpy.evaluate.windows). stride: None where the convention has none."""

    convention: str
    context: int
    stride: int | None


@dataclass(frozen=True)
class Difference:
    """A position where model and base differ. position: of the token in the text's tokens; before: the text that leads to it.

    token: the one that came. p, base_p: its probability by the model and the base; choice, base_choice: what they find most likely, and
    choice_p, base_choice_p how likely. divergence: KL(base || model) in nats.
    """

    position: int
    before: str
    token: str
    p: float
    base_p: float
    choice: str
    choice_p: float
    base_choice: str
    base_choice_p: float
    divergence: float


@dataclass(frozen=True)
class Comparison:
    """How a model's predictions differ from those of a base model, over the scored positions.

    perplexity: that of the base; ratio: the model's perplexity over it, its errors those of the paired difference of losses.
    kl_mean: mean of KL(base || model) in nats per token; kl_median, kl_p90, kl_p99, kl_p999, kl_max: its quantiles.
    top1: share of positions where both find the same token most likely; top5: where the base's is among the model's five most likely.
    delta_p: root of the mean square of the difference in probability of the token that came, as llama-perplexity's "RMS Δp".
    kl_chunks: the mean divergence of each chunk, so that models compared with the same base on the same text can be compared in pairs.
    Names ending in _error are standard errors, in _interval the bounds of 95 %; both know of chunks (see ggpy.evaluate.statistics).
    worst: the positions that differ most, the largest divergence first.
    """

    base: str
    perplexity: float
    perplexity_error: float
    ratio: float
    ratio_error: float
    ratio_interval: Interval
    kl_mean: float
    kl_error: float
    kl_interval: Interval
    kl_median: float
    kl_p90: float
    kl_p99: float
    kl_p999: float
    kl_max: float
    kl_chunks: tuple[float, ...]
    top1: float
    top1_error: float
    top1_interval: Interval
    top5: float
    top5_error: float
    delta_p: float
    delta_p_error: float
    worst: tuple[Difference, ...]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. scored: tokens scored; known_chunks: how many of the chunks an earlier run had scored.

    perplexity: exp of the mean negative log-likelihood; its errors as of `Comparison`. perplexity_error_of_tokens: the standard error as if
    tokens were independent, which llama-perplexity states.
    """

    model: str
    convention: str
    context: int
    stride: int | None
    chunks: int
    scored: int
    perplexity: float
    perplexity_error: float
    perplexity_error_of_tokens: float
    perplexity_interval: Interval
    known_chunks: int
    seconds: float
    comparison: Comparison | None = None


def evaluation_of(
    model: Model,
    base: str | None,
    settings: Settings,
    ids: Sequence[int],
    parts: Sequence[np.ndarray],
    worst: int,
    known: int,
    seconds: float,
) -> Evaluation:
    """The figures of SCORES by window. ids: the text's tokens; base: its name, or None."""
    perplexity = exponential(mean_of([part["loss"] for part in parts]))
    return Evaluation(
        model=str(model.path),
        convention=settings.convention,
        context=settings.context,
        stride=settings.stride,
        chunks=len(parts),
        scored=sum(len(part) for part in parts),
        perplexity=perplexity.value,
        perplexity_error=perplexity.error,
        perplexity_error_of_tokens=perplexity.independent_error,
        perplexity_interval=perplexity.interval,
        known_chunks=known,
        seconds=seconds,
        comparison=None if base is None else _compare(model, base, ids, parts, worst),
    )


def _compare(model: Model, base: str, ids: Sequence[int], parts: Sequence[np.ndarray], worst: int) -> Comparison:
    base_perplexity = exponential(_mean(parts, "base_loss"))
    ratio = exponential(mean_of([part["loss"] - part["base_loss"] for part in parts]))
    divergence = _mean(parts, "divergence")
    top1, top5 = (mean_of([part["rank"] < count for part in parts]) for count in (1, TOP))
    delta_p = root(mean_of([np.square(np.exp(-part["loss"]) - np.exp(-part["base_loss"])) for part in parts]))
    scores = np.concatenate(parts)
    median, p90, p99, p999, most = np.quantile(scores["divergence"], (0.5, 0.9, 0.99, 0.999, 1)).tolist()
    return Comparison(
        base=base,
        perplexity=base_perplexity.value,
        perplexity_error=base_perplexity.error,
        ratio=ratio.value,
        ratio_error=ratio.error,
        ratio_interval=ratio.interval,
        kl_mean=divergence.value,
        kl_error=divergence.error,
        kl_interval=divergence.interval,
        kl_median=median,
        kl_p90=p90,
        kl_p99=p99,
        kl_p999=p999,
        kl_max=most,
        kl_chunks=tuple(float(part["divergence"].mean()) for part in parts),
        top1=top1.value,
        top1_error=top1.error,
        top1_interval=top1.interval,
        top5=top5.value,
        top5_error=top5.error,
        delta_p=delta_p.value,
        delta_p_error=delta_p.error,
        worst=tuple(_difference(model, ids, scores[i]) for i in np.argsort(-scores["divergence"], kind="stable")[:worst]),
    )


def _mean(parts: Sequence[np.ndarray], field: str) -> Mean:
    return mean_of([part[field] for part in parts])


def _difference(model: Model, ids: Sequence[int], score: np.ndarray) -> Difference:
    def text(*tokens: int) -> str:
        return b"".join(map(model.tokenizer.token_bytes, tokens)).decode("utf-8", "replace")  # decode() drops a word's space

    def p(field: str) -> float:
        return float(np.exp(-score[field]))

    position = int(score["position"])
    return Difference(
        position=position,
        before=text(*ids[max(0, position - _SHOWN_TOKENS) : position]),
        token=text(int(score["target"])),
        p=p("loss"),
        base_p=p("base_loss"),
        choice=text(int(score["choice"])),
        choice_p=p("choice_loss"),
        base_choice=text(int(score["base_choice"])),
        base_choice_p=p("base_choice_loss"),
        divergence=float(score["divergence"]),
    )
