"""Allocation against all combinations of small cases, and what it must do in large ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ggpy.picker.allocate import Infeasible, Knapsack, Option


def random_items(seed: int, n_items: int, n_options: int) -> list[list[Option]]:
    """Items as tensors are: more bits, less KL, of sizes and sensitivities far apart."""
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(n_items):
        size, weight = 10 ** rng.uniform(3, 6), 10 ** rng.uniform(-5, -1)
        bits = np.sort(rng.uniform(2, 9, n_options))
        items.append(
            [Option(f"f{j}", float(weight * 4.0**-b), float(size * b / 8), float(size * rng.uniform(2, 9))) for j, b in enumerate(bits)]
        )
    return items


def best_of_all(items: list[list[Option]], cost: str, bounds: dict[str, float]) -> float:
    totals = ({c: sum(getattr(o, c) for o in options) for c in ("kl", "n_bytes", "seconds")} for options in itertools.product(*items))
    return min(total[cost] for total in totals if all(total[b] <= most for b, most in bounds.items()))


@pytest.mark.parametrize("seed", range(12))
def test_small_cases_are_within_a_step_of_the_best_of_all_combinations(seed: int):
    items = random_items(seed, 6, 5)
    knapsack = Knapsack(items)
    most = knapsack.least("n_bytes") * 1.7
    chosen = knapsack.minimise("kl", {"n_bytes": most})
    assert knapsack.total(chosen, "n_bytes") <= most
    best = best_of_all(items, "kl", {"n_bytes": most})
    assert best <= knapsack.total(chosen, "kl") * (1 + 1e-9)
    assert knapsack.total(chosen, "kl") <= 1.3 * best


@pytest.mark.parametrize("seed", range(6))
def test_two_bounds_are_kept_and_cost_little(seed: int):
    items = random_items(seed, 6, 5)
    knapsack = Knapsack(items)
    bounds = {"n_bytes": knapsack.least("n_bytes") * 2.0, "seconds": knapsack.least("seconds") * 1.4}
    chosen = knapsack.minimise("kl", bounds)
    assert all(knapsack.total(chosen, cost) <= most for cost, most in bounds.items())
    assert knapsack.total(chosen, "kl") <= 2.0 * best_of_all(items, "kl", bounds)


def test_many_items_come_within_a_thousandth_of_the_bound_on_what_is_possible():
    knapsack = Knapsack(random_items(1, 300, 10))
    most = knapsack.least("n_bytes") * 1.8
    chosen = knapsack.minimise("kl", {"n_bytes": most})
    # by weak duality no choice within the bound has less than min(kl + w (bytes - most)), for any w
    bounds = []
    for w in np.geomspace(1e-16, 1e-4, 400):
        costs = [min(o.kl + w * o.n_bytes for o in options) for options in knapsack.items]
        bounds.append(sum(costs) - w * most)
    assert knapsack.total(chosen, "kl") <= max(bounds) * 1.001
    assert 0.999 * most <= knapsack.total(chosen, "n_bytes") <= most


def test_the_choice_does_not_depend_on_the_order_of_options():
    items = random_items(5, 40, 8)
    knapsack, turned = Knapsack(items), Knapsack([options[::-1] for options in items])
    bounds = {"n_bytes": knapsack.least("n_bytes") * 1.5}
    first, second = (k.options(k.minimise("kl", bounds)) for k in (knapsack, turned))
    assert first == second


def test_an_option_that_another_beats_is_never_chosen():
    good, bad = Option("good", 0.1, 100, 1.0), Option("bad", 0.2, 100, 1.5)
    assert Knapsack([[bad, good]]).items == [[good]]
    equal = Option("equal", 0.1, 100, 1.0)
    assert Knapsack([[good, equal]]).items == [[equal]]  # by name


def test_impossible_bounds_name_the_cost_and_what_is_possible():
    knapsack = Knapsack(random_items(3, 5, 4))
    with pytest.raises(Infeasible) as caught:
        knapsack.minimise("kl", {"n_bytes": knapsack.least("n_bytes") * 0.9})
    assert caught.value.cost == "n_bytes"
    assert caught.value.best == knapsack.least("n_bytes")


def test_bounds_that_only_together_are_impossible_are_told():
    items = [[Option("small", 1.0, 10, 5.0), Option("fast", 0.5, 50, 1.0)]] * 3
    with pytest.raises(Infeasible) as caught:
        Knapsack(items).minimise("kl", {"n_bytes": 60, "seconds": 6})
    assert caught.value.best > {"n_bytes": 60, "seconds": 6}[caught.value.cost]


def test_the_front_goes_from_the_smallest_to_the_best():
    knapsack = Knapsack(random_items(2, 60, 8))
    front = knapsack.front(20)
    sizes, kls = ([knapsack.total(chosen, cost) for chosen in front] for cost in ("n_bytes", "kl"))
    assert sizes == sorted(sizes)
    assert kls == sorted(kls, reverse=True)
    assert sizes[0] == pytest.approx(knapsack.least("n_bytes"))
    assert kls[-1] == pytest.approx(knapsack.least("kl"), rel=1e-6)
