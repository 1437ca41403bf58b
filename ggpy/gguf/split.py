"""A model split over several GGUF files, `NAME-00001-of-0000N.gguf` and so on: all parts found from any one of them, and checked together.

Each part is a GGUF file of its own: the first one has all metadata, and every part says in `split.no` (from 0), `split.count` and
`split.tensors.count` which part of what it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggpy.errors import GGUFError, printable
from ggpy.gguf.metadata import Metadata
from ggpy.gguf.types import ALIGNMENT_KEY, MAX_ENTRIES

if TYPE_CHECKING:
    from ggpy.gguf.reader import GGUFFile

NO_KEY, COUNT_KEY, TENSORS_KEY = "split.no", "split.count", "split.tensors.count"
MAX_PARTS = 65_535  # split.count is a uint16
_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def part_path(prefix: str, index: int, count: int) -> str:
    """The name of part `index` (from 0) of `count`, as llama.cpp forms it."""
    return f"{prefix}-{index + 1:05d}-of-{count:05d}.gguf"


def part_paths(path: str | os.PathLike[str]) -> list[Path]:
    """The paths of all parts of the split model that the file named `path` is a part of, by its name; just `path` for other names."""
    found = _NAME.fullmatch(Path(path).name)
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]) <= MAX_PARTS:
        return [Path(path)]
    return [Path(path).with_name(part_path(found["prefix"], i, int(found["count"]))) for i in range(int(found["count"]))]


def split_count(metadata: Metadata) -> int:
    """Into how many files the model is split; 1 for one that is not."""
    return int(metadata.integer(COUNT_KEY, 1, minimum=0, maximum=MAX_PARTS)) or 1


def open_parts(given: GGUFFile, open_part: Callable[[Path], GGUFFile]) -> list[GGUFFile]:
    """All parts of the split model that `given` is a part of, in order, `given` among them; the caller closes them.

    Raises GGUFError, with the parts opened here closed again, for a name that does not tell the others', parts that are missing, and parts
    that do not belong together: other counts, other metadata, the same tensor twice.
    """
    count = split_count(given.metadata)
    number = int(given.metadata.integer(NO_KEY, minimum=0, maximum=count - 1))
    paths = part_paths(given.path)
    if len(paths) != count or paths[number].name != Path(given.path).name:
        expected = part_path("NAME", number, count)
        _refuse(given, COUNT_KEY, f"part {number + 1} of a model split into {count} files, but it is not named {expected}: rename it back")
    missing = [path for path in paths if not path.exists()]
    if missing:
        names = ", ".join(printable(path.name, 80) for path in missing[:5]) + (", …" if len(missing) > 5 else "")
        _refuse(
            given, COUNT_KEY, f"part {number + 1} of a model split into {count} files; {len(missing)} of them are not beside it: {names}"
        )
    parts: list[GGUFFile] = []
    try:
        for index, path in enumerate(paths):
            parts.append(given if index == number else open_part(path))
        _check(parts)
    except BaseException:
        for part in parts:
            if part is not given:
                part.close()
        raise
    return parts


def _check(parts: Sequence[GGUFFile]) -> None:
    first, names = parts[0], {}
    n_tensors = first.metadata.integer(TENSORS_KEY, None, minimum=0, maximum=MAX_ENTRIES)
    for index, part in enumerate(parts):
        metadata = part.metadata
        if COUNT_KEY not in metadata or split_count(metadata) != len(parts):
            _refuse(part, COUNT_KEY, f"key '{COUNT_KEY}' is {metadata.get(COUNT_KEY, 'missing')}, in the other parts {len(parts)}")
        if metadata.integer(NO_KEY, minimum=0) != index:
            _refuse(part, NO_KEY, f"key '{NO_KEY}' is {metadata[NO_KEY]}, expected {index} by its name: renamed?")
        if metadata.integer(TENSORS_KEY, n_tensors) != n_tensors:
            _refuse(
                part, TENSORS_KEY, f"key '{TENSORS_KEY}' is {metadata[TENSORS_KEY]}, in the first part {n_tensors}: a part of another model"
            )
        _check_metadata(first, part)
        for name in part.tensors:
            if name in names:
                where = printable(Path(parts[names[name]].path).name)
                raise GGUFError(part.path, part.tensors[name].offset, f"tensor '{printable(name)}' is in {where} already")
            names[name] = index
    if n_tensors is not None and len(names) != n_tensors:
        _refuse(first, TENSORS_KEY, f"key '{TENSORS_KEY}' is {n_tensors}, but the {len(parts)} parts have {len(names)} tensors")
    if len(names) > MAX_ENTRIES:
        raise GGUFError(first.path, None, f"the {len(parts)} parts have {len(names)} tensors; at most {MAX_ENTRIES} are allowed")


def _check_metadata(first: GGUFFile, part: GGUFFile) -> None:
    for key in part.metadata:
        if key.startswith("split.") or key == ALIGNMENT_KEY:
            continue
        if key not in first.metadata or first.metadata.raw(key) != part.metadata.raw(key):
            name = printable(Path(first.path).name)
            state = "differs from that" if key in first.metadata else "is not"
            _refuse(
                part, key, f"key '{printable(key, 80)}' {state} in {name}, which has the metadata of all parts: a part of another model"
            )


def _refuse(part: GGUFFile, key: str, what: str) -> None:
    entry = part.metadata.entries.get(key)
    raise GGUFError(part.path, None if entry is None else entry.start, what)
