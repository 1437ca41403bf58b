"""What comes into the linear layers of a model while it reads a text: the pass of calibration, looked at."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ggpy.converter.calibrate import readable
from ggpy.converter.pipeline import open_source
from ggpy.converter.recipes import find_recipe
from ggpy.errors import GGPyError
from ggpy.methods.quantized import Matrix
from ggpy.quantize import calibration
from ggpy.quantize.products import Products
from ggpy.quantize.texts import Chunks
from ggpy.runtime.host import available_threads

CHUNK = 256
"""Tokens that see each other."""

Visit = Callable[[str, Matrix, Matrix], None]
"""Called for a linear layer: the tensor's name, its weights float32 (rows, cols), what comes in: float32 (tokens, cols)."""


class Model:
    """A checkpoint directory, or a GGUF file, to be read through. A context manager. Raises GGPyError for what ggpy does not run."""

    def __init__(self, path: Path):
        with contextlib.ExitStack() as opened:
            self.source = open_source(path)
            opened.callback(self.source.close)
            self._model = opened.enter_context(readable(self.source, find_recipe("f32")))
            self._opened = opened.pop_all()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()

    @property
    def n_layers(self) -> int:
        return self._model.config.n_layers

    def chunks(self, text: str, tokens: int, what: str) -> NDArray[np.int64]:
        """The first `tokens` ids of a text, rounded up to chunks, int64 (n, CHUNK); each chunk begins with BOS where the model wants one.

        Raises GGPyError, naming the text by `what`, where it is shorter.
        """
        tokenizer, n = self._model.tokenizer, math.ceil(tokens / CHUNK)
        ids: list[int] = []
        for n_characters in (tokens * 8, len(text)):  # most texts take 3 to 5 characters a token: enough, and no need to encode all
            ids = tokenizer.encode(text[:n_characters])
            if len(ids) >= n * CHUNK:
                break
        else:
            raise GGPyError(f"{what} has {len(ids)} tokens, expected {n * CHUNK} at least: use a longer text or fewer tokens")
        found = np.array(ids[: n * CHUNK], np.int64).reshape(n, CHUNK)
        if tokenizer.add_bos and tokenizer.bos is not None:
            found[:, 0] = tokenizer.bos
        return found

    def read(self, chunks: NDArray[np.int64], layers: list[int], visit: Visit) -> None:
        """Read the chunks (n, CHUNK), each on its own, as far as the last of `layers`; `visit` the linear layers of these, in order, but
        not experts, which see some of the tokens only."""
        wanted, last = {f"blk.{layer}" for layer in layers}, max(layers)

        def look(inputs: calibration.Inputs, matrices: Sequence[calibration.Matrix]) -> Sequence[Matrix | None]:
            layer, _, part = matrices[0].name.rpartition(".weight")[0].rpartition(".")
            if not layer or int(layer.removeprefix("blk.")) > last:
                raise _Done
            if layer not in wanted or part.endswith("_exps"):
                return [None] * len(matrices)
            used = [matrix.values() for matrix in matrices]
            for matrix, values in zip(matrices, used, strict=True):
                visit(matrix.name, values, inputs.x)
            return used

        config = self._model.config.for_context(CHUNK)
        with Products(available_threads()) as products, contextlib.suppress(_Done):
            ops = calibration.CalibrationOps(config, Chunks(chunks, (slice(0, len(chunks)),), ()), products, look)
            calibration.run(self._model.arch, config, self._model.tensors, ops)


class _Done(Exception):
    """The last layer that was asked for is behind us."""
