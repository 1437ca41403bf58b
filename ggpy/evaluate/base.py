"""What a model is compared with: another model, its file, or log-probabilities that were kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ggpy.arch import ARCHS
from ggpy.errors import ModelError, printable
from ggpy.evaluate.llama_file import StoredBase, is_stored_base
from ggpy.evaluate.packed import PackedRows, n_bytes
from ggpy.evaluate.predictor import Predictor
from ggpy.evaluate.store import SCHEME, Store, identity
from ggpy.evaluate.windows import Window
from ggpy.gguf import open_gguf
from ggpy.log import Log

if TYPE_CHECKING:
    from ggpy.api import Model

log = Log(__name__)


class ModelBase:
    """A base that is a model: rows come from the store where it has them, else from the model, which is opened when the first are missing.

    key: names the model in the store. windows: all that will be asked for. is_own: close the model at the end.
    """

    def __init__(
        self,
        open_model: Callable[[], Model],
        key: str,
        n_vocab: int,
        windows: Sequence[Window],
        at_once: int,
        store: Store | None,
        is_own: bool = False,
    ):
        self.key, self._n_vocab, self._at_once, self._store = key, n_vocab, at_once, store
        self._open, self._is_own = open_model, is_own
        self._longest = max(len(window.ids) for window in windows)
        self._predictor: Predictor | None = None
        self._lock = threading.Lock()
        wanted = sum(n_bytes(len(window.targets), n_vocab) for window in windows)
        self._keeps = store is not None and store.has_room_for(wanted)
        if store is not None and not self._keeps:
            log.warning("%s: no room for %.1f GB of the base's log-probabilities; they are not kept", store.folder, wanted / 1e9)

    def rows(self, window: Window) -> PackedRows:
        """The base's predictions for a window."""
        key = (self.key, "rows", SCHEME, window.ids, window.first, window.targets)
        content = self._store.read(*key) if self._store else None
        rows = None if content is None else PackedRows.from_bytes(content, len(window.targets), self._n_vocab)
        if rows is None:
            rows = self._opened().pack(window)
            if self._store and self._keeps:
                self._store.write(rows.to_bytes(), *key)
        return rows

    def _opened(self) -> Predictor:
        with self._lock:
            if self._predictor is None:
                self._predictor = Predictor(self._open(), self._longest, self._at_once)
            return self._predictor

    def close(self) -> None:
        """End the workers' threads, and close a model of its own."""
        if self._predictor is not None:
            self._predictor.close()
            if self._is_own:
                self._predictor.model.close()


def open_base(
    base: Model | str | os.PathLike[str], model: Model, windows: Sequence[Window], context: int, at_once: int, store: Store | None
) -> ModelBase | StoredBase:
    """What gives the rows of `base`. ModelError if it has another vocabulary than `model`, GGPyError if it was kept of other tokens."""
    if not isinstance(base, str | os.PathLike):
        _check_vocabulary(model, base.path, base.tokenizer.n_vocab)
        key = identity(base.file, base.config) if store else ""
        return ModelBase(lambda: base, key, base.tokenizer.n_vocab, windows, at_once, store)
    if is_stored_base(base):
        stored = StoredBase(base)
        _check_vocabulary(model, base, stored.n_vocab)
        stored.check(windows, context)
        return stored
    from ggpy.api import load

    with open_gguf(base) as file:
        name = file.metadata.string("general.architecture")
        if name not in ARCHS:
            raise ModelError(f"{file.path}: general.architecture is {name!r}, supported are {', '.join(ARCHS)}")
        config = ARCHS[name].config(file).for_context(model.context)
        key = identity(file, config) if store else ""
    _check_vocabulary(model, base, config.n_vocab)
    open_model = lambda: load(base, threads=model.threads, context=model.context)  # noqa: E731
    return ModelBase(open_model, key, config.n_vocab, windows, at_once, store, is_own=True)


def _check_vocabulary(model: Model, base: str | os.PathLike[str], n_vocab: int) -> None:
    if n_vocab != model.tokenizer.n_vocab:
        raise ModelError(
            f"{model.path} has {model.tokenizer.n_vocab} tokens and the base {printable(os.fspath(base))} {n_vocab}; "
            "predictions can be compared only over the same vocabulary"
        )
