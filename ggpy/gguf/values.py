"""Metadata values: from bytes to Python values and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from ggpy.gguf.cursor import U64, Cursor
from ggpy.gguf.strings import Strings, find_strings
from ggpy.gguf.types import FLOAT_TYPES, INTEGER_TYPES, MAX_ELEMENTS, MAX_NESTING, SCALARS, SMALLEST_ELEMENT, ValueType

_SCALAR_INTEGERS = (ValueType.UINT32, ValueType.INT32, ValueType.UINT64, ValueType.INT64)
_ARRAY_INTEGERS = (ValueType.INT32, ValueType.UINT32, ValueType.INT64, ValueType.UINT64)
_MANY = 100  # strings that are worth finding together
_OF_DTYPE = {scalar.dtype: kind for kind, scalar in SCALARS.items() if kind is not ValueType.BOOL} | {np.dtype("f2"): ValueType.FLOAT32}


def read_value_type(cursor: Cursor, what: str) -> ValueType:
    """A value type; raises GGUFError for a number that is none."""
    number = cursor.u32(what)
    try:
        return ValueType(number)
    except ValueError:
        cursor.fault(f"{what} is {number}; value types are 0 to {max(ValueType)}", cursor.at - 4)


def read_value(cursor: Cursor, kind: ValueType) -> tuple[object, ValueType | None]:
    """A value of type `kind`, and the type of its elements where it is an array.

    Numbers, bools and strings are Python's; arrays of numbers are read-only NumPy arrays of the file's type, arrays of strings, bools and
    arrays are lists, or Strings for many of them.
    """
    if kind is ValueType.ARRAY:
        return _read_array(cursor)
    if kind is ValueType.STRING:
        return cursor.text("its value"), None
    value = cursor.scalar(kind)
    if kind is not ValueType.BOOL:
        return value, None
    if value > 1:
        cursor.fault(f"a bool is 0 or 1, this one is {value}", cursor.at - 1)
    return bool(value), None


def _read_array(cursor: Cursor) -> tuple[object, ValueType]:
    unfinished: list[tuple[list, int]] = []  # from the outside in: arrays of arrays, with the elements each will have
    outermost: ValueType | None = None
    while True:
        kind, count = _read_array_header(cursor)
        outermost = kind if outermost is None else outermost
        if kind is ValueType.ARRAY:
            if len(unfinished) + 2 > MAX_NESTING:
                cursor.fault(f"arrays are nested deeper than {MAX_NESTING}")
            if count:
                unfinished.append(([], count))
                continue
        value = _read_elements(cursor, kind, count)
        if unfinished and isinstance(value, Strings):
            value = value.tolist()
        while unfinished:
            elements, expected = unfinished[-1]
            elements.append(value)
            if len(elements) < expected:
                break
            value = elements
            unfinished.pop()
        else:
            return value, outermost


def _read_array_header(cursor: Cursor) -> tuple[ValueType, int]:
    kind = read_value_type(cursor, "the type of its elements")
    count = cursor.u64("the number of its elements")
    if count * SMALLEST_ELEMENT[kind] > cursor.left:
        cursor.short(f"an array of {count} {kind.name.lower()} elements", count * SMALLEST_ELEMENT[kind])
    if kind not in SCALARS:
        cursor.n_elements += count
        if cursor.n_elements > MAX_ELEMENTS:
            cursor.fault(f"its {count} elements make more than {MAX_ELEMENTS} strings and arrays in the file's arrays", cursor.at - 8)
    return kind, count


def _read_elements(cursor: Cursor, kind: ValueType, count: int) -> object:
    if kind is ValueType.ARRAY:
        return []
    if kind is ValueType.STRING:
        return _read_strings(cursor, count)
    scalar = SCALARS[kind]
    numbers = np.frombuffer(cursor.take(count * scalar.n_bytes, "its elements"), scalar.dtype)
    if kind is not ValueType.BOOL:
        return numbers
    if count and int(numbers.max()) > 1:
        index = int(np.argmax(numbers > 1))
        cursor.fault(f"a bool is 0 or 1, element {index} is {numbers[index]}", cursor.at - count + index)
    return numbers.astype(bool).tolist()


def _read_strings(cursor: Cursor, count: int) -> list[str] | Strings:
    found = find_strings(cursor.buffer, cursor.at, cursor.end, count) if count >= _MANY else None
    if found is not None:
        cursor.at = found[1]
        return found[0]
    # One by one, where they are few, and to say what is wrong with the first that is. In one loop: a method call for each takes three times
    # as long.
    buffer, end, length_at = cursor.buffer, cursor.end, U64.unpack_from
    strings: list[str] = []
    stop = cursor.at
    for index in range(count):
        cursor.at = stop
        start = stop + 8
        if start > end:
            cursor.short(f"the length of string {index} of {count}", 8)
        stop = start + length_at(buffer, stop)[0]
        if stop > end:
            cursor.at = start
            cursor.short(f"string {index} of {count}", stop - start)
        try:
            strings.append(buffer[start:stop].decode())
        except UnicodeDecodeError as error:
            cursor.fault(f"string {index} is not UTF-8: byte 0x{buffer[start + error.start]:02x}", start + error.start)
    cursor.at = stop
    return strings


def encode_text(text: str) -> bytes:
    """A string as it lies in a file; ValueError for one with a lone surrogate, which has no UTF-8."""
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"a string with a lone surrogate (U+{ord(text[error.start]):04X}) has no UTF-8") from None
    return U64.pack(len(raw)) + raw


def encode_value(value: Any, kind: ValueType | None = None) -> tuple[ValueType, bytes]:
    """The type and the bytes of a value.

    `kind` is the type of a scalar, or of the elements of a list or one-dimensional array. Without it: str, bool; int as the first of
    uint32, int32, uint64, int64 that holds it (in lists int32 first); float as float32; NumPy values as their own type. Raises
    ValueError where the value does not fit `kind`, and for an empty list without one.
    """
    if isinstance(value, np.ndarray | list | tuple):
        return ValueType.ARRAY, _encode_array(value, kind, depth=1)
    if isinstance(value, np.generic):
        kind = _dtype_kind(value.dtype) if kind is None else kind
        value = value.item()
    kind = infer_type(value) if kind is None else ValueType(kind)
    if kind is ValueType.STRING and isinstance(value, str):
        return kind, encode_text(value)
    if kind in SCALARS:
        return kind, _pack([value], kind)
    raise ValueError(f"{value!r:.80} is not of type {kind.name.lower()}")


def infer_type(value: object) -> ValueType:
    """The type `encode_value` gives a Python or NumPy value when it is not told one."""
    if isinstance(value, np.generic):
        return _dtype_kind(value.dtype)
    if isinstance(value, np.ndarray | list | tuple):
        return ValueType.ARRAY
    if isinstance(value, str):
        return ValueType.STRING
    return _number_type([value], _SCALAR_INTEGERS)


def infer_element_type(values: np.ndarray | Sequence[object]) -> ValueType:
    """The type of the elements of a list or one-dimensional array; ValueError for an empty list or one of several kinds."""
    if isinstance(values, np.ndarray):
        return _dtype_kind(values.dtype)
    if isinstance(values, Strings):
        return ValueType.STRING
    if not values:
        raise ValueError("an empty list does not say what it is a list of: give the type of its elements")
    if all(isinstance(v, str) for v in values):
        return ValueType.STRING
    if all(isinstance(v, np.ndarray | list | tuple) for v in values):
        return ValueType.ARRAY
    if isinstance(values[0], np.generic) and len({type(v) for v in values}) == 1:
        return _dtype_kind(values[0].dtype)
    return _number_type(values, _ARRAY_INTEGERS)


def _number_type(values: Sequence[Any], integers: Sequence[ValueType]) -> ValueType:
    if all(isinstance(v, bool | np.bool) for v in values):
        return ValueType.BOOL
    if all(_is_integer(v) for v in values):
        least, most = min(map(int, values)), max(map(int, values))
        for kind in integers:
            limits = np.iinfo(SCALARS[kind].dtype)
            if limits.min <= least and most <= limits.max:
                return kind
        raise ValueError(f"{least if least < 0 else most} does not fit 64 bits")
    if all(_is_integer(v) or isinstance(v, float | np.floating) for v in values):
        return ValueType.FLOAT32
    names = ", ".join(sorted({type(v).__name__ for v in values}))
    raise ValueError(f"no value type holds {names}: numbers, bools or strings of one kind are needed")


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _dtype_kind(dtype: np.dtype) -> ValueType:
    if dtype.kind == "b":
        return ValueType.BOOL
    try:
        return _OF_DTYPE[dtype.newbyteorder("<")]
    except KeyError:
        raise ValueError(f"no value type holds arrays of {dtype}") from None


def _encode_array(values: np.ndarray | Sequence[Any], kind: ValueType | None, depth: int) -> bytes:
    if depth > MAX_NESTING:
        raise ValueError(f"arrays are nested deeper than {MAX_NESTING}")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ValueError(f"an array of shape {values.shape} has no place in metadata: only one dimension has")
    kind = infer_element_type(values) if kind is None else ValueType(kind)
    if kind is ValueType.ARRAY:
        body = b"".join(_encode_array(v, None, depth + 1) for v in values)
    elif kind is ValueType.STRING:
        if not all(isinstance(v, str) for v in values):
            raise ValueError("a list of strings holds something else")
        body = b"".join(map(encode_text, values))
    else:
        body = _pack(values, kind)
    return struct.pack("<IQ", kind, len(values)) + body


def _pack(values: np.ndarray | Sequence[Any], kind: ValueType) -> bytes:
    """Numbers or bools as they lie in a file; ValueError where one is of another kind or out of range."""
    dtype = SCALARS[kind].dtype
    if isinstance(values, np.ndarray) and (values.dtype == dtype or (kind is ValueType.BOOL and values.dtype == bool)):
        return values.astype(dtype).tobytes()
    items = values.tolist() if isinstance(values, np.ndarray) else [_plain(value) for value in values]
    allowed: tuple[type, ...] = (bool,) if kind is ValueType.BOOL else (int,) if kind in INTEGER_TYPES else (int, float)
    for item in items:
        if not isinstance(item, allowed) or (isinstance(item, bool) and kind is not ValueType.BOOL):
            raise ValueError(f"{item!r:.80} is not of type {kind.name.lower()}")
    try:
        packed = struct.pack(f"<{len(items)}{SCALARS[kind].code}", *items)
    except (struct.error, OverflowError):
        limits = np.finfo(dtype) if kind in FLOAT_TYPES else np.iinfo(dtype)
        exact = float if kind in FLOAT_TYPES else int
        least, most = exact(limits.min), exact(limits.max)
        worst = next(item for item in items if not least <= item <= most)
        raise ValueError(f"{worst!s:.40} does not fit {kind.name.lower()}, which holds {least} to {most}") from None
    return packed


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
