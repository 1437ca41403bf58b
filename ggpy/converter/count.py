"""Statistics of a model's inputs over a text, from a checkpoint or a GGUF file into a file."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ggpy.converter.calibrate import readable, weights_of
from ggpy.converter.hub import find_texts
from ggpy.converter.pipeline import open_source
from ggpy.converter.progress import Meter, OnProgress
from ggpy.converter.recipes import find_recipe
from ggpy.converter.statistics_file import write_statistics
from ggpy.errors import GGPyError, printable
from ggpy.quantize.calibration import CalibrationOps, run
from ggpy.quantize.counting import Counting
from ggpy.quantize.products import Products
from ggpy.quantize.scratch import Scratch
from ggpy.quantize.texts import CHUNK_TOKENS, cut, read_texts
from ggpy.runtime.host import available_threads


@dataclass(frozen=True)
class Summary:
    """A finished count. matrices: how many, of stacks each one. file_bytes: of the new file."""

    path: Path
    matrices: int
    tokens: int
    texts: int
    file_bytes: int
    seconds: float

    def __str__(self) -> str:
        texts = "1 text" if self.texts == 1 else f"{self.texts} texts"
        return (
            f"{printable(self.path)}: inputs of {self.matrices} matrices over {self.tokens} tokens of {texts}, "
            f"{self.file_bytes / 1e6:.1f} MB in {self.seconds:.1f} s"
        )


def count_inputs(
    src: str | os.PathLike[str],
    text: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    hessians: bool = False,
    head: bool = False,
    chunk_tokens: int = CHUNK_TOKENS,
    chunks: int | None = None,
    threads: int | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Count the inputs of every matrix of the model at `src` over `text`, a file or a folder, into the file `out`.

    hessians: Σ x xᵀ beside Σ x². head: of the output matrix too. chunk_tokens, chunks: how the text is read, see `ggpy.quantize.texts`.
    The same numbers for any number of threads. Raises GGPyError where the model, the text or the disk do not allow it.
    """
    began, out, workers = time.perf_counter(), Path(out), threads or available_threads()
    if out.exists() and not force:
        raise GGPyError(f"{printable(out)}: exists already; name another output, or replace it with --force (force=True)")
    source = open_source(Path(src))
    try:
        with readable(source, find_recipe("f32")) as model, Products(workers) as products, Scratch(out.parent) as scratch:
            if chunk_tokens > model.config.context_length:
                raise GGPyError(f"chunks of {chunk_tokens} tokens: the model's context ends at {model.config.context_length}")
            read = cut(model.tokenizer, read_texts(find_texts(os.fspath(text))), chunk_tokens, chunks)
            config = model.config.for_context(chunk_tokens)
            meter = Meter("calibrate", weights_of(model, config), on_progress)
            look = Counting(products, scratch, grams=hessians, head=head, on_matrix=meter)
            run(model.arch, config, model.tensors, CalibrationOps(config, read, products, look))
            write_statistics(out, look.found, scratch, read.names, len(read.ids), chunk_tokens, force=force)
    finally:
        source.close()
    matrices = sum(len(entry.names) * len(entry.squares) for entry in look.found)
    return Summary(out, matrices, read.ids.size, len(read.names), out.stat().st_size, time.perf_counter() - began)
