"""What `import ggpy` offers for running models: `load`, `Model` and the `Step`s of a stream."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ggpy.answers import Answer, Step
from ggpy.arch import ARCHS, Config
from ggpy.batch import BatchGenerator
from ggpy.errors import ContextError, GGPyError, ModelError
from ggpy.generate import Generator, Network, slots_that_fit
from ggpy.gguf import GGUFFile, Metadata, open_gguf
from ggpy.log import Log
from ggpy.runtime.compiled import OnCompile
from ggpy.runtime.host import available_threads
from ggpy.runtime.weights import load_weights
from ggpy.sampling import Sampler
from ggpy.stop_texts import StopTexts
from ggpy.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from ggpy.chat.session import Chat

log = Log(__name__)

DEFAULT_CONTEXT = 4096
AT_ONCE = 8  # prompts of a batch in work at a time
WORTH_COPYING = 16  # tokens
STREAM_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed"}


class Prompt:
    """A prompt of a batch with settings of its own, named as those of `Model.stream`; they go before the batch's."""

    def __init__(self, prompt: str | Sequence[int], **settings: Any):
        self.prompt, self.settings = prompt, settings


def load(
    path: str | os.PathLike[str], *, threads: int | None = None, context: int | None = None, on_compile: OnCompile | None = None
) -> Model:
    """Open a GGUF file to run it. Weights stay in the mapped file.

    threads: default, all that this process may use. context: most tokens of a sequence; default, what the model was trained on but at most
    4096. on_compile(kernel, done, total) is called before each kernel that this machine has not compiled yet.
    GGUFError or ModelError: the file is damaged, or of a model that ggpy does not run.
    """
    file = open_gguf(path)
    try:
        return Model(file, threads=threads, context=context, on_compile=on_compile)
    except BaseException:
        file.close()
        raise


class Model:
    """A model ready to run. Any number of threads may use one Model; each stream has a sequence of its own."""

    def __init__(self, file: GGUFFile, *, threads: int | None = None, context: int | None = None, on_compile: OnCompile | None = None):
        name = file.metadata.string("general.architecture")
        arch = ARCHS.get(name)
        if arch is None:
            raise ModelError(f"{file.path}: general.architecture is {name!r}, supported are {', '.join(ARCHS)}")
        if threads is not None and threads < 1:
            raise GGPyError(f"threads is {threads}, expected at least 1")
        self.file = file
        config: Config = arch.config(file)
        self.threads = threads or available_threads()
        self.context = _context(config, context, file)
        self.config = config.for_context(self.context)
        self.tokenizer: Tokenizer = load_tokenizer(file.metadata)
        if self.tokenizer.n_vocab != self.config.n_vocab:
            raise ModelError(
                f"{file.path}: token_embd.weight has {self.config.n_vocab} rows, expected one for each of {self.tokenizer.n_vocab} tokens"
            )
        weights = load_weights(file, arch.shapes(self.config), _report_decoding)
        self.network = Network(
            name=str(file.path),
            forward=lambda op: arch.forward(op, weights, self.config),
            shape=self.config.cache_shape,
            n_vocab=self.config.n_vocab,
            check_unchanged=file.check_unchanged,
            describe_fault=lambda: _first_fault(file),
        )
        self._on_compile = on_compile
        self._idle: list[Generator] = [self.generator()]
        self._busy: list[Generator] = []
        self._idle_batch: BatchGenerator | None = None
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """The model's file."""
        return Path(self.file.path)

    @property
    def metadata(self) -> Metadata:
        """The file's metadata."""
        return self.file.metadata

    def tokenize(self, text: str, *, bos: bool = False, special: bool = False) -> list[int]:
        """The ids of `text`. bos: with what the model wants around a text. special: parse special tokens spelled in the text."""
        return self.tokenizer.encode(text, add_special=bos, parse_special=special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return self.tokenizer.decode(ids)

    def generator(self, context: int | None = None, threads: int | None = None) -> Generator:
        """A new sequence with a KV cache of its own, for work on ids: prefill, decode, logits."""
        return Generator(self.network, context or self.context, threads=threads or self.threads, on_compile=self._on_compile)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after every token: float32 (len(ids), n_vocab)."""
        with self._borrow(ids) as generator:
            return generator.logits(ids)

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[Step]:
        """Continue a prompt, token by token. A prompt is a text, or ids as they are. temperature 0 is greedy.

        stop: texts that end the stream; the first to appear is cut off with what follows. A prompt that begins like an earlier one is not
        evaluated again up to where they differ. ContextError: the prompt leaves no room; the message has both numbers.
        """
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty, seed=seed)
        return self._steps(self._answer(prompt, sampler, max_tokens, stop))

    def stream_batch(
        self, prompts: Iterable[str | Sequence[int] | Prompt], *, at_once: int = AT_ONCE, **settings: Any
    ) -> Iterator[tuple[int, Step]]:
        """Continue several prompts together, which reads each weight once for all of them: (number of the prompt, its next step).

        Settings as of `stream`; a `Prompt` has some of its own. at_once: most prompts in work at a time, fewer if memory for keys and
        values does not suffice; the next begins when one has ended. Steps of one prompt come in order, those of different prompts as
        they are ready. A beginning that prompts have in common is evaluated once. Errors as of `stream`, before the first step.
        """
        if at_once < 1:
            raise GGPyError(f"at_once is {at_once}, expected at least 1")
        asked = [prompt if isinstance(prompt, Prompt) else Prompt(prompt) for prompt in prompts]
        answers = [self._answer_of(prompt.prompt, **{**settings, **prompt.settings}) for prompt in asked]
        return self._batch_steps(answers, at_once)

    def complete_batch(self, prompts: Iterable[str | Sequence[int] | Prompt], **settings: Any) -> list[str]:
        """The whole continuation of each prompt as text, in the order of the prompts; settings as of `stream_batch`."""
        asked = list(prompts)
        texts: list[list[str]] = [[] for _ in asked]
        for number, step in self.stream_batch(asked, **settings):
            texts[number].append(step.text)
        return ["".join(parts) for parts in texts]

    def complete(self, prompt: str | Sequence[int], **settings: Any) -> str:
        """The whole continuation as text; settings as of `stream`."""
        return "".join(step.text for step in self.stream(prompt, **settings))

    def chat(self, system: str | None = None, **settings: Any) -> Chat:
        """A conversation in the model's own format; settings as of `stream`."""
        from ggpy.chat.session import Chat

        return Chat(self, system=system, **settings)

    def close(self) -> None:
        """Close the file and end helper threads; the model is of no use afterwards."""
        with self._lock:
            for generator in self._idle:
                generator.close()
            self._idle.clear()
            if self._idle_batch is not None:
                self._idle_batch.close()
                self._idle_batch = None
        self.file.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> list[int]:
        """The token that stands for an empty prompt: BOS, or where the model has none EOS. GGPyError if it has neither."""
        start = self.tokenizer.bos if self.tokenizer.bos is not None else self.tokenizer.eos
        if start is None:
            raise GGPyError("the prompt is empty, and the model has no token to begin with")
        return [start]

    def _answer(self, prompt: str | Sequence[int], sampler: Sampler, max_tokens: int | None, stop: Sequence[str]) -> Answer:
        ids = self.tokenize(prompt, bos=True) if isinstance(prompt, str) else list(prompt)
        if max_tokens is not None and max_tokens < 0:
            raise GGPyError(f"max_tokens is {max_tokens}, expected 0 or more")
        if len(ids) >= self.context:
            raise ContextError(
                f"the prompt has {len(ids)} tokens and leaves no room in the context of {self.context}; load with a larger context"
            )
        ids = ids or self.start()
        return Answer(self.tokenizer, ids, sampler, StopTexts(stop), self.context - len(ids), max_tokens)

    def _answer_of(
        self, prompt: str | Sequence[int], *, max_tokens: int | None = None, stop: Sequence[str] = (), **sampling: Any
    ) -> Answer:
        unknown = sampling.keys() - STREAM_SAMPLING
        if unknown:
            raise TypeError(f"unknown setting {min(unknown)!r}")
        return self._answer(prompt, Sampler(**sampling), max_tokens, stop)

    def _steps(self, answer: Answer) -> Iterator[Step]:
        with self._borrow(answer.ids) as generator:
            logits = generator.prefill(answer.ids)
            while answer.left:
                step = answer.next(logits)
                yield step
                if step.finish:
                    return
                logits = generator.decode(step.token)

    def _batch_steps(self, answers: Sequence[Answer], at_once: int) -> Iterator[tuple[int, Step]]:
        waiting = [number for number, answer in enumerate(answers) if answer.left]
        if not waiting:
            return
        context = max(len(answers[number].ids) + answers[number].left for number in waiting)
        with self._borrow_batch(context, min(at_once, len(waiting))) as generator:
            numbers: dict[int, int] = {}  # slot -> number of the prompt
            try:
                while waiting or numbers:
                    while waiting and generator.free_slots:
                        number = waiting.pop(0)
                        ids = answers[number].ids
                        numbers[generator.add(ids, like=self._nearest(ids))] = number
                    for slot, logits in generator.step().items():
                        number = numbers[slot]
                        step = answers[number].next(logits)
                        if step.finish:
                            generator.remove(slot)
                            del numbers[slot]
                        else:
                            generator.append(slot, step.token)
                        yield number, step
            finally:
                for slot in numbers:
                    generator.remove(slot)

    def _nearest(self, ids: Sequence[int]) -> Generator | None:
        """The generator, idle or at work, that shares most with `ids`."""
        with self._lock:
            return max((*self._idle, *self._busy), key=lambda generator: generator.shared_prefix(ids), default=None)

    @contextmanager
    def _borrow(self, ids: Sequence[int]) -> Iterator[Generator]:
        """An idle generator, or a new one when all are at work, with what any generator has of the beginning of `ids`.

        The one that has most gives it to another where it would lose more than the other by going on from there.
        """

        def loss(generator: Generator) -> int:
            return len(generator.ids) - generator.shared_prefix(ids)

        with self._lock:
            nearest = max(self._idle, key=lambda generator: generator.shared_prefix(ids), default=None)
            least = min(self._idle, key=loss, default=None)
            generator = nearest if nearest is None or least is None or loss(nearest) < loss(least) + WORTH_COPYING else least
            if generator is not None:
                self._idle.remove(generator)
                self._busy.append(generator)
        if generator is None:
            generator = self.generator()
            with self._lock:
                self._busy.append(generator)
        try:
            source = self._nearest(ids)
            if source is not None and source is not generator and source.shared_prefix(ids) >= generator.shared_prefix(ids) + WORTH_COPYING:
                generator.copy_prefix(source, ids)
            yield generator
        finally:
            with self._lock:
                self._busy.remove(generator)
                self._idle.append(generator)

    @contextmanager
    def _borrow_batch(self, context: int, slots: int) -> Iterator[BatchGenerator]:
        """The last batch's generator, if it is idle and large enough, else a new one."""
        with self._lock:
            generator, self._idle_batch = self._idle_batch, None
        if generator is not None and (generator.context < context or generator.slots < slots):
            generator.close()
            generator = None
        if generator is None:
            slots = max(1, min(slots, slots_that_fit(self.network, context)))
            generator = BatchGenerator(self.network, context, slots, threads=self.threads, on_compile=self._on_compile)
        try:
            yield generator
        finally:
            with self._lock:
                generator, self._idle_batch = self._idle_batch, generator
            if generator is not None:
                generator.close()


def _context(config: Config, asked: int | None, file: GGUFFile) -> int:
    if asked is None:
        return min(config.context_length, DEFAULT_CONTEXT)
    if asked < 1:
        raise GGPyError(f"context is {asked}, expected at least 1")
    if asked > config.context_length:
        log.warning("%s: context %d is longer than the %d tokens the model was trained on", file.path, asked, config.context_length)
    return asked


def _report_decoding(name: str, block_format: str, n_bytes: int) -> None:
    log.warning("no kernel for %s yet: %s is decoded to float32 (%.1f MB)", block_format, name, n_bytes / 1e6)


def _first_fault(file: GGUFFile) -> str:
    """Which weight is to blame for logits that are not finite."""
    for name, tensor in file.tensors.items():
        values = tensor.dequantize() if tensor.format.decode else np.zeros(0)
        if not np.isfinite(values).all():
            return f"tensor {name} has {np.count_nonzero(~np.isfinite(values))} values that are not finite"
    return "all weights are finite, so activations overflowed"
