"""Strings found together are those that a walk from length to length finds, whatever they hold; a fault in any of them is noticed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy.errors import GGUFError
from ggpy.gguf import GGUFWriter, Metadata, open_gguf, strings
from ggpy.gguf.strings import Strings, find_strings

WINDOWS = (32, 100, 2**16)
_KINDS = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="ab\0", max_size=20),
    st.sampled_from(["", "\0" * 7, "\0" * 8, "\0" * 30, "a" * 255, "b" * 256, "c" * 300, "é" * 128, "\x01" + "\0" * 7 + "x", "漢字🙂"]),
)
texts = st.lists(_KINDS, max_size=60)


def lay_out(values: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(value)) + value for value in values)


@settings(max_examples=300)
@given(texts, st.sampled_from(WINDOWS), st.integers(0, 20), st.binary(max_size=20))
def test_what_is_found_is_what_was_laid_out(values: list[str], window: int, before: int, behind: bytes) -> None:
    laid = lay_out([value.encode() for value in values])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strings, "_WINDOW", window)
        patch.setattr(strings, "_DECODED", window)
        found = find_strings(bytes(before) + laid + behind, before, before + len(laid), len(values))
    assert found is not None
    assert found[1] == before + len(laid)
    assert found[0].tolist() == values == [found[0][i] for i in range(len(values))]
    assert found[0].lengths.tolist() == [len(value.encode()) for value in values]
    assert found[0][1:3] == values[1:3]


@settings(max_examples=200)
@given(texts.filter(bool), st.sampled_from(WINDOWS), st.integers(1, 2**64 - 1), st.data())
def test_strings_that_do_not_fit_are_not_found(values: list[str], window: int, excess: int, data: st.DataObject) -> None:
    laid = bytearray(lay_out([value.encode() for value in values]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strings, "_WINDOW", window)
        assert find_strings(bytes(laid), 0, len(laid) - 1, len(values)) is None
        assert find_strings(bytes(laid), 0, len(laid), len(values) + 1) is None
        last = len(laid) - 8 - len(values[-1].encode())
        struct.pack_into("<Q", laid, last, min(len(values[-1].encode()) + excess, 2**64 - 1))
        assert find_strings(bytes(laid) + b"\1" * data.draw(st.integers(0, 3)), 0, len(laid), len(values)) is None


@pytest.mark.parametrize("place", [0, 150, 299])
@pytest.mark.parametrize("bad", [b"\xff", b"ab\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"])
def test_no_utf8_is_named_where_it_is(place: int, bad: bytes, tmp_path: Path) -> None:
    values = [b"word%d" % i for i in range(300)]
    values[place] = bad
    assert find_strings(lay_out(values), 0, len(lay_out(values)), 300) is None
    with GGUFWriter(tmp_path / "model.gguf") as writer:
        writer.add("k", ["x" * len(value) for value in values])
    raw = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(raw.replace(lay_out([b"x" * len(value) for value in values]), lay_out(values)))
    with pytest.raises(GGUFError, match=f"key 'k': string {place} is not UTF-8: byte 0x") as caught:
        open_gguf(tmp_path / "model.gguf")
    at = raw.index(lay_out([b"x" * len(value) for value in values]))
    assert caught.value.offset is not None and at < caught.value.offset < at + len(lay_out(values[: place + 1]))


def test_halves_of_a_character_are_two_faults_not_one_character() -> None:
    values = [b"w"] * 200 + [b"\xc3", b"\xa9"]
    assert find_strings(lay_out(values), 0, len(lay_out(values)), len(values)) is None


@given(texts, st.lists(_KINDS, max_size=5))
def test_indices_of_finds_all_and_only_the_wanted(values: list[str], wanted: list[str]) -> None:
    asked = {text.encode() for text in [*wanted, *values[::3]]}
    assert Strings.of(values).indices_of(asked) == [i for i, value in enumerate(values) if value.encode() in asked]


@given(texts)
def test_first_repeated(values: list[str]) -> None:
    repeated = next(((i, values.index(value)) for i, value in enumerate(values) if value in values[:i]), None)
    assert Strings.of(values).first_repeated() == repeated


@given(st.lists(st.text(alphabet="a b", max_size=4), max_size=20))
def test_first_without(values: list[str]) -> None:
    assert Strings.of(values).first_without(ord(" ")) == next((i for i, value in enumerate(values) if " " not in value), None)


def test_metadata_gives_plain_lists(tmp_path: Path) -> None:
    values = [f"token{i}" for i in range(1000)]
    with GGUFWriter(tmp_path / "model.gguf") as writer:
        writer.add("many", values)
        writer.add("few", values[:3])
    with open_gguf(tmp_path / "model.gguf") as file:
        metadata = file.metadata
    assert type(metadata["many"]) is list and metadata["many"] == metadata.strings("many") == values
    assert list(metadata.packed_strings("many")) == values and list(metadata.packed_strings("few")) == values[:3]
    assert isinstance(metadata.entries["many"].value, Strings)
    with pytest.raises(GGUFError, match="'other' is missing; expected an array of strings"):
        metadata.packed_strings("other")
    assert Metadata.of({"k": ["a"]}).packed_strings("k").tolist() == ["a"]
