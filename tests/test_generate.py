"""Generators and models on tiny random files: prefix reuse, limits, threads, faults, stop texts."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.errors import ContextError, GGPyError, ModelError
from ggpy.generate import Generator
from ggpy.sampling import Sampler
from ggpy.stop_texts import StopTexts

from .runtime.tiny import write_llama, write_llama_with_nan

PROMPT = [1, 75, 104, 111, 120]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("model") / "tiny.gguf", "Q8_0", context=96)


@pytest.fixture
def model(path: Path):
    with ggpy.load(path, threads=2) as model:
        yield model


@pytest.fixture
def generator(model: ggpy.Model) -> Generator:
    return model.generator()


def test_a_shared_beginning_is_not_evaluated_again(generator: Generator):
    fresh = generator.prefill([*PROMPT, 9, 8]).copy()
    assert (generator.usage.prompt_tokens, generator.usage.cached_tokens) == (7, 0)
    generator.prefill([*PROMPT, 50, 60, 70, 80])
    assert generator.usage.cached_tokens == 5
    again = generator.prefill([*PROMPT, 9, 8])
    assert generator.usage.cached_tokens == 5
    assert generator.ids == (*PROMPT, 9, 8)
    assert np.abs(again - fresh).max() <= 0.1 * fresh.std()  # other batch sizes round activations along other paths
    same = generator.prefill([*PROMPT, 9, 8])
    assert generator.usage.cached_tokens == 6
    assert np.isfinite(same).all()


@pytest.mark.parametrize("first", [0, 3, 31, 32, 39])
def test_logits_come_from_any_token_on(model: ggpy.Model, first: int):
    ids = [(7 * i) % 200 + 1 for i in range(40)]
    generator = Generator(model.network, 96, threads=1, batch=16)
    every = generator.logits(ids)
    np.testing.assert_allclose(generator.logits(ids, first), every[first:], atol=1e-4)  # a single row is multiplied by another kernel
    parts = [(start, rows.copy()) for start, rows in generator.logits_by_batch(ids, first)]
    assert parts[0][0] == first and all(len(rows) <= 16 for _, rows in parts)
    np.testing.assert_allclose(np.concatenate([rows for _, rows in parts]), every[first:], atol=1e-4)


def test_decode_continues_where_prefill_ended(generator: Generator):
    generator.prefill(PROMPT)
    logits = generator.decode(42).copy()
    assert generator.ids == (*PROMPT, 42)
    generator.rewind(5)
    assert generator.ids == tuple(PROMPT)
    assert np.array_equal(generator.decode(42), logits)
    assert generator.usage.generated_tokens == 2


def test_logits_of_every_token_are_those_of_every_prefix(generator: Generator):
    every = generator.logits(PROMPT)
    assert every.shape == (5, 320) and every.dtype == np.float32
    generator.rewind(0)
    last = generator.prefill(PROMPT)
    assert np.abs(every[-1] - last).max() <= 1e-5 * last.std()


def test_prompts_longer_than_a_batch(path: Path):
    with ggpy.load(path, threads=1) as model:
        ids = list(np.random.default_rng(0).integers(3, 259, 90))
        short = Generator(model.network, 96, threads=1, batch=7)
        assert np.abs(short.prefill(ids) - model.generator().prefill(ids)).max() <= 1e-3 * short.prefill(ids).std()


@pytest.mark.parametrize(("ids", "error"), [([], ValueError), ([320], ValueError), ([-1], ValueError), ([5] * 97, ContextError)])
def test_ids_that_cannot_be(generator: Generator, ids: list[int], error: type[Exception]):
    with pytest.raises(error):
        generator.prefill(ids)
    assert np.isfinite(generator.prefill(PROMPT)).all()


def test_a_full_context_ends_the_stream_and_says_so(model: ggpy.Model):
    steps = list(model.stream([5] * 90, temperature=0, stop=()))
    assert len(steps) <= 6 and steps[-1].finish in ("context", "stop")
    with pytest.raises(ContextError, match="96 tokens and leaves no room in the context of 96"):
        model.stream([5] * 96)


def test_greedy_streams_repeat_and_seeds_decide(model: ggpy.Model):
    greedy = [s.token for s in model.stream(PROMPT, max_tokens=20, temperature=0)]
    assert greedy == [s.token for s in model.stream(PROMPT, max_tokens=20, temperature=0)]
    drawn = [[s.token for s in model.stream(PROMPT, max_tokens=20, temperature=1.5, seed=seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_threads_do_not_change_the_text(path: Path):
    texts = set()
    for threads in (1, 2, 3):
        with ggpy.load(path, threads=threads) as model:
            texts.add(model.complete(PROMPT, max_tokens=30, temperature=0))
    assert len(texts) == 1


def test_steps_say_why_they_end(model: ggpy.Model):
    steps = list(model.stream(PROMPT, max_tokens=3, temperature=0))
    assert [s.finish for s in steps] == [None, None, "length"] or steps[-1].finish == "stop"
    assert list(model.stream(PROMPT, max_tokens=0)) == []


def test_an_end_token_ends_the_stream_without_its_text(model: ggpy.Model, monkeypatch: pytest.MonkeyPatch):
    script = iter([72, 105, 2, 99])
    monkeypatch.setattr(Sampler, "pick", lambda *_: next(script))
    steps = list(model.stream(PROMPT, max_tokens=10))
    assert [s.token for s in steps] == [72, 105, 2] and steps[-1].finish == "stop"
    assert "".join(s.text for s in steps) == bytes([72 - 3, 105 - 3]).decode()


def test_many_threads_share_a_model(path: Path):
    with ggpy.load(path, threads=1) as model:
        prompts = [[1, 10 + i, 20 + i, 30 + i] for i in range(6)]
        alone = [model.complete(p, max_tokens=12, temperature=0) for p in prompts]
        results: dict[int, list[str]] = {i: [] for i in range(6)}

        def ask(i: int) -> None:
            for _ in range(5):
                results[i].append(model.complete(prompts[i], max_tokens=12, temperature=0))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(texts == [alone[i]] * 5 for i, texts in results.items())


def cached(model: ggpy.Model) -> list[int]:
    """How many tokens of its last prompt each idle generator had already."""
    return [generator.usage.cached_tokens for generator in model._idle]


def test_requests_with_a_common_beginning_take_it_from_one_that_is_at_work(model: ggpy.Model):
    system = list(range(10, 50))
    alone = model.complete([*system, 7, 8], max_tokens=5, temperature=0)
    first = model.stream([*system, 100, 101, 102], temperature=0)
    next(first)
    assert model.complete([*system, 7, 8], max_tokens=5, temperature=0) == alone
    assert cached(model) == [40]
    rest = list(first)
    assert rest and max(cached(model)) == 40


def test_a_conversation_is_not_lost_to_a_request_that_shares_its_beginning(model: ggpy.Model):
    """Of two idle generators, the one with the long text passes on the common beginning and keeps the rest."""
    system = list(range(10, 40))
    conversation = [*system, *range(100, 150)]
    first = model.stream(conversation, max_tokens=2)
    next(first)
    model.complete([200, 201], max_tokens=1)
    list(first)
    model.complete([*system, 7, 8, 9], max_tokens=1)
    assert sorted(cached(model)) == [0, 30]
    model.complete([*conversation, 5], max_tokens=1)
    assert sorted(cached(model)) == [30, 80]


def test_a_beginning_that_changes_while_it_is_copied_is_not_taken(model: ggpy.Model, monkeypatch: pytest.MonkeyPatch):
    source, target = model.generator(), model.generator()
    source.prefill(list(range(10, 60)))
    cache = target.program.cache
    copy = cache.copy

    def copy_late(*args):
        source.rewind(20)
        copy(*args)

    monkeypatch.setattr(cache, "copy", copy_late)
    target.copy_prefix(source, list(range(10, 60)))
    assert target.ids == ()
    monkeypatch.setattr(cache, "copy", copy)
    target.copy_prefix(source, list(range(10, 60)))
    assert target.ids == tuple(range(10, 30))
    want = source.prefill(list(range(10, 40))).copy()
    assert np.array_equal(target.prefill(list(range(10, 40))), want)


def test_one_generator_refuses_two_threads_at_once(generator: Generator, monkeypatch: pytest.MonkeyPatch):
    inside, leave = threading.Event(), threading.Event()
    run = generator.program.run

    def slow(*args, **kwargs):
        inside.set()
        leave.wait(10)
        return run(*args, **kwargs)

    monkeypatch.setattr(generator.program, "run", slow)
    first = threading.Thread(target=generator.prefill, args=(PROMPT,))
    first.start()
    inside.wait(10)
    with pytest.raises(GGPyError, match="another thread"):
        generator.prefill(PROMPT)
    leave.set()
    first.join()


def test_a_stream_given_up_leaves_the_model_usable(model: ggpy.Model):
    stream = model.stream(PROMPT, temperature=0)
    next(stream)
    stream.close()
    assert len(list(model.stream(PROMPT, max_tokens=4, temperature=0))) <= 4


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_weights_that_are_not_finite_end_in_an_error_that_names_them(tmp_path: Path):
    path = write_llama_with_nan(tmp_path / "m.gguf", "blk.1.ffn_down.weight")
    with ggpy.load(path, threads=2) as model, pytest.raises(ModelError, match=r"blk\.1\.ffn_down\.weight has 1 values"):
        model.complete(PROMPT, max_tokens=2)


def test_a_context_that_does_not_fit_memory_is_refused_with_the_numbers(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ggpy.generate.available_memory", lambda: 100_000)
    with pytest.raises(ModelError, match=r"a context of 4096 tokens needs 4 MB .* 0 MB are free; the largest that fits is 97$"):
        ggpy.load(path, context=4096)


def test_a_file_replaced_in_place_is_noticed(tmp_path: Path):
    path = write_llama(tmp_path / "m.gguf", "F32")
    with ggpy.load(path) as model:
        with path.open("r+b") as file:
            file.seek(-4, 2)
            file.write(b"\0\0\0\1")
        with pytest.raises(GGPyError, match="changed"):
            model.complete(PROMPT, max_tokens=1)


def test_wrong_settings_name_themselves(model: ggpy.Model, path: Path):
    for settings, name in [
        ({"temperature": -1}, "temperature"),
        ({"top_k": -2}, "top_k"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": [""]}, "stop"),
    ]:
        with pytest.raises(GGPyError, match=name):
            model.stream(PROMPT, **settings)
    with pytest.raises(GGPyError, match="threads is 0"):
        ggpy.load(path, threads=0)
    with pytest.raises(GGPyError, match="context is 0"):
        ggpy.load(path, context=0)


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["a", "b", "c"], [], ("abc", False)),
        (["he", "llo wor", "ld"], ["o w"], ("hell", True)),
        (["a", "b", "a", "c"], ["abab"], ("abac", False)),
        (["x\n", "\n", "y"], ["\n\n"], ("x", True)),
        (["abc"], ["c", "b"], ("a", True)),
    ],
)
def test_stop_texts_are_found_across_tokens(pieces: list[str], stops: list[str], expected: tuple[str, bool]):
    watcher, shown, ended = StopTexts(stops), "", False
    for piece in pieces:
        text, ended = watcher.feed(piece)
        shown += text
        if ended:
            break
    assert (shown if ended else shown + watcher.release(), ended) == expected
