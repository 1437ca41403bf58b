"""How calibration texts are read and cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggpy.errors import GGPyError
from ggpy.gguf import open_gguf
from ggpy.quantize.texts import Text, cut, read_texts
from ggpy.tokenizer import load_tokenizer
from ggpy.tokenizer.tokenizer import Tokenizer
from tests.runtime.tiny import write_llama


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    with open_gguf(write_llama(tmp_path_factory.mktemp("model") / "model.gguf", d_model=32, d_ff=32, layers=1)) as file:
        return load_tokenizer(file.metadata)


def test_folders_are_read_by_name_and_jsonl_by_line(tmp_path: Path):
    (tmp_path / "b.txt").write_bytes(b"two\r\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n"half"\n', encoding="utf-8")
    (tmp_path / "c.bin").write_bytes(b"\xff")
    (tmp_path / "README.md").write_text("About this data set", encoding="utf-8")
    for folder in (".cache", "more"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "z.md").write_text("three", encoding="utf-8")
    assert read_texts(tmp_path) == [Text("a.jsonl", "one\n\nhalf"), Text("b.txt", "two\r\n"), Text("z.md", "three")]
    assert read_texts(tmp_path / "b.txt") == [Text("b.txt", "two\r\n")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"ab\xff", r"a\.txt: byte 2 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', r"a\.jsonl: line 2 is not JSON"),
        ("a.jsonl", b'{"body": "a"}', r"line 1 is no string"),
        ("a.jsonl", b"[" * 100_000, r"line 1 is not JSON"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GGPyError, match=message):
        read_texts(tmp_path / name)


def test_what_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(GGPyError, match="no such text"):
        read_texts(tmp_path / "none.txt")
    with pytest.raises(GGPyError, match=r"no text in this folder, expected files ending in \.txt"):
        read_texts(tmp_path)


def test_chunks_never_go_from_one_text_into_the_next(tokenizer: Tokenizer):
    texts = [Text("a", "a" * 43 + "\n"), Text("b", "b" * 5), Text("c", "c" * 19)]
    chunks = cut(tokenizer, texts, 10)
    assert chunks.ids.shape == (6, 10)
    assert (chunks.ids[:, 0] == tokenizer.bos).all()
    whole = np.array(tokenizer.encode("a" * 43, add_special=True))
    np.testing.assert_array_equal(chunks.ids[1, 1:], whole[11:20])
    assert chunks.names == ("a", "c")
    assert chunks.units == (slice(0, 4), slice(4, 6))


def test_a_limit_takes_the_beginning_or_some_of_everywhere(tokenizer: Tokenizer):
    texts = [Text("a", "".join(map(chr, range(33, 93))))]
    whole = cut(tokenizer, texts, 6).ids
    np.testing.assert_array_equal(cut(tokenizer, texts, 6, 4).ids, whole[:4])
    spread = cut(tokenizer, texts, 6, 4, spread=True).ids
    np.testing.assert_array_equal(spread, whole[[0, 3, 5, 8]])
    np.testing.assert_array_equal(cut(tokenizer, texts, 6, 99, spread=True).ids, whole)


def test_units_hold_some_thousand_tokens_of_one_text(tokenizer: Tokenizer):
    chunks = cut(tokenizer, [Text("a", "a" * 9000), Text("b", "b" * 1500)], 1000)
    assert chunks.units == (slice(0, 4), slice(4, 8), slice(8, 9), slice(9, 10))


def test_a_text_that_is_too_short_is_refused(tokenizer: Tokenizer):
    with pytest.raises(GGPyError, match=r"b: a calibration text of \d+ tokens, expected at least one chunk of 512"):
        cut(tokenizer, [Text("b", "short")])
