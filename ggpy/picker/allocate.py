"""Which option for which item: the multiple-choice knapsack, by Lagrange multipliers and exchanges.

Every tensor is an item, its block formats are the options, with what each costs: KL divergence, bytes and seconds per token. One cost is
made as small as it gets while others stay within bounds. Weighing the costs against each other gives every item its best option at once
(Everett, 1963); multipliers are found at which the bounds are just kept, and what they leave unused is filled by changing one or two items
at a time. Of hundreds of items the result is within one item's step of the best there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COSTS = ("kl", "n_bytes", "seconds")
_STEPS = 48  # of a bisection over 24 decades of a multiplier
_ROUNDS = 200  # of exchanges, at the most


@dataclass(frozen=True)
class Option:
    """What an item costs in one way: KL divergence in nats, bytes, seconds per token."""

    format: str
    kl: float
    n_bytes: float
    seconds: float


class Infeasible(Exception):
    """No choice keeps the bounds. cost: the one that even the best choice for it does not keep; best: its least possible total, the other
    bounds being kept where they can be."""

    def __init__(self, cost: str, best: float):
        super().__init__(cost)
        self.cost, self.best = cost, best


class Knapsack:
    """Items with their options; an option that another beats in every cost is never chosen."""

    def __init__(self, items: Sequence[Sequence[Option]]):
        self.items = [_efficient(options) for options in items]
        width = max(map(len, self.items))
        self._costs = {cost: np.full((len(self.items), width), np.inf) for cost in COSTS}
        for i, options in enumerate(self.items):
            for j, option in enumerate(options):
                for cost in COSTS:
                    self._costs[cost][i, j] = getattr(option, cost)
        self._rows = np.arange(len(self.items))
        self._scale = {
            cost: max(float(np.where(np.isfinite(costs), costs, 0).max(axis=1).sum()), 1e-300) for cost, costs in self._costs.items()
        }

    def least(self, cost: str) -> float:
        """The smallest total there is of one cost alone."""
        return float(self._costs[cost].min(axis=1).sum())

    def total(self, chosen: NDArray[np.intp], cost: str) -> float:
        """Of a choice: the number of an option for each item."""
        return float(self._costs[cost][self._rows, chosen].sum())

    def options(self, chosen: NDArray[np.intp]) -> list[Option]:
        """The options with those numbers."""
        return [options[int(j)] for options, j in zip(self.items, chosen, strict=True)]

    def weighed(self, weights: Mapping[str, float]) -> NDArray[np.intp]:
        """Every item's best option by a weighted sum of costs, the smaller of equals."""
        with np.errstate(invalid="ignore"):
            total = sum(weights[cost] / self._scale[cost] * self._costs[cost] for cost in COSTS if weights.get(cost))
        return np.argmin(np.where(np.isnan(total), np.inf, total), axis=1)

    def minimise(self, cost: str, bounds: Mapping[str, float]) -> NDArray[np.intp]:
        """The choice with the smallest total of `cost` whose totals of others, at most two, are within `bounds`. Raises Infeasible."""
        for bound, most in bounds.items():
            if self.least(bound) > most * (1 + 1e-12):
                raise Infeasible(bound, self.least(bound))
        chosen = self._bisect({cost: 1.0}, list(bounds.items()))
        over = [bound for bound, most in bounds.items() if self.total(chosen, bound) > most * (1 + 1e-12)]
        if over:
            others = {bound: most for bound, most in bounds.items() if bound != over[0]}
            raise Infeasible(over[0], self.total(self.minimise(over[0], others), over[0]))
        return self._exchange(chosen, cost, bounds)

    def front(self, points: int = 64) -> list[NDArray[np.intp]]:
        """Choices from the smallest number of bytes to the smallest KL, each the best of its size."""
        found: dict[bytes, NDArray[np.intp]] = {}
        for multiplier in (0.0, *np.geomspace(1e-9, 1e9, 20 * points)):
            chosen = self.weighed({"n_bytes": 1.0, "kl": float(multiplier)})
            found.setdefault(chosen.tobytes(), chosen)
        choices = sorted(found.values(), key=lambda chosen: self.total(chosen, "n_bytes"))
        sizes = np.array([self.total(chosen, "n_bytes") for chosen in choices])
        wanted = np.geomspace(sizes[0], sizes[-1], points)
        return [choices[i] for i in sorted({int(np.argmin(np.abs(sizes - size))) for size in wanted})]

    def _bisect(self, weights: dict[str, float], bounds: list[tuple[str, float]]) -> NDArray[np.intp]:
        """The best choice by these weights that keeps the bounds, by multipliers found one inside the other; where none does, the one
        that comes nearest to the first bound."""
        if not bounds:
            return self.weighed(weights)
        (bound, most), *rest = bounds
        chosen = self._bisect(weights, rest)
        if self.total(chosen, bound) <= most:
            return chosen
        low, high = -12.0, 12.0  # decades of the multiplier
        best = self._bisect({**weights, bound: 10**high}, rest)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            chosen = self._bisect({**weights, bound: 10**middle}, rest)
            if self.total(chosen, bound) <= most:
                high, best = middle, chosen
            else:
                low = middle
        return best

    def _exchange(self, chosen: NDArray[np.intp], cost: str, bounds: Mapping[str, float]) -> NDArray[np.intp]:
        """Change one item, or two at once, as long as that makes the cost smaller and keeps the bounds."""
        chosen = chosen.copy()
        for _ in range(_ROUNDS):
            items, options = self._neighbours(chosen)
            now = {c: self._costs[c][items, chosen[items]] for c in (cost, *bounds)}
            step = {c: self._costs[c][items, options] - now[c] for c in (cost, *bounds)}
            room = {c: most - self.total(chosen, c) for c, most in bounds.items()}
            alone = np.all([step[c] <= room[c] for c in bounds], axis=0) if bounds else np.ones(len(items), bool)
            gain = np.where(alone, step[cost], 0.0)
            first, second = int(np.argmin(gain)), -1
            best = gain[first]
            both = step[cost][:, None] + step[cost][None, :]
            fits = items[:, None] != items[None, :]
            for c in bounds:
                fits &= step[c][:, None] + step[c][None, :] <= room[c]
            both = np.where(fits, both, 0.0)
            i, j = np.unravel_index(int(np.argmin(both)), both.shape)
            if both[i, j] < best:
                best, first, second = both[i, j], int(i), int(j)
            if best >= -1e-12 * self._scale[cost]:
                break
            for k in (first, second):
                if k >= 0:
                    chosen[items[k]] = options[k]
        return chosen

    def _neighbours(self, chosen: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(items, options): what each item could be changed to: the two options next to its own by size, on either side."""
        pairs = [
            (i, j)
            for i, options in enumerate(self.items)
            for j in range(max(0, int(chosen[i]) - 2), min(len(options), int(chosen[i]) + 3))
            if j != chosen[i]
        ]
        items, options = np.array(pairs, np.intp).reshape(-1, 2).T
        return items, options


def _efficient(options: Sequence[Option]) -> list[Option]:
    """Those that no other beats in every cost, the smallest first."""
    kept = []
    for i, option in enumerate(options):
        others = (o for j, o in enumerate(options) if j != i)
        if not any(_beats(o, option) for o in others) and option not in options[:i]:
            kept.append(option)
    return sorted(kept, key=lambda o: (o.n_bytes, o.kl, o.seconds, o.format))


def _beats(a: Option, b: Option) -> bool:
    """Whether a is no worse in any cost and better in one; of equals, the one whose name comes first."""
    ours, theirs = (a.kl, a.n_bytes, a.seconds), (b.kl, b.n_bytes, b.seconds)
    return all(x <= y for x, y in zip(ours, theirs, strict=True)) and (ours != theirs or a.format < b.format)
