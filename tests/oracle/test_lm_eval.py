"""lm-eval runs ggpy as one of its models, and finds what its own way of counting finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ggpy
from ggpy.evaluate import log_softmax

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # the peer's own deprecations

VERSE = "In the beginning God created the"


@pytest.fixture(scope="module")
def lm(demo_gguf: Path):
    pytest.importorskip("lm_eval", reason='lm-eval is not installed (pip install -e ".[lm-eval]")')
    from ggpy.evaluate.harness import GGPyLM

    lm = GGPyLM(demo_gguf, threads=2, context=64)
    yield lm
    lm.model.close()


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]

    return [Instance(kind, {}, argument, number) for number, argument in enumerate(arguments)]


def naive(model: ggpy.Model, before: list[int], rest: list[int]) -> float:
    log_probs = log_softmax(model.logits([*before, *rest[:-1]]))[-len(rest) :]
    return sum(float(row[token]) for row, token in zip(log_probs, rest, strict=True))


def test_continuations(lm: Any):
    pairs = [(VERSE, " heaven"), (VERSE, " heaven and the earth"), ("", "God"), ("And God said, ", "Let"), (VERSE, " zzz")]
    found = lm.loglikelihood(requests("loglikelihood", *pairs))
    for (before, rest), (value, _) in zip(pairs, found, strict=True):
        ids, whole = lm.model.tokenize(before.rstrip(), bos=True), lm.model.tokenize(before + rest, bos=True)
        assert value == pytest.approx(naive(lm.model, ids, whole[len(ids) :]), abs=0.05), (before, rest)
    assert (found[0][1], found[1][1], found[4][1]) == (True, True, False)


def test_a_long_text_in_windows(lm: Any):
    text = f"{VERSE} heaven and the earth. And the earth was without form, and void; and darkness was upon the face of the deep. " * 2
    ids = lm.model.tokenize(text)
    assert len(ids) > 64
    (found,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))
    expected = naive(lm.model, lm.model.start(), ids[:64])
    for first in range(64, len(ids), 64):
        rest = ids[first : first + 64]
        end = first + len(rest)
        expected += naive(lm.model, ids[end - 65 : first], rest)
    assert found == pytest.approx(expected, rel=1e-2)


def test_answers_end_where_they_are_told_to(lm: Any):
    plain, stopped, short = lm.generate_until(
        requests(
            "generate_until",
            (VERSE, {"max_gen_toks": 12}),
            (VERSE, {"until": [" and"], "max_gen_toks": 12, "do_sample": False}),
            (VERSE, {"until": "zzz", "max_new_tokens": 1}),
        )
    )
    assert plain == lm.model.complete(VERSE, max_tokens=12, temperature=0.0)
    assert " and" in plain and stopped == plain.partition(" and")[0]
    assert short and plain.startswith(short) and len(short) < len(plain)


def test_prompts_lose_their_beginning_where_they_do_not_fit(lm: Any, caplog: pytest.LogCaptureFixture):
    long = f"{VERSE} " * 40 + VERSE
    ((value, _),) = lm.loglikelihood(requests("loglikelihood", (long, " heaven")))
    rest = lm.model.tokenize(f"{long} heaven")[len(lm.model.tokenize(long)) :]
    assert value == pytest.approx(naive(lm.model, lm.model.tokenize(long)[-65 + len(rest) :], rest), abs=0.05)
    assert "loses its first" in caplog.text
    with pytest.raises(ggpy.errors.ContextError, match="does not fit the context of 64"):
        lm.loglikelihood(requests("loglikelihood", (VERSE, " heaven" * 100)))


def test_a_task_of_lm_eval(lm: Any, tmp_path: Path):
    import lm_eval  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    lines = [{"q": VERSE, "choices": ["zzz", "heaven"], "a": 1}, {"q": VERSE, "choices": ["zzz", "heaven"], "a": 0}] * 2
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (tmp_path / "verses.yaml").write_text(
        f"""task: verses
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {tmp_path / "cache"}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: a
metric_list: [{{metric: acc}}]
""",
        encoding="utf-8",
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(model=lm, tasks=["verses"], task_manager=manager, bootstrap_iters=0)
    assert found is not None and found["results"]["verses"]["acc,none"] == 0.5
    assert lm_eval.api.registry.get_model("ggpy") is type(lm)
