"""Calibration text: a file, or a folder of files, and the chunks of tokens it is read in.

Chunks are those of llama-imatrix: a text less one closing newline, in tokens, is cut into pieces of equal length, each beginning with BOS
where the model wants one in place of its first token; what is left at the end is not read. No chunk goes from one file into the next, so
that files may be counted apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ggpy.errors import GGPyError, printable
from ggpy.quantize.statistics import UNIT_TOKENS
from ggpy.tokenizer.tokenizer import Tokenizer

CHUNK_TOKENS = 512
SUFFIXES = (".txt", ".md", ".jsonl")
"""Of the files that are read in a folder."""
_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Text:
    """name: of the file it is from, without its folder."""

    name: str
    text: str


@dataclass(frozen=True)
class Chunks:
    """ids: int64 (chunks, tokens). units: ranges of chunks that are summed up at once, in order; none holds chunks of two texts.
    names: of the texts."""

    ids: NDArray[np.int64]
    units: tuple[slice, ...]
    names: tuple[str, ...]

    @property
    def length(self) -> int:
        """Tokens of a chunk."""
        return self.ids.shape[1]


def read_texts(path: str | os.PathLike[str]) -> list[Text]:
    """The text of a file, or of the files in a folder and those below it that end in `SUFFIXES`, by name; not of README.md and what is
    hidden. Of .jsonl, each line's string under "text", an empty line between them.

    Raises GGPyError for what is not there, not UTF-8, not JSON, or holds no text.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file() and _is_text(file, path))
        if not files:
            raise GGPyError(f"{printable(path)}: no text in this folder, expected files ending in {', '.join(SUFFIXES)}")
    elif path.is_file():
        files = [path]
    else:
        raise GGPyError(f"{printable(path)}: no such text, expected a file or a folder")
    if too_large := next((file for file in files if file.stat().st_size > _MAX_BYTES), None):
        raise GGPyError(f"{printable(too_large)}: {too_large.stat().st_size} bytes, expected at most {_MAX_BYTES}: take a part of it")
    return [Text(file.name, _text_of(file)) for file in files]


def cut(tokenizer: Tokenizer, texts: Sequence[Text], length: int = CHUNK_TOKENS, limit: int | None = None, spread: bool = False) -> Chunks:
    """The texts in chunks of `length` tokens, at most `limit` of them: those at the beginning or, spread, some of everywhere.

    Raises GGPyError where there is not a whole chunk.
    """
    cut_texts = [(text.name, _chunks_of(tokenizer, text, length)) for text in texts]
    available = sum(len(ids) for _, ids in cut_texts)
    if not available:
        longest = max(len(tokenizer.encode(text.text, add_special=True)) for text in texts)
        raise GGPyError(f"{printable(texts[0].name)}: a calibration text of {longest} tokens, expected at least one chunk of {length}")
    wanted = min(limit or available, available)
    taken = np.arange(available) * wanted // available
    chosen = np.flatnonzero(np.diff(taken, prepend=-1)) if spread else np.arange(wanted)
    parts, units, names, before, start = [], [], [], 0, 0
    for name, ids in cut_texts:
        numbers = chosen[(chosen >= before) & (chosen < before + len(ids))] - before
        before += len(ids)
        if len(numbers):
            parts.append(ids[numbers])
            names.append(name)
            units += _units(start, start + len(numbers), length)
            start += len(numbers)
    return Chunks(np.concatenate(parts), tuple(units), tuple(names))


def _units(start: int, stop: int, length: int) -> Iterator[slice]:
    step = max(1, UNIT_TOKENS // length)
    yield from (slice(first, min(first + step, stop)) for first in range(start, stop, step))


def _chunks_of(tokenizer: Tokenizer, text: Text, length: int) -> NDArray[np.int64]:
    ids = np.array(tokenizer.encode(text.text.removesuffix("\n"), add_special=True), np.int64)
    chunks = ids[: len(ids) // length * length].reshape(-1, length)
    if tokenizer.add_bos and tokenizer.bos is not None:
        chunks[:, 0] = tokenizer.bos
    return chunks


def _is_text(file: Path, folder: Path) -> bool:
    return file.name != "README.md" and not any(part.startswith(".") for part in file.relative_to(folder).parts)


def _text_of(file: Path) -> str:
    try:
        text = file.read_bytes().decode("utf-8")  # not read_text, which would change "\r\n"
    except UnicodeDecodeError as error:
        raise GGPyError(f"{printable(file)}: byte {error.start} is not UTF-8, expected a text") from None
    if file.suffix.lower() != ".jsonl":
        return text
    return "\n\n".join(_line(file, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def _line(file: Path, number: int, line: str) -> str:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise GGPyError(f"{printable(file)}: line {number} is not JSON") from None
    found = document.get("text") if isinstance(document, dict) else document
    if not isinstance(found, str):
        raise GGPyError(f'{printable(file)}: line {number} is no string and has none under "text"')
    return found
