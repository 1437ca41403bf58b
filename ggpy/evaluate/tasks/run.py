"""Running a task: what a model chooses or says, example by example, several at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from ggpy.errors import ContextError, GGPyError, printable
from ggpy.evaluate.continuations import Crew, encode_pair
from ggpy.evaluate.store import SCHEME, Store, identity
from ggpy.evaluate.tasks.examples import ANSWERS, CLASSIFICATION, Choice, Question, Task
from ggpy.evaluate.tasks.match import is_match
from ggpy.evaluate.tasks.report import Outcome, Share, TaskReport, label_reports

if TYPE_CHECKING:
    from ggpy.api import Model

MAX_TOKENS = 32

OnExample = Callable[[int, int, float], None]


def run_task(
    model: Model,
    task: Task,
    *,
    prefix: str = "",
    max_tokens: int = MAX_TOKENS,
    chat: bool = False,
    at_once: int | None = None,
    store: Store | None = None,
    on_example: OnExample | None = None,
) -> TaskReport:
    """How many of a task's examples a model answers rightly.

    Choices and labels: the most likely continuation, by the sum of its log-probabilities, and again by that sum over its length in
    characters (lm-eval's acc and acc_norm). Answers: the greedy continuation of at most `max_tokens`; chat: the prompt is put into the
    model's chat format. prefix: stands before every prompt, such as examples with their answers; it is evaluated once.
    store: where outcomes are kept, so that a run that was ended goes on. on_example(done, total, accuracy so far) reports progress.
    GGPyError names the line of an example that does not fit the context.
    """
    start = time.perf_counter()
    about = (identity(model.file, model.config), "task", SCHEME, prefix, max_tokens, chat) if store else ()
    kept = [_kept(store, about, example) for example in task.examples]
    outcomes = list(kept)
    todo = [number for number, outcome in enumerate(kept) if outcome is None]
    if task.kind == ANSWERS:
        examples = [example for example in task.examples if isinstance(example, Question)]
        found = _answers(model, task, [examples[number] for number in todo], prefix, max_tokens, chat)
    else:
        choices = [example for example in task.examples if isinstance(example, Choice)]
        found = _choices(model, task, [choices[number] for number in todo], prefix, at_once or model.threads)
    done = len(kept) - len(todo)
    for number, outcome in found:
        outcomes[todo[number]] = outcome
        if store:
            store.write(_to_json(outcome), *about, _key(task.examples[todo[number]]))
        done += 1
        if on_example is not None:
            answered = [one for one in outcomes if one is not None]
            on_example(done, len(outcomes), sum(one.is_right for one in answered) / len(answered))
    return _report(model, task, [one for one in outcomes if one is not None], len(kept) - len(todo), time.perf_counter() - start)


def _choices(model: Model, task: Task, examples: Sequence[Choice], prefix: str, at_once: int) -> Iterator[tuple[int, Outcome]]:
    if not examples:
        return
    crew = Crew(model, min(at_once, len(examples)))

    def choose(example: Choice) -> Outcome:
        pairs = [encode_pair(model, prefix + example.prompt, continuation) for continuation in example.continuations]
        prompt = pairs[0][0]
        try:
            if all(before == prompt for before, _ in pairs):
                found = crew.likelihoods(prompt, [rest for _, rest in pairs])
            else:
                found = [crew.likelihoods(before, [rest])[0] for before, rest in pairs]
        except ContextError as error:
            raise GGPyError(f"{printable(task.path)}:{example.line}: {error}; give a larger --ctx") from None
        sums = [one.log_likelihood for one in found]
        per_character = [one / len(text) for one, text in zip(sums, example.texts, strict=True)]
        chosen, normalised = sums.index(max(sums)), per_character.index(max(per_character))
        right = normalised == example.answer
        return Outcome(example.line, chosen == example.answer, right, example.texts[chosen], example.texts[example.answer])

    with closing(crew), ThreadPoolExecutor(crew.at_once) as executor:
        try:
            yield from enumerate(executor.map(choose, examples))
        finally:
            executor.shutdown(cancel_futures=True)


def _answers(
    model: Model, task: Task, examples: Sequence[Question], prefix: str, max_tokens: int, chat: bool
) -> Iterator[tuple[int, Outcome]]:
    from ggpy.api import Prompt

    prompts = []
    for example in examples:
        prompt: str | list[int] = prefix + example.prompt
        if chat:
            conversation = model.chat()
            conversation.messages.append({"role": "user", "content": prompt})
            prompt = conversation.prompt()
        ids = model.tokenize(prompt, bos=True) if isinstance(prompt, str) else prompt
        if len(ids) + max_tokens > model.context:
            said = f"{len(ids)} tokens and {max_tokens} to say do not fit the context of {model.context}"
            raise GGPyError(f"{printable(task.path)}:{example.line}: {said}; give a larger --ctx")
        prompts.append(Prompt(prompt, stop=example.stop, max_tokens=max_tokens))
    texts = [""] * len(examples)
    for number, step in model.stream_batch(prompts, temperature=0.0):
        texts[number] += step.text
        if step.finish:
            example = examples[number]
            right = is_match(texts[number], example.answers, example.match, f"{printable(task.path)}:{example.line}")
            yield number, Outcome(example.line, right, None, texts[number], example.answers[0])


def _report(model: Model, task: Task, outcomes: Sequence[Outcome], known: int, seconds: float) -> TaskReport:
    n = len(outcomes)
    is_choice = task.kind != ANSWERS
    labels = label_reports(task.labels, outcomes) if task.kind == CLASSIFICATION else ()
    return TaskReport(
        model=str(model.path),
        task=task.path,
        kind=task.kind,
        examples=n,
        accuracy=Share.of(sum(one.is_right for one in outcomes), n),
        normalised=Share.of(sum(bool(one.is_right_normalised) for one in outcomes), n) if is_choice else None,
        labels=labels,
        macro_f1=sum(label.f1 for label in labels) / len(labels) if labels else None,
        known_examples=known,
        seconds=seconds,
        outcomes=tuple(outcomes),
    )


def _key(example: Choice | Question) -> list[object]:
    """What decides an outcome, beside the model; not the line it stands on."""
    if isinstance(example, Choice):
        return [example.prompt, example.continuations, example.texts, example.answer]
    return [example.prompt, example.answers, example.match, example.stop]


def _to_json(outcome: Outcome) -> bytes:
    return json.dumps([outcome.is_right, outcome.is_right_normalised, outcome.said]).encode()


def _kept(store: Store | None, about: Sequence[object], example: Choice | Question) -> Outcome | None:
    content = store.read(*about, _key(example)) if store else None
    if content is None:
        return None
    is_right, normalised, said = json.loads(content)
    expected = example.texts[example.answer] if isinstance(example, Choice) else example.answers[0]
    return Outcome(example.line, is_right, normalised, said, expected)
