"""Likelihoods of continuations against a naive loop, and tasks on the bundled model."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.errors import ContextError, GGPyError
from ggpy.evaluate import Store, log_softmax
from ggpy.evaluate.continuations import Continuations, encode_pair
from ggpy.evaluate.tasks import match, read_task, run_task
from ggpy.evaluate.tasks.match import is_match
from ggpy.evaluate.tasks.report import Outcome, Share, label_reports
from tests.runtime.tiny import write_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    with ggpy.load(write_llama(tmp_path_factory.mktemp("model") / "tiny.gguf", "F32", context=96), threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def demo(demo_gguf: Path):
    with ggpy.load(demo_gguf, threads=2) as model:
        yield model


@pytest.mark.parametrize("prompt", [[5], [5, 9, 13, 40, 41, 42]])
def test_likelihoods_are_those_of_a_naive_loop(model: ggpy.Model, prompt: list[int]):
    continuations = [[7], [8, 9, 10], [7, 30], [60] * 20, [11, 12], [7]]
    worker = Continuations(model, 96, 1)
    found = worker.likelihoods(prompt, continuations)
    worker.close()
    for tokens, one in zip(continuations, found, strict=True):
        log_probs = log_softmax(model.logits([*prompt, *tokens]))[len(prompt) - 1 : -1]
        assert one.log_likelihood == pytest.approx(sum(float(row[token]) for row, token in zip(log_probs, tokens, strict=True)), abs=1e-2)
        assert one.n_tokens == len(tokens)
    best = int(model.logits(prompt)[-1].argmax())
    worker = Continuations(model, 96, 1)
    assert [one.is_greedy for one in worker.likelihoods(prompt, [[best], [(best + 1) % 200]])] == [True, False]
    worker.close()


def test_a_beginning_in_common_is_evaluated_once(model: ggpy.Model, monkeypatch: pytest.MonkeyPatch):
    worker, evaluated = Continuations(model, 96, 1), []
    run = worker._program.run_segments
    monkeypatch.setattr(
        worker._program,
        "run_segments",
        lambda segments, *more: [evaluated.append(len(s.tokens)) for s in segments] and run(segments, *more),
    )
    first = worker.likelihoods([5, *range(20, 50), 60], [[7, 8], [9]])
    assert evaluated == [31, 2, 1]
    other = worker.likelihoods([5, *range(20, 50), 61], [[7, 8], [9]])
    assert evaluated == [31, 2, 1, 2, 1]
    fresh = Continuations(model, 96, 1)
    assert [one.log_likelihood for one in fresh.likelihoods([5, *range(20, 50), 61], [[7, 8], [9]])] == pytest.approx(
        [one.log_likelihood for one in other], abs=1e-3
    )
    assert first != other
    with pytest.raises(ContextError, match="98 tokens do not fit the context of 96"):
        worker.likelihoods([5] * 95, [[1], [1, 2, 3]])
    with pytest.raises(ValueError, match="out of range"):
        worker.likelihoods([5], [[10**6]])
    for one in (worker, fresh):
        one.close()


def test_long_continuations_take_several_passes(model: ggpy.Model, monkeypatch: pytest.MonkeyPatch):
    tokens = [[(3 * i + j) % 200 for i in range(30)] for j in range(3)]
    whole, pieces = Continuations(model, 96, 1), Continuations(model, 96, 1)
    monkeypatch.setattr(pieces, "_batch", 8)
    expected = [one.log_likelihood for one in whole.likelihoods([5, 6], tokens)]
    assert [one.log_likelihood for one in pieces.likelihoods([5, 6], tokens)] == pytest.approx(expected, abs=1e-2)
    whole.close()
    pieces.close()


def test_a_pair_is_encoded_together(demo: ggpy.Model):
    prompt, rest = encode_pair(demo, "In the beginning ", "God")
    assert [*prompt, *rest] == demo.tokenize("In the beginning God", bos=True)
    assert demo.detokenize(rest).strip() == "God"
    start, rest = encode_pair(demo, "", "God")
    assert start == demo.start() and rest == demo.tokenize("God")


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


VERSE = "In the beginning God created the"
CHOICES = [
    {"prompt": VERSE, "choices": ["heaven and the earth", "zqx vjw kpb", "11 22"], "answer": 0},
    {"prompt": VERSE, "choices": ["zzz", "heaven"], "answer": "zzz"},
    {"prompt": "And God said, Let there be", "choices": ["light: and there was light", "xxxxxxxxx"], "answer": 0},
]


def test_choices_are_made_by_likelihood(demo: ggpy.Model, tmp_path: Path):
    told = []
    found = run_task(demo, read_task(write(tmp_path / "t", *CHOICES)), on_example=lambda *call: told.append(call))
    assert [(one.line, one.said, one.is_right) for one in found.outcomes] == [
        (1, "heaven and the earth", True), (2, "heaven", False), (3, "light: and there was light", True),
    ]  # fmt: skip
    assert found.accuracy.value == pytest.approx(2 / 3) and found.normalised is not None
    assert [call[:2] for call in told] == [(1, 3), (2, 3), (3, 3)]


def test_a_class_is_a_choice_among_all_labels(demo: ggpy.Model, tmp_path: Path):
    lines = [{"text": VERSE, "label": "heaven"}, {"text": VERSE, "label": "qqq"}, {"text": "And God said, Let there be", "label": "light"}]
    found = run_task(demo, read_task(write(tmp_path / "t", *lines)))
    assert found.kind == "classification" and [one.said for one in found.outcomes] == ["heaven", "heaven", "light"]
    by_label = {label.label: label for label in found.labels}
    assert (by_label["heaven"].recall, by_label["heaven"].precision, by_label["qqq"].recall) == (1, 0.5, 0)
    assert found.macro_f1 == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_answers_are_what_is_said_greedily(demo: ggpy.Model, tmp_path: Path):
    said = demo.complete(VERSE, max_tokens=4, temperature=0.0)
    lines = [
        {"prompt": VERSE, "answer": said},
        {"prompt": VERSE, "answers": ["zzz", said.split()[0]], "match": "contains"},
        {"prompt": VERSE, "answer": r"^\s*\w+", "match": "regex"},
        {"prompt": VERSE, "answer": "zzz"},
    ]
    found = run_task(demo, read_task(write(tmp_path / "t", *lines)), max_tokens=4)
    assert {one.line: one.is_right for one in found.outcomes} == {1: True, 2: True, 3: True, 4: False}
    assert found.normalised is None and found.accuracy.value == 0.75
    before = run_task(
        demo, read_task(write(tmp_path / "t", {"prompt": "created the", "answer": said})), prefix="In the beginning God ", max_tokens=4
    )
    assert before.accuracy.value == 1


def test_what_was_answered_is_not_asked_again(demo: ggpy.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path / "store")
    task = read_task(write(tmp_path / "t", *CHOICES))
    run_task(demo, read_task(tmp_path / "t", limit=2), store=store)
    monkeypatch.setattr(Continuations, "likelihoods", count := Counting(Continuations.likelihoods))
    found = run_task(demo, task, store=store)
    assert (found.known_examples, count.calls) == (2, 1)
    assert found.outcomes == run_task(demo, task).outcomes
    assert run_task(demo, task, store=store, prefix="Once. ").known_examples == 0


class Counting:
    """A method that counts its calls."""

    def __init__(self, method):
        self.method, self.calls = method, 0

    def __get__(self, instance, owner):
        def call(*arguments):
            self.calls += 1
            return self.method(instance, *arguments)

        return call


def test_examples_that_do_not_fit_are_named(demo: ggpy.Model, tmp_path: Path):
    long = "word " * 3000
    with pytest.raises(GGPyError, match=r"/t:2: \d+ tokens do not fit the context"):
        run_task(demo, read_task(write(tmp_path / "t", CHOICES[0], CHOICES[0] | {"prompt": long})))
    with pytest.raises(GGPyError, match=r"/t:1: \d+ tokens and 32 to say do not fit"):
        run_task(demo, read_task(write(tmp_path / "t", {"prompt": long, "answer": "a"})))


def test_patterns_without_end_are_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(match, "PATTERN_SECONDS", 0.5)
    start = time.perf_counter()
    with pytest.raises(GGPyError, match="file:3: the pattern takes more than"):
        is_match("a" * 60 + "b", ["(a+)+$"], "regex", "file:3")
    assert time.perf_counter() - start < 20
    assert is_match(" yes\n", ["yes"], "exact", "") and not is_match("yes!", ["yes"], "exact", "")


def test_shares_have_wilsons_interval():
    half = Share.of(10, 20)
    assert (half.value, half.error) == (0.5, pytest.approx(math.sqrt(0.25 / 20)))
    assert half.interval == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert Share.of(0, 20).interval[0] == 0 and Share.of(20, 20).interval[1] == 1
    assert Share.of(0, 20).interval[1] == pytest.approx(0.1611, abs=1e-4)


def test_a_label_that_nobody_has_or_gets_divides_by_nothing():
    reports = label_reports(("a", "b"), [Outcome(1, True, True, "a", "a")])
    assert [(one.recall, one.precision, one.f1) for one in reports] == [(1, 1, 1), (0, 0, 0)]
    assert np.isfinite([one.f1 for one in reports]).all()
