"""Rows and columns that stand out: those whose magnitude, error or input is many times the median one's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NAMED = 8  # outliers named for each side of a tensor
POINTS = 192  # of a profile


@dataclass(frozen=True)
class Outlier:
    """A channel `index` that is `times` the median one in `what`: "magnitude", "error" or "input"."""

    index: int
    what: str
    times: float


@dataclass(frozen=True)
class Channels:
    """One side of a matrix, its rows (outputs) or its columns (inputs).

    count: of channels. outliers: the largest, at most `NAMED`; n_outliers: how many there are by what they stand out in. largest: how many
    times the median magnitude the largest is. magnitude, error, input: profiles, root mean squares of channels; where there are more than
    `POINTS` channels, each point is the largest of as many neighbours as `step` says. error and input are empty where not known.
    """

    count: int
    step: int
    largest: float
    outliers: tuple[Outlier, ...]
    n_outliers: dict[str, int]
    magnitude: tuple[float, ...]
    error: tuple[float, ...] = ()
    input: tuple[float, ...] = ()

    def named(self, what: str) -> list[Outlier]:
        return [outlier for outlier in self.outliers if outlier.what == what]


def channels(factor: float, magnitude: np.ndarray, error: np.ndarray | None = None, input: np.ndarray | None = None) -> Channels:
    """Of root mean squares by channel, each (channels,): those of at least `factor` times the median are outliers."""
    found: list[Outlier] = []
    counts: dict[str, int] = {}
    for what, values in (("magnitude", magnitude), ("error", error), ("input", input)):
        if values is None:
            continue
        times = _times(values)
        order = np.argsort(-times, kind="stable")[:NAMED]
        found += [Outlier(int(i), what, float(times[i])) for i in order if times[i] >= factor]
        counts[what] = int(np.count_nonzero(times >= factor))
    step = -(-len(magnitude) // POINTS) or 1
    profiles = (() if values is None else _profile(values, step) for values in (magnitude, error, input))
    return Channels(len(magnitude), step, float(_times(magnitude).max(initial=0.0)), tuple(found), counts, *profiles)


def _times(values: np.ndarray) -> np.ndarray:
    """Each as so many times the median; 0 where there is no median to speak of, and for what is not finite."""
    finite = values[np.isfinite(values)]
    median = float(np.median(finite)) if len(finite) else 0.0
    return np.where(np.isfinite(values), values / median, 0.0) if median > 0 else np.zeros(len(values))


def _profile(values: np.ndarray, step: int) -> tuple[float, ...]:
    values = np.where(np.isfinite(values), values, 0.0)
    padded = np.concatenate([values, np.zeros(-len(values) % step)])
    return tuple(float(f"{value:.4g}") for value in padded.reshape(-1, step).max(axis=1))


def in_words(outliers: Sequence[Outlier], noun: str) -> str:
    """Such as "column 12 (34 ×), 7 (9.1 ×)"."""
    listed = ", ".join(f"{outlier.index} ({outlier.times:.3g} ×)" for outlier in outliers)
    return f"{noun} {listed}" if len(outliers) == 1 else f"{noun}s {listed}"
