"""Several sequences at once on tiny random files: the same answers as alone, slots, common beginnings, faults."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.batch import BatchGenerator
from ggpy.errors import ContextError, GGPyError, ModelError
from ggpy.generate import Generator
from ggpy.sampling import Sampler

from .runtime.lockstep import loaded
from .runtime.tiny import write_llama, write_llama_with_nan

RNG = np.random.default_rng


def prompt(seed: int, length: int) -> list[int]:
    return [1, *RNG(seed).integers(3, 259, length - 1).tolist()]


@pytest.fixture(scope="module", params=["F32", "Q8_0"])
def path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return write_llama(tmp_path_factory.mktemp("model") / "tiny.gguf", request.param, context=256)


@pytest.fixture
def model(path: Path):
    with ggpy.load(path, threads=2) as model:
        yield model


def batch_of(model: ggpy.Model, slots: int = 3, **settings: int) -> BatchGenerator:
    return BatchGenerator(model.network, 256, slots, threads=2, **settings)


def alone(model: ggpy.Model, ids: Sequence[int]) -> np.ndarray:
    """Logits after `ids` by a generator that holds nothing else, its last token decoded by itself."""
    generator = Generator(model.network, 256, threads=1)
    if len(ids) == 1:
        return generator.prefill(ids).copy()
    generator.prefill(ids[:-1])
    return generator.decode(ids[-1]).copy()


def run(batch: BatchGenerator, slots: Sequence[int]) -> dict[int, np.ndarray]:
    """Steps until all of `slots` have logits."""
    found: dict[int, np.ndarray] = {}
    while not found.keys() >= set(slots):
        found |= {slot: row.copy() for slot, row in batch.step().items()}
    return found


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    """Products of many tokens sum in another order than those of one, and rounding to float16 or int8 may then go the other way: up to 8 %
    of the spread of logits here, while those of other tokens are apart by more than all of it."""
    assert np.abs(got - want).max() <= 0.08 * want.std()


def test_prompts_and_single_tokens_share_passes(model: ggpy.Model):
    batch = batch_of(model)
    first, second = prompt(1, 40), prompt(2, 7)
    a = batch.add(first)
    assert_close(run(batch, [a])[a], alone(model, first))
    b = batch.add(second)
    batch.append(a, 77)
    logits = batch.step()
    assert set(logits) == {a, b}
    assert_close(logits[a], alone(model, [*first, 77]))
    assert_close(logits[b], alone(model, second))
    assert batch.ids(a) == (*first, 77) and batch.step() == {}


@pytest.mark.parametrize("name", ["F32", "Q4_K"])
def test_a_sequence_does_not_depend_on_the_others(tmp_path: Path, name: str):
    """Equal bits whatever the other sequences are, in passes of as many tokens; and on any number of threads."""
    with ggpy.load(write_llama(tmp_path / "m.gguf", name), threads=1) as model:
        results = []
        for threads, seed in ((1, 10), (2, 20), (3, 30)):
            batch = BatchGenerator(model.network, 256, 6, threads=threads)
            slots = [batch.add(ids) for ids in [prompt(1, 30), *(prompt(seed + i, 25) for i in range(5))]]
            rows = [batch.step()[slots[0]].copy()]
            for token in (50, 60, 70):
                for slot in slots:
                    batch.append(slot, token + (slot != slots[0]) * seed)
                rows.append(batch.step()[slots[0]].copy())
            results.append(np.stack(rows))
        assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_a_batch_agrees_with_the_reference(tmp_path: Path):
    with loaded(path := write_llama(tmp_path / "m.gguf", "F32")) as reference, ggpy.load(path, threads=2) as model:
        batch = batch_of(model, 3)
        prompts = [prompt(1, 70), prompt(2, 3), prompt(3, 33)]
        slots = [batch.add(ids) for ids in prompts]
        logits = run(batch, slots)
        for slot, ids in zip(slots, prompts, strict=True):
            want = reference.reference(ids, 1)[0]
            assert np.abs(logits[slot] - want).max() <= 5e-3 * want.std()


def test_prompts_longer_than_a_pass(model: ggpy.Model):
    batch = batch_of(model, 2, batch=16)
    first, second = prompt(1, 50), prompt(2, 5)
    a, b = batch.add(first), batch.add(second)
    passes, logits = 0, {}
    while not logits.keys() >= {a, b}:
        logits |= {slot: row.copy() for slot, row in batch.step().items()}
        passes += 1
    assert passes == 4  # 55 tokens
    assert_close(logits[a], alone(model, first))
    assert_close(logits[b], alone(model, second))


def test_slots_are_given_free_and_taken_again(model: ggpy.Model):
    batch = batch_of(model, 2)
    a, b = batch.add(prompt(1, 5)), batch.add(prompt(2, 5))
    with pytest.raises(GGPyError, match="all 2 slots"):
        batch.add(prompt(3, 5))
    run(batch, [a, b])
    batch.remove(a)
    assert batch.free_slots == 1
    with pytest.raises(ValueError, match=f"slot {a} holds no sequence"):
        batch.append(a, 5)
    third = prompt(3, 9)
    assert batch.add(third) == a
    batch.append(b, 9)
    logits = batch.step()
    assert_close(logits[a], alone(model, third))
    assert_close(logits[b], alone(model, [*prompt(2, 5), 9]))


def test_a_common_beginning_is_evaluated_once(model: ggpy.Model, monkeypatch: pytest.MonkeyPatch):
    batch = batch_of(model, 4)
    evaluated = []
    walk = batch.program.run_segments

    def counted(segments, rows, out=None):
        evaluated.append(sum(len(segment.tokens) for segment in segments))
        return walk(segments, rows, out)

    monkeypatch.setattr(batch.program, "run_segments", counted)
    system = prompt(1, 60)
    prompts = [[*system, 100 + i, *prompt(10 + i, 5)] for i in range(3)]
    slots = [batch.add(ids) for ids in prompts]
    logits = run(batch, slots)
    assert evaluated == [66, 12] and [batch.cached_tokens(slot) for slot in slots] == [0, 60, 60]
    for slot, ids in zip(slots, prompts, strict=True):
        assert_close(logits[slot], alone(model, ids))
    batch.remove(slots[0])
    other = prompt(5, 40)
    d = batch.add(other)  # into the slot that was never used, not over the removed sequence
    e = batch.add([*prompts[0], 9, 8])
    assert d not in slots and e == slots[0] and batch.cached_tokens(e) == 66
    assert_close(run(batch, [d, e])[e], alone(model, [*prompts[0], 9, 8]))


def test_a_generator_gives_its_beginning_to_a_batch(model: ggpy.Model):
    generator, batch = model.generator(), batch_of(model)
    ids = prompt(1, 90)
    generator.prefill(ids)
    slot = batch.add([*ids[:80], 5, 6], like=generator)
    assert batch.cached_tokens(slot) == 80
    assert_close(run(batch, [slot])[slot], alone(model, [*ids[:80], 5, 6]))


@pytest.mark.parametrize(("ids", "error"), [([], ValueError), ([320], ValueError), ([-1], ValueError), ([5] * 257, ContextError)])
def test_ids_that_cannot_be(model: ggpy.Model, ids: list[int], error: type[Exception]):
    batch = batch_of(model)
    with pytest.raises(error):
        batch.add(ids)
    assert batch.free_slots == 3


def test_a_full_sequence_takes_no_more(model: ggpy.Model):
    batch = batch_of(model)
    slot = batch.add([5] * 256)
    run(batch, [slot])
    with pytest.raises(ContextError, match="256 tokens is full"):
        batch.append(slot, 5)


def test_answers_are_those_of_single_runs(model: ggpy.Model):
    """Greedy, prompts and answers of different lengths, fewer slots than prompts. Where logits of two tokens nearly tie, rounding may
    decide: a text may differ only from such a place on."""
    prompts = [prompt(i, 4 + 9 * i) for i in range(7)]
    asked = [ggpy.Prompt(ids, max_tokens=5 + 4 * i) for i, ids in enumerate(prompts)]
    steps: list[list[ggpy.Step]] = [[] for _ in prompts]
    for number, step in model.stream_batch(asked, at_once=3, temperature=0):
        steps[number].append(step)
    for i, ids in enumerate(prompts):
        want = list(model.stream(ids, max_tokens=5 + 4 * i, temperature=0))
        assert steps[i][-1].finish in ("length", "stop")
        same = next((n for n, (a, b) in enumerate(zip(steps[i], want, strict=False)) if a.token != b.token), None)
        if same is None:
            assert steps[i] == want
        else:
            logits = alone(model, [*ids, *(s.token for s in want[:same])])
            assert abs(logits[want[same].token] - logits[steps[i][same].token]) <= 0.16 * logits.std()


def test_each_prompt_has_settings_of_its_own(model: ggpy.Model, monkeypatch: pytest.MonkeyPatch):
    script = {71: iter("one\ntwo"), 72: iter("three, four"), 73: iter("five")}
    monkeypatch.setattr(Sampler, "pick", lambda self, logits, history: 3 + ord(next(script[history[0]])))
    asked = [ggpy.Prompt([71], stop=["\n"]), ggpy.Prompt([72], stop=[", "]), [73]]
    assert model.complete_batch(asked, max_tokens=4, stop=["x"]) == ["one", "thre", "five"]
    seeds = []
    monkeypatch.setattr(Sampler, "pick", lambda self, logits, history: seeds.append((history[0], self.seed)) or 5)
    model.complete_batch([ggpy.Prompt([71], seed=7), [72]], max_tokens=1, seed=3)
    assert sorted(seeds) == [(71, 7), (72, 3)]


def test_a_batch_refuses_what_a_stream_refuses(model: ggpy.Model):
    for settings, error in [
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"at_once": 0}, "at_once"),
    ]:
        with pytest.raises(GGPyError, match=error):
            model.stream_batch([[5]], **settings)
    with pytest.raises(ContextError, match="300 tokens and leaves no room in the context of 256"):
        model.stream_batch([[5], [5] * 300])
    with pytest.raises(TypeError, match="'speed'"):
        model.stream_batch([[5]], speed=9)
    assert model.complete_batch([]) == [] and model.complete_batch([[5], [6]], max_tokens=0) == ["", ""]


def test_a_batch_given_up_leaves_the_model_usable(model: ggpy.Model):
    stream = model.stream_batch([prompt(1, 5), prompt(2, 5), prompt(3, 5)], at_once=2, temperature=0)
    next(stream)
    stream.close()
    prompts = [prompt(4, 5), prompt(1, 5)]
    texts = model.complete_batch(prompts, max_tokens=3, temperature=0)
    assert len(texts) == 2


def test_a_batch_without_memory_for_all_works_on_fewer_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch):
    with ggpy.load(path, threads=1) as model:
        monkeypatch.setattr("ggpy.generate.available_memory", lambda: 3 * 256 * model.network.shape.bytes_per_position())
        assert len(model.complete_batch([prompt(i, 5) for i in range(6)], temperature=0, stop=["x"])) == 6
        with pytest.raises(ModelError, match="of 4 sequences"):
            batch_of(model, 4)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_weights_that_are_not_finite_end_a_batch_in_an_error(tmp_path: Path):
    path = write_llama_with_nan(tmp_path / "m.gguf", "blk.1.ffn_down.weight")
    with ggpy.load(path, threads=2) as model, pytest.raises(ModelError, match=r"blk\.1\.ffn_down\.weight has 1 values"):
        model.complete_batch([prompt(1, 5), prompt(2, 5)], max_tokens=2)


def test_one_batch_refuses_two_threads_at_once(model: ggpy.Model, monkeypatch: pytest.MonkeyPatch):
    batch = batch_of(model)
    inside, leave = threading.Event(), threading.Event()
    walk = batch.program.run_segments

    def slow(*args):
        inside.set()
        leave.wait(10)
        return walk(*args)

    monkeypatch.setattr(batch.program, "run_segments", slow)
    batch.add([5])
    first = threading.Thread(target=batch.step)
    first.start()
    inside.wait(10)
    with pytest.raises(GGPyError, match="BatchGenerator is at work in another thread"):
        batch.step()
    leave.set()
    first.join()
