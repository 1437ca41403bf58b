"""What differs between two GGUF files: metadata, tokens, tensors, and by how much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ggpy.blocks import BLOCKS
from ggpy.converter.certificate.record import CHECKSUMS
from ggpy.converter.requantize import GGUFSource
from ggpy.converter.source import SourceTensor
from ggpy.errors import printable
from ggpy.gguf import Metadata, open_gguf
from ggpy.gguf.strings import Strings
from ggpy.gguf.summary import total
from ggpy.runtime.encode import widened

_PIECE_VALUES = 1 << 20


@dataclass(frozen=True)
class KeyDifference:
    """A key that only one of the files has, or whose value differs; the values as short text, None where there is none."""

    key: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that differs. a, b: its type and shape, None where the file lacks it. relative_rmse: ‖b − a‖ / ‖a‖, max_error: largest
    |b − a|; None where they cannot be compared."""

    name: str
    a: str | None
    b: str | None
    relative_rmse: float | None = None
    max_error: float | None = None


@dataclass(frozen=True)
class Differences:
    """bits_per_weight: of either file. n_equal: tensors that have the same type and bytes."""

    a: Path
    b: Path
    bits_per_weight: tuple[float, float]
    keys: list[KeyDifference] = field(default_factory=list)
    tensors: list[TensorDifference] = field(default_factory=list)
    n_equal: int = 0

    def __bool__(self) -> bool:
        return bool(self.keys or self.tensors)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; a number that is none becomes a string."""
        tensors = [{k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(t).items()} for t in self.tensors]
        return {
            "a": str(self.a),
            "b": str(self.b),
            "equal": not self,
            "bits_per_weight": list(self.bits_per_weight),
            "keys": [asdict(key) for key in self.keys],
            "tensors": tensors,
            "n_equal": self.n_equal,
        }

    def __str__(self) -> str:
        bits = " and ".join(f"{value:.3f}" for value in self.bits_per_weight)
        lines = [f"a: {printable(self.a)}", f"b: {printable(self.b)}", f"{bits} bits per weight, {self.n_equal} tensors equal to the byte"]
        lines += [f"key {k.key}: {k.a if k.a is not None else 'missing'} | {k.b if k.b is not None else 'missing'}" for k in self.keys]
        for tensor in self.tensors:
            both = tensor.a if tensor.a == tensor.b else f"{tensor.a or 'missing'} | {tensor.b or 'missing'}"
            error = f", error {tensor.relative_rmse:.3%}, at most {tensor.max_error:.4g}" if tensor.relative_rmse is not None else ""
            lines.append(f"tensor {printable(tensor.name, 64)}: {both}{error}")
        return "\n".join(lines if self else [*lines, "no differences"])


def diff(a: Path, b: Path, on_values: Callable[[str, int], None] = lambda name, n: None) -> Differences:
    """Compare two files; on_values(name, n) is called after n more weights. Raises GGUFError for a file that is not legal."""
    first, second = GGUFSource(a), None
    try:
        second = GGUFSource(b)
        with open_gguf(a) as file_a, open_gguf(b) as file_b:
            bits = tuple(total(file.tensors.values()).bits_per_weight for file in (file_a, file_b))
            found = Differences(a, b, (bits[0], bits[1]), _keys(file_a.metadata, file_b.metadata))
        ours, theirs = ({t.name: t for t in source.tensors} for source in (first, second))
        equal = 0
        for name in dict.fromkeys([*ours, *theirs]):
            difference = _compare(name, ours.get(name), theirs.get(name), on_values)
            if difference is None:
                equal += 1
            else:
                found.tensors.append(difference)
        return Differences(found.a, found.b, found.bits_per_weight, found.keys, found.tensors, equal)
    finally:
        first.close()
        if second is not None:
            second.close()


def _keys(a: Metadata, b: Metadata) -> list[KeyDifference]:
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


def _compare(name: str, a: SourceTensor | None, b: SourceTensor | None, on_values: Callable[[str, int], None]) -> TensorDifference | None:
    left, right = (None if t is None else f"{t.dtype} {' × '.join(map(str, t.shape))}" for t in (a, b))
    if a is None or b is None or a.shape != b.shape:
        return TensorDifference(name, left, right)
    if a.dtype == b.dtype and _equal(a, b):
        on_values(name, a.n_values)
        return None
    if BLOCKS[a.dtype].decode is None or BLOCKS[b.dtype].decode is None:
        return TensorDifference(name, left, right)
    squares = errors = largest = 0.0
    read_a, read_b = a.open(), b.open()
    with np.errstate(all="ignore"):  # NaN and infinity show in the figures
        for start, stop in _pieces(a):
            values = widened(read_a(start, stop)).astype(np.float64)
            error = widened(read_b(start, stop)) - values
            squares, errors = squares + float(np.square(values).sum()), errors + float(np.square(error).sum())
            largest = max(largest, float(np.abs(error).max(initial=0.0)), key=lambda x: math.inf if x != x else x)
            on_values(name, values.size)
    relative = math.sqrt(errors / squares) if squares > 0 else (0.0 if errors == 0 else math.inf)
    return TensorDifference(name, left, right, relative, largest)


def _equal(a: SourceTensor, b: SourceTensor) -> bool:
    assert a.raw is not None and b.raw is not None
    return all(np.array_equal(a.raw(start, stop), b.raw(start, stop)) for start, stop in _pieces(a))


def _pieces(tensor: SourceTensor) -> list[tuple[int, int]]:
    step = max(1, _PIECE_VALUES // max(1, tensor.columns))
    return [(start, min(start + step, tensor.rows)) for start in range(0, tensor.rows, step)]
