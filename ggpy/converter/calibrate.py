"""Converting with a calibration text: a source's own forward pass over it, and blocks made layer by layer on the way."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ggpy.arch import ARCHS, Architecture, Config
from ggpy.blocks import BLOCKS, dequantize
from ggpy.converter.hub import find_texts
from ggpy.converter.model_plan import ModelPlan
from ggpy.converter.options import Options
from ggpy.converter.progress import Meter
from ggpy.converter.recipes import Recipe
from ggpy.converter.source import RowReader, Source, SourceTensor
from ggpy.converter.stream import Job
from ggpy.errors import GGPyError, printable
from ggpy.gguf import GGUFWriter, open_gguf
from ggpy.quantize.awq import Folded, fold
from ggpy.quantize.calibration import EMBEDDING, OUTPUT, CalibrationOps, Matrix, run
from ggpy.quantize.driver import Sequential
from ggpy.quantize.products import Array, Products
from ggpy.quantize.scratch import Scratch
from ggpy.quantize.texts import CHUNK_TOKENS, Chunks, cut, read_texts
from ggpy.quantize.ways import Way
from ggpy.runtime.encode import encode_rows, widened
from ggpy.tokenizer import load_tokenizer
from ggpy.tokenizer.tokenizer import Tokenizer

DEFAULT_TOKENS = 64 * CHUNK_TOKENS


@dataclass(frozen=True)
class Readable:
    """A source as the forward pass reads it."""

    arch: Architecture
    config: Config
    tokenizer: Tokenizer
    tensors: Mapping[str, Matrix]


@contextlib.contextmanager
def readable(source: Source, recipe: Recipe) -> Iterator[Readable]:
    """Raises GGPyError where ggpy does not run the source's architecture, or the source has no tokenizer that it knows."""
    if source.architecture not in ARCHS:
        raise GGPyError(f"ggpy does not run architecture {printable(source.architecture, 40)} yet, which calibrating has to")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header.gguf"
        with GGUFWriter(path, alignment=source.alignment) as writer:
            source.describe(writer, recipe, {})
        with open_gguf(path) as header:
            tensors = {tensor.name: _shaped(tensor) for tensor in source.tensors}
            arch = ARCHS[source.architecture]
            config = arch.config(SimpleNamespace(path=source.name, metadata=header.metadata, tensors=tensors))  # pyright: ignore
            matrices = {t.name: Matrix(t.name, t.rows, t.columns, t.rows, _once(t)) for t in source.tensors if t.n_values}
            yield Readable(arch, config, load_tokenizer(header.metadata), matrices)


def _shaped(tensor: SourceTensor) -> Any:
    """What a config asks of an open file's tensor."""

    def values() -> np.ndarray:
        return widened(tensor.open()(0, tensor.rows)).reshape(tensor.shape)

    return SimpleNamespace(name=tensor.name, shape=tensor.shape, format=BLOCKS["F32"], dequantize=values)


def _once(tensor: SourceTensor) -> RowReader:
    reader: RowReader | None = None

    def read(start: int, stop: int) -> np.ndarray:
        nonlocal reader
        reader = reader or tensor.open()
        return reader(start, stop)

    return read


@dataclass
class Calibrated:
    """blocks: of the tensors that have them already, what opens a reader of their rows. importance: of others. metadata: keys for the file.
    said: one line for the summary."""

    blocks: dict[str, Callable[[], RowReader]] = field(default_factory=dict)
    importance: dict[str, np.ndarray] = field(default_factory=dict)
    metadata: dict[str, str | int] = field(default_factory=dict)
    said: str = ""


def calibrate(source: Source, planned: ModelPlan, options: Options, scratch: Scratch) -> Calibrated:
    """Quantize the source's matrices in the planned formats, by the options' method, over their text. Raises GGPyError where the text, the
    architecture or the weights do not allow it."""
    assert options.calibrate is not None
    way = options.way
    jobs = {job.tensor.name: job for job in planned.jobs(source)}
    formats = {name: job.format for name, job in jobs.items() if _is_quantized(job)}
    with readable(source, planned.recipe) as model, Products(options.workers) as products:
        length = min(CHUNK_TOKENS, model.config.context_length)
        limit = max(1, (options.calibration_tokens or DEFAULT_TOKENS) // length)
        chunks = cut(model.tokenizer, read_texts(find_texts(str(options.calibrate))), length, limit, spread=True)
        config = model.config.for_context(length)
        meter = Meter("calibrate", weights_of(model, config) * (2 if way.folds else 1), options.on_progress)
        tensors, folded = model.tensors, None
        if way.folds:
            folded = fold(model.arch, config, tensors, chunks, formats, products, threads=options.workers, on_matrix=meter)
            tensors = {**tensors, **folded.tensors}
            source.scaled = folded.producers
            source.tensors = [_replaced(tensor, folded.tensors.get(tensor.name)) for tensor in source.tensors]
        look = Sequential(formats, way, products, scratch, threads=options.workers, on_matrix=meter)
        embedding = formats.get(EMBEDDING)

        def embedded(rows: Array) -> Array:
            return dequantize(encode_rows(rows, embedding, options.workers), embedding) if embedding else rows

        run(model.arch, config, tensors, CalibrationOps(config, chunks, products, look, twice=way.twice, embedded=embedded))
    found = look.result
    readers = {name: scratch.reader(place) for name, place in found.places.items() if name not in found.failed}
    blocks = {name: (lambda reader=reader: reader) for name, reader in readers.items()}
    return Calibrated(blocks, found.importance, _metadata(way, chunks), _told(way, chunks, found.kept, folded))


def _replaced(tensor: SourceTensor, folded: Matrix | None) -> SourceTensor:
    """A tensor with scales folded into it, which no longer is what lies in the source."""
    if folded is None:
        return tensor
    return replace(tensor, dtype="F32", open=lambda: folded.read, raw=None, quantized=None, repacked={})


def _is_quantized(job: Job) -> bool:
    return job.format.block_values > 1 and job.format.encode is not None and not job.copied


def weights_of(model: Readable, config: Config) -> int:
    """Weights that inputs are multiplied by: of all matrices but an embedding that is not the head."""
    shapes = model.arch.shapes(config)
    names = [name for key, shape in shapes.items() if len(shape) > 1 and (name := key.removesuffix("?")) in model.tensors]
    return sum(model.tensors[n].rows * model.tensors[n].cols for n in names if n != EMBEDDING or OUTPUT not in names)


def _metadata(way: Way, chunks: Chunks) -> dict[str, str | int]:
    names = ", ".join(chunks.names)[:200]
    return {"ggpy.quantize.method": way.name, "ggpy.quantize.dataset": names, "ggpy.quantize.tokens": chunks.ids.size}


def _told(way: Way, chunks: Chunks, kept: Mapping[str, int], folded: Folded | None) -> str:
    texts = printable(chunks.names[0], 80) + (f" and {len(chunks.names) - 1} more" if len(chunks.names) > 1 else "")
    ways = ", ".join(f"{count} by {name}" for name, count in sorted(kept.items()))
    return f"calibrated on {chunks.ids.size} tokens of {texts} for {way.name}: matrices {ways or 'none'}{f'; {folded}' if folded else ''}"
