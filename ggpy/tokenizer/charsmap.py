"""Sentencepiece's normalization (a `precompiled_charsmap`): the longest listed text at each place becomes another.

The map is one little-endian uint32, the size in bytes of a trie; the trie, a double array of uint32 after S. Kanda, "Space- and
Time-Efficient String Dictionaries" (2018); and the replacements, each closed by a zero byte. Read here with every index checked, where
sentencepiece trusts it.
"""

from __future__ import annotations

import itertools

import numpy as np

from ggpy.errors import TokenizerError
from ggpy.gguf import Metadata, ValueType

MAX_KEY = 64  # bytes; the keys of NFKC have up to 18
MAX_PAIRS = 2**16  # remembered
_ROOT = 0


class CharsMap:
    """Replaces text by a precompiled map. Which characters and pairs of neighbours matter is worked out once for each that occurs."""

    def __init__(self, data: bytes, where: str, key: str = "tokenizer.ggml.precompiled_charsmap"):
        """Raises TokenizerError for a map whose parts do not fit into it."""
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 or size % 4 or not 4 <= size < len(data) - 4:
            raise TokenizerError(f"{where}: {key} has {len(data)} bytes, of which a trie of {size} is no part")
        self._where = f"{where}: {key}"
        self._units = np.frombuffer(data, "<u4", size // 4, offset=4).tolist()
        self._texts = data[4 + size :]
        self._single: dict[int, str] = {}
        self._seen: set[str] = set()
        self._pairs: dict[str, bool] = {}

    def __call__(self, text: str) -> str:
        for character in set(text) - self._seen:
            self._learn(character)
        if len(self._pairs) > MAX_PAIRS:
            self._pairs.clear()
        if not any(map(self._joins, set(map("".join, itertools.pairwise(text))))):
            return text.translate(self._single)
        starts = [at for at, pair in enumerate(map("".join, itertools.pairwise(text))) if self._joins(pair)]
        return self._replace_joined(text, starts)

    def _learn(self, character: str) -> None:
        self._seen.add(character)
        length, replacement = self._longest(character)
        if length:
            self._single[ord(character)] = replacement

    def _joins(self, pair: str) -> bool:
        """Whether some listed text may begin with these two characters."""
        known = self._pairs.get(pair)
        if known is None:
            known = self._pairs[pair] = self._walk(pair.encode())[0] == len(pair.encode())
        return known

    def _replace_joined(self, text: str, starts: list[int]) -> str:
        """Replace the longest listed text at each of `starts` that none before has taken, and single characters elsewhere."""
        parts, at = [], 0
        for start in starts:
            if start >= at:
                length, replacement = self._longest(text[start : start + MAX_KEY])
                parts += [text[at:start].translate(self._single), replacement if length else text[start]]
                at = start + max(length, 1)
        return "".join([*parts, text[at:].translate(self._single)])

    def _longest(self, text: str) -> tuple[int, str]:
        """The characters of the longest listed text that `text` begins with, and what it becomes; 0 where there is none."""
        raw = text.encode()[:MAX_KEY]
        _, leaves = self._walk(raw)
        for length, value in reversed(leaves):
            if length == len(raw) or raw[length] & 0xC0 != 0x80:
                return len(raw[:length].decode("utf-8", "replace")), self._text_at(value)
        return 0, ""

    def _walk(self, raw: bytes) -> tuple[int, list[tuple[int, int]]]:
        """How many bytes the trie follows, and (bytes, value) of each listed text on the way."""
        leaves = []
        node = self._base(self._unit(_ROOT))
        for at, byte in enumerate(raw):
            node ^= byte
            unit = self._unit(node)
            if not byte or unit & (1 << 31 | 0xFF) != byte:
                return at, leaves
            node ^= self._base(unit)
            if unit >> 8 & 1:
                leaves.append((at + 1, self._unit(node) & ~(1 << 31)))
        return len(raw), leaves

    def _unit(self, index: int) -> int:
        if index >= len(self._units):
            raise TokenizerError(f"{self._where} points to {index} of {len(self._units)} entries")
        return self._units[index]

    @staticmethod
    def _base(unit: int) -> int:
        return unit >> 10 << (unit >> 6 & 8)

    def _text_at(self, start: int) -> str:
        stop = self._texts.find(b"\0", start)
        if stop < 0:
            raise TokenizerError(f"{self._where} points to text {start} of {len(self._texts)} bytes")
        return self._texts[start:stop].decode("utf-8", "replace")


def read_charsmap(metadata: Metadata, key: str, where: str) -> CharsMap | None:
    """The map at `key`; None where there is none. Raises GGUFError for a value of another type, TokenizerError for a damaged map."""
    values = metadata.integers(key, None)
    if values is None or not len(values):
        return None
    if metadata.element_type(key) not in (ValueType.UINT8, ValueType.INT8):
        metadata.refuse(key, "an array of uint8")
    return CharsMap((values & 0xFF).astype(np.uint8).tobytes(), where, key)
