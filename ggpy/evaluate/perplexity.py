"""How good a model is on a text: perplexity, and with a base model how far its predictions are from the base's."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import numpy as np

from ggpy.errors import GGPyError
from ggpy.evaluate.base import ModelBase, open_base
from ggpy.evaluate.llama_file import StoredBase
from ggpy.evaluate.predictor import Predictor
from ggpy.evaluate.probabilities import SCORES
from ggpy.evaluate.report import Evaluation, Settings, evaluation_of
from ggpy.evaluate.store import SCHEME, Store, identity
from ggpy.evaluate.windows import LLAMA, Window, cut, tokens_of

if TYPE_CHECKING:
    from ggpy.api import Model

MOST_AT_ONCE = 4


def evaluate(
    model: Model,
    text: str,
    *,
    base: Model | str | os.PathLike[str] | None = None,
    context: int = 512,
    chunks: int | None = None,
    convention: str = LLAMA,
    stride: int | None = None,
    worst: int = 10,
    at_once: int | None = None,
    store: Store | None = None,
    base_store: Store | None = None,
    on_chunk: Callable[[int, int, float], None] | None = None,
) -> Evaluation:
    """Perplexity of `model` on `text`, and with `base` how far its predictions are from the base's.

    base: a model, a GGUF file (opened only if the stores lack something of it), or a file that llama-perplexity wrote with
    --kl-divergence-base. context: tokens per chunk; chunks: how many at the most, None for all. convention, stride: see
    ggpy.evaluate.windows. worst: how many of the positions where the two differ most are listed.
    at_once: chunks evaluated at a time, each with its share of the model's threads; None for what is fastest.
    store: where scores are kept, so that a run that was ended goes on, and base's log-probabilities, unless `base_store` is given for them.
    on_chunk(done, total, perplexity so far) reports progress.
    Raises GGPyError if the text is shorter than one chunk, ModelError if the two models have different vocabularies.
    """
    start = time.perf_counter()
    ids = tokens_of(model.tokenizer, text)
    bos = model.tokenizer.bos if model.tokenizer.add_bos else None
    windows = cut(ids, convention, context, stride, bos, chunks)
    if context > model.context:
        raise GGPyError(f"{model.path}: chunks of {context} tokens do not fit the context of {model.context}; load with a larger one")
    at_once = min(at_once or model.threads, MOST_AT_ONCE, len(windows))
    with ExitStack() as stack:
        against = None if base is None else open_base(base, model, windows, context, at_once, base_store or store)
        if against is not None:
            stack.enter_context(closing(against))
        scored = stack.enter_context(_Scorer(model, against, windows, at_once, store))
        parts: list[np.ndarray] = []
        for part in scored:
            parts.append(part)
            if on_chunk is not None:
                on_chunk(len(parts), len(windows), math.exp(np.concatenate(parts)["loss"].mean()))
    settings = Settings(convention, context, None if convention == LLAMA else stride or context // 2)
    name = None if base is None else os.fspath(base if isinstance(base, str | os.PathLike) else base.path)
    return evaluation_of(model, name, settings, ids, parts, worst, scored.known, time.perf_counter() - start)


class _Scorer:
    """The scores of windows in their order, from the store or from workers."""

    def __init__(self, model: Model, base: ModelBase | StoredBase | None, windows: Sequence[Window], at_once: int, store: Store | None):
        self._base, self._windows, self._store = base, windows, store
        self._key = (identity(model.file, model.config), base.key if base else "") if store else ()
        self._workers = ThreadPoolExecutor(at_once)
        self._predictor: Predictor | None = None
        self._new_predictor = lambda: Predictor(model, max(len(window.ids) for window in windows), at_once)
        self._lock = threading.Lock()
        self.known = 0  # windows whose scores were in the store

    def __enter__(self) -> _Scorer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.shutdown(cancel_futures=True)
        if self._predictor is not None:
            self._predictor.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._workers.map(self._score, self._windows)

    def _score(self, window: Window) -> np.ndarray:
        key = (*self._key, "scores", SCHEME, window.ids, window.first, window.targets, window.position)
        content = self._store.read(*key) if self._store else None
        if content is not None and len(content) == len(window.targets) * SCORES.itemsize:
            with self._lock:
                self.known += 1
            return np.frombuffer(content, SCORES)
        with self._lock:
            if self._predictor is None:
                self._predictor = self._new_predictor()
        found = self._predictor.score(window, self._base.rows(window) if self._base else None)
        if self._store:
            self._store.write(found.tobytes(), *key)
        return found
