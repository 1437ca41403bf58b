"""Metadata with typed access: a wrong type, a missing key or a value out of range is one error that names file, key and value."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NoReturn, TypeVar

import numpy as np

from ggpy.errors import GGUFError, printable
from ggpy.gguf.strings import Strings
from ggpy.gguf.types import FLOAT_TYPES, INTEGER_TYPES, SCALARS, ValueType
from ggpy.gguf.values import encode_value, infer_element_type

T = TypeVar("T")


class Required(Enum):
    """The default of a key that must be there."""

    REQUIRED = "required"


REQUIRED: Final = Required.REQUIRED


@dataclass(frozen=True, slots=True)
class Entry:
    """One key's value, as `Metadata` has it but for long arrays of strings, which are `Strings`. `element`: the type of an array's
    elements; `start`, `stop`: where its bytes lie in the file."""

    type: ValueType
    element: ValueType | None
    value: Any
    start: int
    stop: int

    @property
    def type_name(self) -> str:
        """As in "uint32" or "array of string"."""
        return self.type.name.lower() if self.element is None else f"array of {self.element.name.lower()}"


class Metadata(Mapping[str, Any]):
    """The key-value pairs of a GGUF file, in file order.

    Values are Python's str, int, float and bool; arrays of numbers are read-only NumPy arrays of the file's type, other arrays lists.
    The typed getters return `default` where the key is missing, and raise GGUFError where there is no default or the value is not what
    was asked for.
    """

    def __init__(self, path: str | os.PathLike[str], entries: dict[str, Entry], read: Callable[[int, int], bytes]):
        self.path, self.entries, self._read = path, entries, read
        self._lists: dict[str, list[str]] = {}

    @classmethod
    def of(cls, values: Mapping[str, Any], path: str | os.PathLike[str] = "<metadata>") -> Metadata:
        """Metadata that lies in no file: types are those a writer would choose."""
        entries, blob = {}, bytearray()
        for key, value in values.items():
            kind, raw = encode_value(value)
            element = infer_element_type(value) if kind is ValueType.ARRAY else None
            if element is not None and element in SCALARS and element is not ValueType.BOOL:
                value = np.asarray(value, SCALARS[element].dtype)
            entries[key] = Entry(kind, element, value, len(blob), len(blob) + len(raw))
            blob += raw
        return cls(path, entries, lambda start, stop: bytes(blob[start:stop]))

    def __getitem__(self, key: str) -> Any:
        return self._plain(key, self.entries[key].value)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def value_type(self, key: str) -> ValueType:
        """The type of the value as the file has it; KeyError for a key it has not."""
        return self.entries[key].type

    def element_type(self, key: str) -> ValueType | None:
        """The type of the elements of an array, None for other values; KeyError for a key the file has not."""
        return self.entries[key].element

    def raw(self, key: str) -> bytes:
        """The value's bytes exactly as they lie in the file, without key and type; the file must still be open."""
        entry = self.entries[key]
        return self._read(entry.start, entry.stop)

    def string(self, key: str, default: T | Required = REQUIRED) -> str | T:
        """A string."""
        return self._get(key, default, "a string", lambda entry: entry.type is ValueType.STRING)

    def boolean(self, key: str, default: T | Required = REQUIRED) -> bool | T:
        """A bool."""
        return self._get(key, default, "a bool", lambda entry: entry.type is ValueType.BOOL)

    def integer(self, key: str, default: T | Required = REQUIRED, *, minimum: int | None = None, maximum: int | None = None) -> int | T:
        """An integer of any width, from `minimum` to `maximum`."""
        expected = "an integer" + _range(minimum, maximum)
        return self._get(key, default, expected, lambda entry: entry.type in INTEGER_TYPES and _within(entry.value, minimum, maximum))

    def number(
        self,
        key: str,
        default: T | Required = REQUIRED,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        finite: bool = True,
    ) -> float | T:
        """A float or an integer as a float, from `minimum` to `maximum`, and finite unless told otherwise."""

        def fits(entry: Entry) -> bool:
            numeric = entry.type in FLOAT_TYPES or entry.type in INTEGER_TYPES
            return numeric and (not finite or math.isfinite(entry.value)) and _within(entry.value, minimum, maximum)

        expected = ("a finite number" if finite else "a number") + _range(minimum, maximum)
        value = self._get(key, default, expected, fits)
        return float(value) if key in self.entries else value  # type: ignore[arg-type]

    def strings(self, key: str, default: T | Required = REQUIRED) -> list[str] | T:
        """A list of strings."""
        return self._plain(key, self._get(key, default, "an array of strings", lambda entry: entry.element is ValueType.STRING))

    def packed_strings(self, key: str) -> Strings:
        """A list of strings of which few will be looked at."""
        value = self._get(key, REQUIRED, "an array of strings", lambda entry: entry.element is ValueType.STRING)
        return value if isinstance(value, Strings) else Strings.of(value)

    def integers(self, key: str, default: T | Required = REQUIRED) -> np.ndarray | T:
        """An array of integers, as int64 (n,)."""

        def fits(entry: Entry) -> bool:
            return entry.element in INTEGER_TYPES and (entry.element is not ValueType.UINT64 or not np.any(entry.value >> np.uint64(63)))

        value = self._get(key, default, "an array of integers below 2^63", fits)
        return np.asarray(value, np.int64) if key in self.entries else value

    def numbers(self, key: str, default: T | Required = REQUIRED) -> np.ndarray | T:
        """An array of numbers (n,): float32 where the file has float32, float64 otherwise."""
        value = self._get(key, default, "an array of numbers", lambda entry: entry.element in FLOAT_TYPES or entry.element in INTEGER_TYPES)
        if key not in self.entries:
            return value
        return np.asarray(value, np.float32 if self.entries[key].element is ValueType.FLOAT32 else np.float64)

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise the GGUFError of a key whose value is not `expected`."""
        entry = self.entries[key]
        raise GGUFError(self.path, entry.start, f"key '{printable(key, 80)}' is {describe(entry)}; expected {expected}")

    def _plain(self, key: str, value: Any) -> Any:
        if isinstance(value, Strings):
            value = self._lists.get(key) or self._lists.setdefault(key, value.tolist())
        return value

    def _get(self, key: str, default: Any, expected: str, fits: Callable[[Entry], bool]) -> Any:
        entry = self.entries.get(key)
        if entry is None:
            if default is REQUIRED:
                raise GGUFError(self.path, None, f"key '{printable(key, 80)}' is missing; expected {expected}")
            return default
        if not fits(entry):
            self.refuse(key, expected)
        return entry.value


def describe(entry: Entry) -> str:
    """A value and its type in a few words."""
    if entry.element is not None:
        return f"an array of {len(entry.value)} {entry.element.name.lower()} elements"
    shown = f"'{printable(entry.value, 60)}'" if entry.type is ValueType.STRING else str(entry.value)
    return f"{shown} ({entry.type_name})"


def _within(value: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is None and maximum is None:
        return ""
    if maximum is None:
        return f" of at least {minimum}"
    return f" of at most {maximum}" if minimum is None else f" from {minimum} to {maximum}"
