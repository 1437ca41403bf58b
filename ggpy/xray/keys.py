"""What differs between the metadata of two GGUF files, as short text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ggpy.converter.certificate.record import CHECKSUMS
from ggpy.errors import printable
from ggpy.gguf import Metadata
from ggpy.gguf.strings import Strings


@dataclass(frozen=True)
class KeyDifference:
    """A key that only one of the files has, or whose value differs; the values as short text, None where there is none."""

    key: str
    a: str | None
    b: str | None


def key_differences(a: Metadata, b: Metadata) -> list[KeyDifference]:
    """The keys that only one of them has, or whose values or types differ."""
    found = []
    for key in dict.fromkeys([*a, *b]):
        if key == CHECKSUMS:  # which says in numbers what the tensors say in words
            continue
        if key in a and key in b and a.entries[key].type_name == b.entries[key].type_name and a.raw(key) == b.raw(key):
            continue
        left, right = (_shown(metadata, key) if key in metadata else None for metadata in (a, b))
        if key in a and key in b and None not in (a.element_type(key), b.element_type(key)):
            at, n = _first_difference(a[key], b[key])
            left = f"{left}, {n} of them other; the first, {at}, is {_element(a[key], at)}"
            right = f"{right}, there {_element(b[key], at)}"
        found.append(KeyDifference(printable(key, 80), left, right))
    return found


def _shown(metadata: Metadata, key: str) -> str:
    entry = metadata.entries[key]
    if entry.element is not None:
        return f"{len(entry.value)} {entry.element.name.lower()} elements"
    return f"'{printable(entry.value, 60)}'" if isinstance(entry.value, str) else f"{_number(entry.value)} ({entry.type_name})"


def _number(value: object) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value).lower()


def _first_difference(a: Any, b: Any) -> tuple[int, int]:
    """Where two arrays differ first, and in how many places."""
    a, b = (x.tolist() if isinstance(x, Strings | np.ndarray) else x for x in (a, b))
    places = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y and not (x != x and y != y)]
    return (places[0] if places else min(len(a), len(b))), len(places) + abs(len(a) - len(b))


def _element(values: Any, at: int) -> str:
    return repr(printable(values[at], 30)) if at < len(values) else "none"
