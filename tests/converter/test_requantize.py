"""GGUF files as sources: split ones, quantized ones, and files that are older than GGUF."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from ggpy.converter import convert
from ggpy.errors import GGPyError, GGUFError
from ggpy.gguf import open_gguf
from tests.runtime.tiny import write_llama
from tests.split_model import split_file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("whole") / "tiny.gguf", {"": "Q8_0", "attn_q": "F32"}, vocab=260, d_ff=256, layers=1)


@pytest.mark.parametrize("given", [0, 2])
def test_a_split_file_gives_what_the_whole_gives(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int):
    parts = split_file(whole, tmp_path, 3)
    expected = convert(whole, tmp_path / "expected.gguf", "q4_0")
    monkeypatch.chdir(tmp_path)
    report = convert(parts[given], type="q4_0")
    assert report.path == Path("tiny-Q4_0.gguf") and report.tensors == expected.tensors
    assert report.path.read_bytes() == expected.path.read_bytes()


def test_no_part_is_written_over(whole: Path, tmp_path: Path):
    parts = split_file(whole, tmp_path, 3)
    before = parts[1].read_bytes()
    with pytest.raises(GGPyError, match=r"tiny-00002-of-00003.gguf: is the input"):
        convert(parts[0], parts[1], "q4_0", force=True)
    assert parts[1].read_bytes() == before


def test_what_quantizing_again_loses_is_measured(whole: Path, tmp_path: Path):
    report = convert(whole, tmp_path / "q4.gguf", "q4_0")
    assert report.requantized == ("Q8_0",) and report.measured
    with open_gguf(whole) as source, open_gguf(report.path) as made:
        for tensor in report.tensors:
            values = source.tensors[tensor.name].dequantize()
            error = np.linalg.norm(made.tensors[tensor.name].dequantize() - values) / np.linalg.norm(values)
            assert tensor.relative_rmse == pytest.approx(error, rel=1e-4, abs=1e-12)
    (kind,) = (kind for kind in report.kinds() if kind.kind == "ffn_up")
    assert 0.05 < (kind.relative_rmse or 0) < 0.12
    text = str(report)
    assert re.search(r"ffn_up +1 Q4_0 .* [5-9]\.\d{3}%", text)
    assert "error: against the weights that the source's Q8_0 stand for" in text
    assert report.to_json()["requantized"] == ["Q8_0"]


def test_floats_lose_nothing_twice(whole: Path, tmp_path: Path):
    floats = convert(whole, tmp_path / "f32.gguf", "f32", measure_error=True)
    assert floats.requantized == () and {tensor.relative_rmse for tensor in floats.tensors} == {0.0}
    report = convert(floats.path, tmp_path / "q4.gguf", "q4_0")
    assert report.requantized == ("on the Q8_0 grid",) and report.measured  # by their values: they were decoded from it


@pytest.mark.parametrize(
    ("head", "name", "advice"),
    [
        (struct.pack("<I", 0x67676D6C), "the old GGML format,", "with ggpy-convert"),
        (struct.pack("<II", 0x67676D66, 1), "the old GGMF format, version 1,", "with ggpy-convert"),
        (struct.pack("<II", 0x67676A74, 1), "the old GGJT format, version 1,", "with ggpy-convert"),
        (struct.pack("<II", 0x67676A74, 3), "the old GGJT format, version 3,", "convert_llama_ggml_to_gguf.py"),
        (struct.pack("<I", 0x67676C61), "the old GGLA format", "ggpy-convert"),
        (struct.pack("<I", 0x67676A74)[:4], "the old GGJT format,", "with ggpy-convert"),
    ],
)
def test_files_older_than_gguf_are_named(tmp_path: Path, head: bytes, name: str, advice: str):
    path = tmp_path / "ggml-model-q4_0.bin"
    path.write_bytes(head + (bytes(100) if len(head) > 4 or b"lmgg" in head else b""))
    with pytest.raises(GGUFError) as caught:
        convert(path, tmp_path / "out.gguf", "q8_0")
    assert name in str(caught.value) and str(caught.value).endswith((advice, advice + " on it"))
    assert not (tmp_path / "out.gguf").exists()
