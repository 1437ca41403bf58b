"""A GGUF file as a model of lm-eval, the Language Model Evaluation Harness, in its own process: `pip install "ggpy[lm-eval]"`.

    import lm_eval
    from ggpy.evaluate.harness import GGPyLM

    lm_eval.simple_evaluate(model=GGPyLM("model.gguf"), tasks=["arc_easy"])

Importing this module also registers it with lm-eval under the name "ggpy", for `model="ggpy", model_args="path=model.gguf"`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

from ggpy.api import Model, Prompt, load
from ggpy.errors import ContextError, GGPyError
from ggpy.evaluate.continuations import Crew, encode_pair
from ggpy.log import Log

try:
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise GGPyError(f'lm-eval cannot be imported ({error}); install it: pip install "ggpy[lm-eval]"') from None

log = Log(__name__)

MAX_GENERATED = 256  # tokens, where a task does not say
SAMPLING = {"temperature", "top_k", "top_p", "min_p", "seed"}
MOST_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval's names, in its order

Request = tuple[int, list[int], list[int]]
"""(number, prompt, continuation)"""


@register_model("ggpy")
class GGPyLM(LM):
    """lm-eval's interface to a model. model, or path: what to evaluate. context: most tokens of a prompt and what follows it.

    Prompts that are too long lose their beginning, as with lm-eval's own models; a warning says how many.
    """

    def __init__(self, path: str | os.PathLike[str] | Model, *, threads: int | None = None, context: int | None = None, **ignored: Any):
        super().__init__()
        unknown = ignored.keys() - {"batch_size", "max_batch_size", "device"}  # lm-eval hands these to every model
        if unknown:
            raise TypeError(f"unknown argument {min(unknown)!r}")
        self.model = path if isinstance(path, Model) else load(path, threads=threads, context=context)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Of each request's (context, continuation): the continuation's log-likelihood, and whether greedy decoding would say it."""
        pairs = [encode_pair(self.model, *request.args) for request in requests]
        found = self._likelihoods(pairs)
        for request, one in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, one)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Of each request's text the log-likelihood, behind the token a text begins with, in lm-eval's own windows."""
        found = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(self.model.tokenize(text), self.model.start()[0], self.model.context, 1)
            total = sum(value for value, _ in self._likelihoods([make_disjoint_window(window) for window in windows]))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
            found.append(total)
        return found

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Continue each request's (context, settings) up to one of the texts that `until` in the settings names."""
        texts = [""] * len(requests)
        prompts = [self._prompt(*request.args) for request in requests]
        for number, step in self.model.stream_batch(prompts):
            texts[number] += step.text
            if step.finish:
                self.cache_hook.add_partial("generate_until", requests[number].args, texts[number])
        return texts

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval calls the tokenizer in its records."""
        return str(self.model.path)

    def _prompt(self, context: str, settings: dict[str, Any]) -> Prompt:
        until = settings.get("until") or []
        stop = [until] if isinstance(until, str) else [text for text in until if text]
        most = next((int(settings[name]) for name in MOST_TOKENS if settings.get(name) is not None), MAX_GENERATED)
        most = min(most, self.model.context - 1)
        ids = self._last(self.model.tokenize(context, bos=True), self.model.context - most)
        sampling = {name: settings[name] for name in SAMPLING if name in settings} if settings.get("do_sample") else {"temperature": 0.0}
        return Prompt(ids or self.model.start(), max_tokens=most, stop=stop, **sampling)

    def _likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """In the order of `pairs`; evaluated in the order of the prompts, and those of one prompt together."""
        if not pairs:
            return []
        for _, rest in pairs:
            if len(rest) > self.model.context:
                raise ContextError(f"a continuation of {len(rest)} tokens does not fit the context of {self.model.context}")
        requests = [(i, self._last(before, self.model.context + 1 - len(rest)), rest) for i, (before, rest) in enumerate(pairs)]
        key: Callable[[Request], list[int]] = lambda request: request[1]  # noqa: E731
        groups = [list(group) for _, group in groupby(sorted(requests, key=key), key)]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        crew = Crew(self.model, min(self.model.threads, len(groups)))
        try:
            with ThreadPoolExecutor(crew.at_once) as executor:
                answers = executor.map(lambda group: crew.likelihoods(group[0][1], [rest for _, _, rest in group]), groups)
                for group, likelihoods in zip(groups, answers, strict=True):
                    for (number, _, _), one in zip(group, likelihoods, strict=True):
                        found[number] = one.log_likelihood, one.is_greedy
        finally:
            crew.close()
        return found

    def _last(self, ids: list[int], most: int) -> list[int]:
        if len(ids) <= most:
            return ids
        log.warning("a prompt of %d tokens loses its first %d to fit the context of %d", len(ids), len(ids) - most, self.model.context)
        return ids[-most:]
