"""How far a new file is from its source: logits over a text, and every layer by itself.

The file walks over two segments of the probe (see `Probe`). Over the text it goes its own way, and its logits are compared at the end. Over
the spread positions it gets the source's hidden states before every layer, so that a layer's error is its own and not that of those before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ggpy.arch import Architecture, Config
from ggpy.converter.certificate.probe import Probe
from ggpy.converter.certificate.products import Products, Rows
from ggpy.converter.certificate.walk import HEAD, ROTATED, State, walk
from ggpy.errors import GGPyError

_ROWS_AT_ONCE = 2  # of logits, whose vocabularies are large


@dataclass(frozen=True)
class StageError:
    """One product or rotation inside a layer, at the spread positions.

    correlation: mean over tokens of the cosine between what the file gives and what the source gives. error: ‖file − source‖ / ‖source‖.
    resembles: the stage of the source that the file's is most like, where that is another one.
    """

    name: str
    correlation: float
    error: float
    resembles: str | None = None


@dataclass(frozen=True)
class LayerError:
    """A layer's own error: mean over tokens of ‖file − source‖ / ‖what the layer adds in the source‖, both from the same input."""

    name: str
    error: float
    stages: tuple[StageError, ...] = ()


@dataclass
class Measured:
    """kl: KL(source || file) of every text token's prediction, in nats. agreed: whether both find the same token most likely.
    file_nll, source_nll: mean negative log-likelihood of the text. layers: from the embedding to the head."""

    kl: NDArray[np.float64]
    agreed: NDArray[np.bool_]
    file_nll: float
    source_nll: float
    layers: list[LayerError] = field(default_factory=list)


def measure(
    states: Iterator[State], arch: Architecture, config: Config, tensors: Mapping[str, Rows], probe: Probe, products: Products
) -> Measured:
    """Compare a file, given by its config and its tensors, with the source's `states`. Raises ModelError where ggpy cannot run it."""
    layers: list[LayerError] = []
    before: np.ndarray | None = None
    spread = probe.spread

    def on_state(found: State) -> None:
        nonlocal before
        meant = next(states)
        if (meant.name, meant.hidden.shape) != (found.name, found.hidden.shape):
            raise GGPyError(
                f"{found.name} {found.hidden.shape} of the new file has no counterpart: the source has {meant.name} {meant.hidden.shape}"
            )
        wanted = meant.hidden[spread]
        added = wanted if before is None else wanted - before
        layers.append(LayerError(found.name, _relative(found.hidden[spread] - wanted, added), tuple(_stages(found, meant, spread))))
        found.hidden[spread] = before = wanted

    logits = walk(arch, config, tensors, probe, products, on_state)
    meant = next(states)
    if meant.name != HEAD:
        raise GGPyError(f"the source has a layer {meant.name}, which the new file has not")
    n_scored = len(probe.scored)
    layers.append(LayerError(HEAD, _relative(logits[n_scored:] - meant.hidden[n_scored:], meant.hidden[n_scored:])))
    return _compare(logits[:n_scored], meant.hidden[:n_scored], probe.ids[probe.scored], layers)


def _stages(found: State, meant: State, spread: slice) -> Iterator[StageError]:
    for name, values in found.stages.items():
        if name not in meant.stages:
            continue
        ours, theirs = values[spread], meant.stages[name][spread]
        correlation, resembles = _correlation(ours, theirs), None
        if correlation < 0.5:
            others = {n: _correlation(ours, v[spread]) for n, v in meant.stages.items() if v.shape == values.shape and ROTATED not in n}
            best = max(others, key=lambda n: others[n], default=name)
            resembles = best if best != name and others[best] > 0.5 else None
        yield StageError(name, correlation, _relative(ours - theirs, theirs), resembles)


def _relative(difference: np.ndarray, whole: np.ndarray) -> float:
    """Mean over rows of ‖difference‖ / ‖whole‖; rows that are all zeros on both sides count as equal."""
    above, below = (np.sqrt(np.square(x, dtype=np.float64).sum(-1)) for x in (difference, whole))
    return float(np.where(above > 0, above / np.maximum(below, 1e-300), 0.0).clip(max=1e6).mean())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    dots, lengths = (a * b).sum(-1), np.sqrt(np.square(a).sum(-1) * np.square(b).sum(-1))
    return float(np.where(lengths > 0, dots / np.maximum(lengths, 1e-300), a.any() == b.any()).mean())


def _compare(ours: np.ndarray, theirs: np.ndarray, ids: np.ndarray, layers: list[LayerError]) -> Measured:
    kl, agreed, losses = np.zeros(len(ids)), np.zeros(len(ids), bool), np.zeros((2, len(ids) - 1))
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        new, old = (_log_softmax(logits[rows]) for logits in (ours, theirs))
        kl[rows] = (np.exp(old) * (old - new)).sum(-1).clip(min=0)
        agreed[rows] = new.argmax(-1) == old.argmax(-1)
        following = ids[start + 1 : start + 1 + _ROWS_AT_ONCE]
        at = np.arange(len(following))
        losses[:, start : start + len(following)] = -new[at, following], -old[at, following]
    means = losses.mean(1) if losses.size else np.zeros(2)
    return Measured(kl, agreed, float(means[0]), float(means[1]), layers)


def negative_log_likelihood(logits: np.ndarray, ids: np.ndarray) -> float:
    """Mean nats lost at the tokens after the first: logits (n, n_vocab) after `ids` (n,)."""
    rows = range(len(ids) - 1)
    return float(-np.mean([_log_softmax(logits[row : row + 1])[0, ids[row + 1]] for row in rows])) if len(ids) > 1 else 0.0


def _log_softmax(logits: np.ndarray) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
