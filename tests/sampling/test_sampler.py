from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ggpy.errors import GGPyError
from ggpy.sampling import Sampler

EVERYTHING: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
N = 5000


def frequencies(sampler: Sampler, logits: np.ndarray) -> np.ndarray:
    return np.bincount([sampler.pick(logits) for _ in range(N)], minlength=len(logits))


def expected(weights: list[float]) -> np.ndarray:
    return N * np.array(weights) / sum(weights)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, [8, 4, 2, 1, 1]),
        ({"temperature": 0.5}, [64, 16, 4, 1, 1]),
        ({"temperature": 2.0}, [8**0.5, 2, 2**0.5, 1, 1]),
        ({"top_k": 2}, [8, 4, 0, 0, 0]),
        ({"top_k": 4}, [8, 4, 2, 1, 0]),
        ({"top_p": 0.5}, [1, 0, 0, 0, 0]),
        ({"top_p": 0.51}, [8, 4, 0, 0, 0]),
        ({"top_p": 0.8}, [8, 4, 2, 0, 0]),
        ({"min_p": 0.2}, [8, 4, 2, 0, 0]),
        ({"min_p": 1.0}, [1, 0, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.6}, [8, 4, 0, 0, 0]),
        ({"top_k": 4, "top_p": 0.99, "min_p": 0.3, "temperature": 0.5}, [4, 1, 0, 0, 0]),
    ],
)
def test_choices_are_distributed_as_asked(settings: dict[str, Any], weights: list[float]) -> None:
    logits = np.log(np.array([8, 4, 2, 1, 1], np.float32))
    order = np.array([3, 0, 4, 1, 2])  # the likely tokens are not the first ones
    counts = frequencies(Sampler(**EVERYTHING | settings, seed=7), logits[np.argsort(order)])[order]
    wanted = expected(weights)
    assert (counts[wanted == 0] == 0).all()
    possible = wanted > 0
    chi_square = float(((counts - wanted)[possible] ** 2 / wanted[possible]).sum())
    assert chi_square < 18.5  # 99.9 % of four degrees of freedom; the seed is fixed


def test_the_default_cuts_a_large_vocabulary_to_forty() -> None:
    logits = np.random.default_rng(0).normal(0, 0.01, 50_000).astype(np.float32)
    sampler = Sampler(temperature=1.0, top_p=1.0, min_p=0.0, seed=3)
    assert {sampler.pick(logits) for _ in range(2000)} == set(np.argsort(-logits)[:40].tolist())


def test_temperature_0_takes_the_first_of_the_most_likely() -> None:
    sampler = Sampler(temperature=0.0)
    logits = np.array([1.0, 5.0, 5.0, -2.0], np.float32)
    assert [sampler.pick(logits) for _ in range(5)] == [1] * 5
    assert Sampler(temperature=3.0, top_k=1).pick(logits) == 1


def test_the_seed_determines_the_choices() -> None:
    logits = np.random.default_rng(1).normal(0, 2, 1000).astype(np.float32)

    def run(seed: int | None) -> list[int]:
        sampler = Sampler(seed=seed)
        return [sampler.pick(logits) for _ in range(50)]

    assert run(1) == run(1) != run(2)
    assert run(None) != run(None)


def test_the_same_seed_means_the_same_choices_everywhere() -> None:
    sampler = Sampler(**EVERYTHING, seed=0)  # MT19937 gives 0.844, 0.758, 0.421, 0.259, 0.511
    assert [sampler.pick(np.zeros(10, np.float32)) for _ in range(5)] == [8, 7, 4, 2, 5]


def test_repeated_tokens_are_less_likely() -> None:
    logits = np.array([4.0, 3.9, -1.0], np.float32)
    greedy = {"temperature": 0.0, "repeat_penalty": 2.0}
    assert Sampler(**greedy).pick(logits, [0]) == 1
    assert Sampler(**greedy).pick(logits, [1]) == 0
    assert Sampler(**greedy, repeat_last_n=2).pick(logits, [0, 2, 2]) == 0
    assert Sampler(**greedy, repeat_last_n=-1).pick(logits, [0, *[2] * 500]) == 1
    assert Sampler(**greedy, repeat_last_n=0).pick(logits, [0]) == 0
    assert Sampler(**greedy).pick(logits, np.array([0, 7, -3])) == 1
    assert logits.tolist() == np.array([4.0, 3.9, -1.0], np.float32).tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(bad: float, temperature: float) -> None:
    logits = np.zeros(100, np.float32)
    logits[[17, 40]] = bad
    with pytest.raises(GGPyError, match=rf"2 of 100 logits are not finite \(first: {bad} for token 17\)"):
        Sampler(temperature=temperature).pick(logits)


@pytest.mark.parametrize("shape", [(0,), (2, 3), ()])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GGPyError, match=r"logits have shape \["):
        Sampler().pick(np.zeros(shape, np.float32))


NUMBERS = [math.nan, math.inf, -math.inf, -1.0, -1e-9, "1", None, True, [1], 2**70]
BAD = {
    "temperature": [*NUMBERS[:9]],
    "top_k": [math.nan, math.inf, -1, 1.5, 2**31, "40", None, True, [1]],
    "top_p": [*NUMBERS, 0, 0.0, 1.0001],
    "min_p": [*NUMBERS, 1.0001],
    "repeat_penalty": [*NUMBERS[:9], 0, 0.0],
    "repeat_last_n": [math.nan, -2, 0.5, 2**31, "64", None, True],
    "seed": [-1, 2**64, 1.0, "1", math.nan, True],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values], ids=repr)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(GGPyError, match=rf"^{name} is .*; expected a (whole )?number ") as caught:
        Sampler(**{name: value})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_settings_at_their_limits_are_accepted() -> None:
    Sampler(temperature=0, top_k=0, top_p=1, min_p=0, repeat_penalty=1e-300, repeat_last_n=-1, seed=0)
    sampler = Sampler(
        temperature=1e308, top_k=2**31 - 1, top_p=5e-324, min_p=1, repeat_penalty=1e308, repeat_last_n=2**31 - 1, seed=2**64 - 1
    )
    assert sampler.pick(np.array([1.0, 2.0], np.float32), [1]) == 0
    Sampler(temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint64(5))  # type: ignore[arg-type]


def test_samplers_compare_by_their_settings() -> None:
    assert Sampler(seed=1) == Sampler(seed=1) != Sampler(seed=2)
    assert repr(Sampler()).startswith("Sampler(temperature=0.8, top_k=40, ")
