"""What comes into the linear layers of a model while it reads a text: the reference ops, layer by layer, one layer's weights at a time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggpy.arch import ARCHS
from ggpy.blocks import BLOCKS
from ggpy.converter.certificate.products import Rows
from ggpy.converter.certificate.walk import weight_tree
from ggpy.converter.huggingface import HuggingFaceSource
from ggpy.converter.requantize import GGUFSource
from ggpy.converter.source import Source
from ggpy.errors import GGPyError, ModelError, printable
from ggpy.gguf import Metadata
from ggpy.methods.quantized import Matrix
from ggpy.runtime.reference import ReferenceCache, ReferenceOps
from ggpy.tokenizer import load_tokenizer

CHUNK = 256
"""Tokens that see each other."""

Visit = Callable[[str, Matrix, Matrix], None]
"""Called for a linear layer: the tensor's name, its weights float32 (rows, cols), what comes in: float32 (tokens, cols)."""


class Model:
    """A checkpoint directory, or a GGUF file, to be read through. A context manager. Raises GGPyError for what ggpy does not run."""

    def __init__(self, path: Path):
        self.source: Source = HuggingFaceSource(path) if path.is_dir() else GGUFSource(path)
        try:
            if self.source.architecture not in ARCHS:
                raise ModelError(f"{path}: ggpy does not run architecture {printable(self.source.architecture, 40)} yet")
            self.arch = ARCHS[self.source.architecture]
            self._metadata = Metadata.of(_metadata(self.source), path)
            tensors = {t.name: _Header(t.shape, Rows(t.name, t.rows, t.columns, t.open())) for t in self.source.tensors if t.n_values}
            view: Any = SimpleNamespace(path=path, metadata=self._metadata, tensors=tensors)
            self.config = self.arch.config(view)
            self._weights = weight_tree({name: header.rows for name, header in tensors.items()}, self.arch.shapes(self.config))
        except BaseException:
            self.source.close()
            raise

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exception: object) -> None:
        self.source.close()

    @property
    def n_layers(self) -> int:
        return self.config.n_layers

    def chunks(self, text: str, tokens: int, what: str) -> NDArray[np.int64]:
        """The first `tokens` ids of a text, rounded up to chunks, int64 (n, CHUNK); each chunk begins with BOS where the model wants one.

        Raises GGPyError, naming the text by `what`, where it is shorter.
        """
        tokenizer, n = load_tokenizer(self._metadata), math.ceil(tokens / CHUNK)
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
        """Read the chunks (n, CHUNK), each on its own, as far as the last of `layers`; `visit` the linear layers of these, in order."""
        ops = _Ops(self.config, chunks, {f"blk.{i}." for i in layers}, visit)
        weights = SimpleNamespace(**vars(self._weights))
        weights.layers = self._weights.layers[: max(layers) + 1]
        ops.caches = ops.caches[: max(layers) + 1]
        with contextlib.suppress(_Done):
            self.arch.forward(ops, weights, self.config)


class _Done(Exception):
    """The last layer that was asked for is behind us."""


class _Header:
    """A tensor as `Architecture.config` looks at it."""

    format = BLOCKS["F32"]

    def __init__(self, shape: tuple[int, ...], rows: Rows):
        self.shape, self.rows = shape, rows

    def dequantize(self) -> NDArray[np.float32]:
        return self.rows.values().reshape(self.shape)


class _Ops(ReferenceOps):
    """The reference ops over chunks that do not see each other, products by BLAS."""

    def __init__(self, config: Any, chunks: NDArray[np.int64], wanted: set[str], visit: Visit):
        super().__init__(config.cache_shape)
        self.tokens, self._size = chunks.reshape(-1), chunks.shape[1]
        self._wanted, self._visit = wanted, visit

    def embed(self, weight: Any) -> np.ndarray:
        return weight.matrix.at(self.tokens)

    def linear(self, x: np.ndarray, *weights: Any) -> Any:
        results = []
        for weight in weights:
            values = weight.matrix.values()
            if len(x) == len(self.tokens) and weight.name.startswith(tuple(self._wanted)):
                self._visit(weight.name, values, x)
            results.append(x @ values.T if weight.bias is None else x @ values.T + weight.bias)
        return results[0] if len(results) == 1 else tuple(results)

    def experts(self, x: np.ndarray, routes: np.ndarray, gate: Any, up: Any, down: Any) -> np.ndarray:
        wanted, self._wanted = self._wanted, {"not those that see some of the tokens only"}
        try:
            return super().experts(x, routes, gate, up, down)
        finally:
            self._wanted = wanted

    def attention(self, q: np.ndarray, cache: ReferenceCache, scale: float, window: int = 0, cap: float = 0.0) -> np.ndarray:
        _, n_kv_heads, head_dim = cache.keys.shape
        n = self._size
        before = np.arange(n)[:, None] - np.arange(n)  # by how much each position lies before each token's own
        allowed = (before >= 0) & (before < (window or n))
        parts = []
        for start in range(0, len(q), n):
            chunk = slice(start, start + n)
            keys, values = (np.ascontiguousarray(x[chunk].transpose(1, 0, 2))[:, None] for x in (cache.keys, cache.values))
            queries = q[chunk].reshape(n, n_kv_heads, -1, head_dim).transpose(1, 2, 0, 3)  # (n_kv_heads, group, n, head_dim)
            scores = queries @ keys.swapaxes(-1, -2) * np.float32(scale)
            scores = np.where(allowed, self.soft_cap(scores, cap) if cap else scores, np.float32(-np.inf))
            likely = np.exp(scores - scores.max(-1, keepdims=True))
            attended = (likely / likely.sum(-1, keepdims=True)) @ values
            parts.append(attended.transpose(2, 0, 1, 3).reshape(n, -1))
        return np.concatenate(parts)

    def positions(self, n: int) -> np.ndarray:
        return np.tile(np.arange(self._size), n // self._size)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        raise _Done


def _metadata(source: Source) -> dict[str, Any]:
    """All that a GGUF file of the source would say of its model and its tokenizer."""
    known = dict(source.metadata)
    if isinstance(source, HuggingFaceSource):
        from ggpy.converter.vocabulary import read_vocabulary

        found = read_vocabulary(source.checkpoint.path, source.config).metadata
        known |= {key: value for key, value in found.items() if not (isinstance(value, list) and not value)}
    return known
