"""Arrays of strings as they lie in a file: found and checked at once, decoded one by one when asked for.

A vocabulary and its merges are 10^5 strings of a few bytes. As Python objects they take longer to make than a small model takes to load,
and ten times their size; a program that tokenizes one prompt looks at a thousand of them.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import overload

import numpy as np

_LENGTH = 8  # bytes of the length in front of each string
_WINDOW = 2**16  # bytes looked at together, so that temporaries stay in cache
_DECODED = 2**18  # bytes decoded together
_BITS = 20  # of a key, that `indices_of` filters by
_FACTORS = tuple(map(np.uint64, (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)))


class Strings(Sequence[str]):
    """A read-only sequence of strings. Holds a copy of their bytes, so it outlives the file."""

    def __init__(self, texts: np.ndarray, starts: np.ndarray, stops: np.ndarray):
        """texts: uint8, UTF-8 with at least 8 zero bytes before, between and behind the strings. starts, stops: int64 (n,)."""
        self._texts, self._starts, self._stops = texts, starts, stops
        self._view = memoryview(texts.data)
        self._keys: np.ndarray | None = None

    @classmethod
    def of(cls, values: Iterable[str | bytes]) -> Strings:
        """The strings `values`, given as text or as its UTF-8; UnicodeEncodeError for a lone surrogate."""
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
        gap = bytes(_LENGTH)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        stops = np.cumsum(lengths + _LENGTH)
        return cls(np.frombuffer(gap + b"".join(part + gap for part in encoded), np.uint8), stops - lengths, stops)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return str(self._view[self._starts[index] : self._stops[index]], "utf-8")

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def tolist(self) -> list[str]:
        """All strings, decoded together."""
        if not len(self):
            return []
        if np.count_nonzero(self._texts) < int(self.lengths.sum()):  # some hold zero bytes themselves
            return [self[i] for i in range(len(self))]
        return str(self._view[self._starts[0] : self._stops[-1]], "utf-8").split("\0" * _LENGTH)

    def encoded(self, index: int) -> bytes:
        """The UTF-8 of a string."""
        return bytes(self._view[self._starts[index] : self._stops[index]])

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each string: int64 (n,)."""
        return self._stops - self._starts

    @property
    def laid_out(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What it was made of: UTF-8 in which strings lie, uint8; where they start and stop, int64 (n,)."""
        return self._texts, self._starts, self._stops

    def indices_of(self, wanted: Collection[bytes]) -> list[int]:
        """Where the strings with these UTF-8 bytes are, ascending."""
        if not wanted or not len(self):
            return []
        wanted = frozenset(wanted)
        return [i for i in self._resembling(Strings.of(wanted)._hashes()) if self.encoded(i) in wanted]

    def first_repeated(self) -> tuple[int, int] | None:
        """The first string that stands there again: (where it is repeated, where it was first); None where all differ."""
        ordered = np.sort(self._hashes())
        seen: dict[bytes, int] = {}
        for i in self._resembling(ordered[1:][ordered[1:] == ordered[:-1]]):
            text = self.encoded(i)
            if seen.setdefault(text, i) != i:
                return i, seen[text]
        return None

    def first_without(self, byte: int) -> int | None:
        """The first string that lacks a byte other than 0; None where all have it."""
        places = np.flatnonzero(self._texts == byte)
        if len(places) == len(self) and bool(((self._starts <= places) & (places < self._stops)).all()):
            return None  # each has it once
        behind = np.searchsorted(places, self._starts)
        lacking = np.append(places, len(self._texts))[behind] >= self._stops
        return int(np.argmax(lacking)) if lacking.any() else None

    def _resembling(self, hashes: np.ndarray) -> list[int]:
        """Where strings are whose hashes begin like one of these, ascending."""
        shift = np.uint64(64 - _BITS)
        may_be = np.zeros(2**_BITS, bool)
        may_be[hashes >> shift] = True
        return np.flatnonzero(may_be[self._hashes() >> shift]).tolist()

    def _hashes(self) -> np.ndarray:
        """uint64 (n,): equal for equal strings; made of length, first and last eight bytes, the zeros around a short one included."""
        if self._keys is None:
            words = np.ndarray((len(self._texts) - _LENGTH + 1,), "<u8", self._texts, strides=(1,))
            a, b, c, d = _FACTORS
            hashes = words[self._starts] * a
            hashes ^= hashes >> np.uint64(32)
            hashes += words[self._stops - _LENGTH] * b
            hashes += self.lengths.astype(np.uint64) * c
            hashes ^= hashes >> np.uint64(29)
            self._keys = hashes * d
        return self._keys


def find_strings(buffer: mmap.mmap | bytes, at: int, end: int, count: int) -> tuple[Strings, int] | None:
    """The `count` strings from `at` on, each behind its length, and where the last ends; None where not all of them lie before `end` and
    are UTF-8.

    Where a string lies is known only from the lengths of those before it. Lengths below 256 have seven zero bytes behind the first, which
    texts have not: all such places are found together, and where each is exactly as far from the one before as that one says, they are the
    lengths. Where the chain breaks, the rest of the window is walked string by string.
    """
    data = np.frombuffer(buffer, np.uint8)
    fields: list[np.ndarray] = []  # where lengths are
    position, found = at, 0
    while found < count:
        window = data[position : min(position + _WINDOW, end)]
        chain, follows = _chained(window)
        chain, follows = chain[: count - found], follows[: count - found]
        fields.append(chain + position)
        found += len(chain)
        stop = position + len(window)
        position = position + int(follows[-1]) if len(chain) else position
        walked: list[int] = []
        while found < count and (position < stop - 2 * _LENGTH or not len(chain) + len(walked)):
            if position + _LENGTH > end:
                return None
            walked.append(position)
            position += _LENGTH + int.from_bytes(buffer[position : position + _LENGTH], "little")
            found += 1
            if position > end:
                return None
        fields.append(np.array(walked, np.int64))
        if position > end:
            return None
    strings = _cut(data, at, position, np.concatenate(fields) if fields else np.zeros(0, np.int64))
    return None if strings is None else (strings, position)


def _chained(window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) places of lengths, from the window's first byte on, as far as each leads to the next; and where each leads."""
    if len(window) <= _LENGTH:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    zero = window[1:] == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    places = np.flatnonzero(four[:-3] & four[3:])  # seven zeros behind a byte
    follows = places + _LENGTH + window[places]
    if not len(places) or places[0]:
        return places[:0], follows[:0]
    broken = follows[:-1] != places[1:]
    n = int(np.argmax(broken)) + 1 if broken.any() else len(places)
    return places[:n], follows[:n]


def _cut(data: np.ndarray, at: int, stop: int, fields: np.ndarray) -> Strings | None:
    """The strings of `data` from `at` to `stop`, whose lengths stand at `fields`; None where one is no UTF-8."""
    texts = np.zeros(stop - at + _LENGTH, np.uint8)
    texts[: stop - at] = data[at:stop]
    fields = fields - at
    starts, stops = fields + _LENGTH, np.append(fields[1:], stop - at)[: len(fields)]
    texts[fields] = 0
    long = fields[stops - starts >= 256]
    for i in range(1, _LENGTH):
        texts[long + i] = 0
    texts.flags.writeable = False
    view = memoryview(texts.data)
    try:
        for first in range(0, len(texts), _DECODED):
            # a part begins where a string does, so that no character is cut
            begin, end = (int(fields[i]) if i < len(fields) else len(texts) for i in np.searchsorted(fields, (first, first + _DECODED)))
            str(view[begin:end], "utf-8")
    except UnicodeDecodeError:
        return None
    return Strings(texts, starts, stops)
