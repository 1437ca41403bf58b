"""A model that is to be converted, in memory and ready to run: its weights can be replaced one by one, and what follows them run again.

Weights are kept as float16, as near to their source as makes no difference to what quantizing them does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from ggpy.arch import ARCHS, Architecture, Config
from ggpy.blocks import BLOCKS
from ggpy.converter.recipes import RECIPES
from ggpy.converter.source import Source, SourceTensor
from ggpy.converter.tensor_types import TensorInfo, is_quantizable
from ggpy.errors import GGPyError, ModelError, printable
from ggpy.gguf import GGUFFile, GGUFWriter, open_gguf
from ggpy.gguf.table import align
from ggpy.picker.formats import importance_of, rounded
from ggpy.runtime.compiled import OnCompile
from ggpy.runtime.encode import widened
from ggpy.runtime.host import available_memory
from ggpy.runtime.kv_cache import KVCache
from ggpy.runtime.parallel import ThreadPool
from ggpy.runtime.program import Program, Segment
from ggpy.runtime.weights import Weight, load_weights

_CHUNK_VALUES = 1 << 22
_F16_MAX = 65504.0
_PIECE_ROWS = 8  # of logits, whose divergence is summed at a time


def matrices(source: Source) -> list[SourceTensor]:
    """The tensors whose format is open to choice: those recipes apply to."""
    return [t for t in source.tensors if is_quantizable(TensorInfo(t.name, t.shape, t.kept)) and t.n_values]


class Outline:
    """A source's metadata and tensor table as an open GGUF file, without the weights of its matrices. A context manager.

    file: a temporary file, as long as the model but mostly a hole: what is no matrix is in it. architecture, config: as the runtime reads
    them from there. Raises ModelError where ggpy does not run the model.
    """

    def __init__(self, source: Source):
        if source.architecture not in ARCHS:
            known = ", ".join(ARCHS)
            raise ModelError(
                f"{printable(source.name)}: architecture {printable(source.architecture, 40)} cannot be measured, ggpy runs {known}"
            )
        self.source = source
        self._folder = tempfile.TemporaryDirectory(prefix="ggpy-pick-")
        self._path = Path(self._folder.name) / "outline.gguf"
        try:
            self.file = _outline(source, self._path)
            self.architecture: Architecture = ARCHS[source.architecture]
            self.config: Config = self.architecture.config(self.file)
        except GGPyError as error:
            self.close()
            fault = str(error).replace(f"{self._path}: ", "")  # of a file that nobody has heard of
            raise ModelError(f"{printable(source.name)}: cannot be measured: {fault}") from None
        except BaseException:
            self.close()
            raise

    def weights(self, data: Mapping[str, tuple[str, NDArray[np.uint8]]], config: Config | None = None) -> SimpleNamespace:
        """The tree of weights that `Architecture.forward` takes, matrices with (name of block format, rows of blocks) from `data`."""
        root = load_weights(self.file, self.architecture.shapes(config or self.config))
        for place in (root, *root.layers):
            for leaf, weight in list(vars(place).items()):
                if isinstance(weight, Weight) and weight.name in data:
                    format, blocks = data[weight.name]
                    setattr(place, leaf, replace(weight, format=BLOCKS[format], data=blocks))
        return root

    def close(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
        self._folder.cleanup()

    def __enter__(self) -> Outline:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _outline(source: Source, path: Path) -> GGUFFile:
    chosen = {tensor.name for tensor in matrices(source)}
    others = [tensor for tensor in source.tensors if tensor.name not in chosen]
    writer = GGUFWriter(path, alignment=source.alignment)  # never entered: it only lays out
    source.describe(writer, RECIPES["F16"], {})
    for tensor in others:
        writer.add_tensor(tensor.name, tensor.shape, BLOCKS["F32"])
    for tensor in matrices(source):
        writer.add_tensor(tensor.name, tensor.shape, BLOCKS["F16"])
    header = writer.header()
    with open(path, "wb") as file:
        file.write(header)
        offset = align(len(header), source.alignment)
        for tensor in others:
            values = widened(tensor.open()(0, tensor.rows)) if tensor.n_values else np.zeros(0, np.float32)
            file.seek(offset)
            file.write(np.ascontiguousarray(values, "<f4").data)
            offset = align(offset + 4 * tensor.n_values, source.alignment)
        file.truncate(writer.file_size)
    return open_gguf(path)


def half_precision(tensor: SourceTensor) -> NDArray[np.float16]:
    """All of a matrix: float16 (rows, columns). GGPyError where it has values that are not finite or that float16 cannot hold."""
    result = np.empty((tensor.rows, tensor.columns), np.float16)
    read, step = tensor.open(), max(1, _CHUNK_VALUES // max(1, tensor.columns))
    for start in range(0, tensor.rows, step):
        rows = read(start, min(start + step, tensor.rows))
        part = result[start : start + step]
        with np.errstate(over="ignore"):
            part[:] = rows if rows.dtype == np.float16 else widened(rows)
        if not np.isfinite(part).all():
            raise GGPyError(
                f"tensor {printable(tensor.name)} has values that are not finite or above {_F16_MAX:g}, which cannot be measured"
            )
    return result


class Bench:
    """A model in memory on the tokens of a calibration text, run once as it is; then tensors are changed one at a time.

    values: by name, float16 (rows, columns): what may be changed in place. tensors: their names in the order in which the forward pass
    meets them. Raises ModelError where memory does not suffice.
    """

    def __init__(self, outline: Outline, segments: Sequence[Sequence[int]], skip: int, threads: int, on_compile: OnCompile | None = None):
        source, config = outline.source, outline.config.for_context(max(map(len, segments)))
        self._source, chosen = source, matrices(source)
        n_tokens = sum(map(len, segments))
        _check_memory(outline, n_tokens)
        self.values = {tensor.name: half_precision(tensor) for tensor in chosen}
        self._tree = outline.weights({name: ("F16", values.view(np.uint8)) for name, values in self.values.items()}, config)
        self._pool, self._workers = ThreadPool(threads), ThreadPoolExecutor(threads)
        cache = KVCache(config.cache_shape, max(map(len, segments)), len(segments))
        starts = np.cumsum([0, *map(len, segments)])
        self._rows = np.concatenate([np.arange(start + skip, start + len(ids)) for start, ids in zip(starts, segments, strict=False)])
        self._program = Program(
            lambda op: outline.architecture.forward(op, self._tree, config),
            cache,
            batch=n_tokens,
            outputs=len(self._rows),
            pool=self._pool,
            fuse=False,
            on_compile=on_compile,
        )
        self._segments = [Segment(slot, ids, 0) for slot, ids in enumerate(segments)]
        self._n_tokens = n_tokens
        self.log_probs = _log_softmax(self._program.run_segments(self._segments, self._rows))
        if not np.isfinite(self.log_probs).all():
            raise ModelError(f"{printable(source.name)}: the model's own predictions are not finite")
        found = {name: self._program.first_call(values) for name, values in self.values.items()}
        self.places = {name: place for name, place in found.items() if place is not None}
        self.tensors = sorted(self.places, key=lambda name: (self.places[name], name))

    def inputs(self, name: str) -> NDArray[np.float32] | None:
        """What a matrix was multiplied by, to be asked before anything is changed: float32 (n, columns); None where it was only looked up,
        or by what is not known, as within an expert."""
        data, width = self.values[name], self.values[name].shape[1]
        for op in self._program.ops:
            weights = op.params.get("weights", ())
            if any(np.may_share_memory(weight.data, data) for weight in weights):
                value = op.inputs[0]
                return (
                    self._program.values(value, len(self._rows) if value.of_outputs else self._n_tokens) if value.width == width else None
                )
        return None

    def divergence(self, since: str) -> float:
        """Mean KL divergence in nats from the unchanged model's predictions, now, if nothing was changed before the tensor `since`."""
        logits = self._program.run_again(self.places[since], self._rows)
        return sum(self._workers.map(partial(self._divergences, logits), range(0, len(logits), _PIECE_ROWS))) / len(logits)

    def _divergences(self, logits: NDArray[np.float32], start: int) -> float:
        """The sum of some rows' KL divergences, of as many as stay in a cache."""
        rows = slice(start, start + _PIECE_ROWS)
        before = self.log_probs[rows]
        return float((np.exp(before) * (before - _log_softmax(logits[rows]))).sum(dtype=np.float64))

    def divergence_of(self, formats: Mapping[str, str], importance: Mapping[str, NDArray[np.float32]], threads: int) -> float:
        """Mean KL divergence in nats with every matrix in its format; then all are read from the source again."""
        try:
            for name, format in formats.items():
                self.values[name][:] = rounded(self.values[name], format, importance_of(name, importance), threads)
            return self.divergence(self.tensors[0])
        finally:
            for tensor in matrices(self._source):
                self.values[tensor.name][:] = half_precision(tensor)

    @contextmanager
    def changed(self, name: str, values: np.ndarray) -> Iterator[None]:
        """With other values in a tensor."""
        before = self.values[name].copy()
        self.values[name][:] = values
        try:
            yield
        finally:
            self.values[name][:] = before

    def close(self) -> None:
        self._pool.close()
        self._workers.shutdown()


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def _check_memory(outline: Outline, n_tokens: int) -> None:
    """ModelError where weights and activations would not fit into the memory that is free."""
    config = outline.config
    weights = 2 * sum(tensor.n_values for tensor in matrices(outline.source))
    layer = 12 * config.d_model + 6 * config.d_ff * max(
        1, config.n_experts_used
    )  # values per token, once as they are and once for products
    needed, free = weights + 8 * n_tokens * (config.n_layers * layer + config.n_vocab), available_memory()
    if free is not None and needed > free:
        raise ModelError(
            f"{printable(outline.source.name)}: measuring it takes about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        )
