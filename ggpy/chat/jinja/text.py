"""Text that remembers which of its characters came from outside the template.

A chat template wraps messages in special tokens such as `<|im_end|>`. A message may spell the same characters, and they must not turn
into that token. So every string that enters a template is marked, and the operations here carry the marks along, character by character.
Where an operation has no exact rule, its whole result is marked: the template's text may lose its special meaning, never the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Ranges = tuple[tuple[int, int], ...]


class Marked(str):
    """A string with `outside`: sorted, disjoint half-open ranges of characters that came from outside the template."""

    outside: Ranges

    def __new__(cls, text: str, outside: Ranges) -> Marked:
        self = super().__new__(cls, text)
        self.outside = outside
        return self


def mark(text: str) -> str:
    """`text` with every character marked as from outside."""
    return Marked(str.__str__(text), ((0, len(text)),)) if text else ""


def outside(text: str) -> Ranges:
    """Ranges of `text` that came from outside; a plain string is the template's own."""
    return text.outside if isinstance(text, Marked) else ()


def mark_like(result: str, *sources: object) -> str:
    """`result`, marked as a whole when any character of a source was: the rule for operations without an exact one."""
    return mark(result) if any(isinstance(source, Marked) for source in sources) else result


def concatenate(parts: Iterable[str]) -> str:
    """The parts in order, each keeping its marks."""
    parts = list(parts)
    ranges: list[tuple[int, int]] = []
    position = 0
    for part in parts:
        for start, stop in outside(part):
            if ranges and ranges[-1][1] == position + start:
                ranges[-1] = (ranges[-1][0], position + stop)
            else:
                ranges.append((position + start, position + stop))
        position += len(part)
    text = "".join(parts)
    return Marked(text, tuple(ranges)) if ranges else text


def cut(text: str, start: int, stop: int) -> str:
    """text[start:stop] for 0 <= start <= stop <= len(text), keeping marks."""
    piece = str.__getitem__(text, slice(start, stop))
    ranges = tuple((max(a, start) - start, min(b, stop) - start) for a, b in outside(text) if max(a, start) < min(b, stop))
    return Marked(piece, ranges) if ranges else piece


def slice_text(text: str, index: slice) -> str:
    start, stop, step = index.indices(len(text))
    if step == 1:
        return cut(text, start, max(start, stop))
    return mark_like(str.__getitem__(text, index), text)


def strip(text: str, characters: str | None = None, *, left: bool = True, right: bool = True) -> str:
    start = len(text) - len(str.lstrip(text, characters)) if left else 0
    stop = len(str.rstrip(text, characters)) if right else len(text)
    return cut(text, start, max(start, stop))


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    """str.replace. The marks of `new` are kept; when `old` is empty and anything is marked, so is everything."""
    plain = str.replace(text, old, new, count)
    if not outside(text) and not outside(new):
        return plain
    if not old:
        return mark(plain)
    parts, position = [], 0
    while count != 0 and (found := str.find(text, old, position)) >= 0:
        parts += [cut(text, position, found), new]
        position = found + len(old)
        count -= 1
    return concatenate([*parts, cut(text, position, len(text))])


def locate(text: str, pieces: Sequence[str], gap: int) -> list[str]:
    """Give pieces of `text` their marks back: they lie in order, with `gap` characters between one and the next."""
    if not outside(text):
        return list(pieces)
    located, position = [], 0
    for piece in pieces:
        located.append(cut(text, position, position + len(piece)))
        position += len(piece) + gap
    return located


def split(text: str, separator: str | None = None, maximum: int = -1, *, from_right: bool = False) -> list[str]:
    """str.split, or str.rsplit, keeping marks."""
    pieces = str.rsplit(text, separator, maximum) if from_right else str.split(text, separator, maximum)
    if separator is not None:
        return locate(text, pieces, len(separator))
    if not outside(text):
        return pieces
    located, position = [], 0
    for piece in pieces:  # only white space lies between pieces, so the next occurrence is the piece itself
        position = str.index(text, piece, position)
        located.append(cut(text, position, position + len(piece)))
        position += len(piece)
    return located


def split_lines(text: str, keep_ends: bool = False) -> list[str]:
    lines = locate(text, str.splitlines(text, True), 0)
    return lines if keep_ends else [cut(line, 0, len(str.splitlines(line)[0])) for line in lines]


def change_case(text: str, method: str) -> str:
    """Apply a str method such as `upper`. Marks are kept when the length is (no case mapping shortens), else everything is marked."""
    result = getattr(str, method)(text)
    if not outside(text):
        return result
    return Marked(result, outside(text)) if len(result) == len(text) else mark(result)
