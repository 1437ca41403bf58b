"""Importance matrices: llama.cpp's two file formats, and weights encoded with them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy import convert
from ggpy.blocks import BLOCKS
from ggpy.converter.imatrix import Collected, ImportanceMatrix, read_imatrix, write_imatrix
from ggpy.converter.model_plan import plan_model
from ggpy.converter.options import Options
from ggpy.converter.pipeline import open_source
from ggpy.errors import GGPyError
from ggpy.gguf import GGUFWriter, open_gguf

from .checkpoints import CONFIG, write_checkpoint

ATTENTION = "blk.0.attn_q.weight"
EXPERTS = "blk.0.ffn_up_exps.weight"
WIDE = CONFIG | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}


def matrix() -> ImportanceMatrix:
    rng = np.random.default_rng(0)
    entries = {
        ATTENTION: Collected(rng.random((1, 64), np.float32) * 1000, np.array([512])),
        EXPERTS: Collected(rng.random((3, 32), np.float32) * 10, np.array([7, 0, 100])),
    }
    return ImportanceMatrix(entries, ("text.txt", "more.txt"), 5, 512)


def legacy(entries: dict[str, tuple[int, list[float]]], tail: bytes = b"") -> bytes:
    """The older format: entries are (number of calls, sums of means)."""
    data = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        data += np.array(values, "<f4").tobytes()
    return data + tail


def importance_of(model: Path, folder: Path) -> Path:
    """An importance matrix for every matrix of a checkpoint but its embedding."""
    source, rng, entries = open_source(model), np.random.default_rng(3), {}
    for tensor in source.tensors:
        if len(tensor.shape) == 2 and "embd" not in tensor.name:
            entries[tensor.name] = Collected(rng.gamma(0.5, 9, (1, tensor.columns)).astype(np.float32), np.array([64]))
    source.close()
    write_imatrix(ImportanceMatrix(entries, ("random.txt",), 4, 16), folder / "imatrix.gguf")
    return folder / "imatrix.gguf"


def test_what_is_written_is_read(tmp_path: Path):
    write_imatrix(matrix(), tmp_path / "a.gguf")
    found = read_imatrix(tmp_path / "a.gguf")
    assert (found.datasets, found.chunks, found.chunk_tokens) == (("text.txt", "more.txt"), 5, 512)
    assert list(found.entries) == sorted(matrix().entries)
    for name, entry in matrix().entries.items():
        assert np.array_equal(found.entries[name].sums, entry.sums)
        assert np.array_equal(found.entries[name].counts, entry.counts)


def test_it_is_laid_out_as_llama_imatrix_lays_it_out(tmp_path: Path):
    write_imatrix(matrix(), tmp_path / "a.gguf")
    with open_gguf(tmp_path / "a.gguf") as file:
        assert dict(file.metadata) == {
            "general.type": "imatrix",
            "imatrix.datasets": ["text.txt", "more.txt"],
            "imatrix.chunk_count": 5,
            "imatrix.chunk_size": 512,
        }
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        assert shapes == {
            f"{ATTENTION}.in_sum2": (1, 64),
            f"{ATTENTION}.counts": (1, 1),
            f"{EXPERTS}.in_sum2": (3, 32),
            f"{EXPERTS}.counts": (3, 1),
        }


def test_importance_is_the_mean_square_and_one_for_experts_never_used():
    entry = matrix().entries[EXPERTS]
    assert np.array_equal(entry.importance[0], entry.sums[0] / np.float32(7))
    assert np.array_equal(entry.importance[1], np.ones(32, np.float32))
    assert entry.importance.dtype == np.float32


def test_a_stack_has_an_importance_of_each_matrix_and_a_matrix_one_of_its_columns():
    assert matrix().of(ATTENTION, (8, 64)).shape == (64,)
    assert matrix().of(EXPERTS, (3, 8, 32)).shape == (3, 32)
    with pytest.raises(GGPyError, match=r"blk\.0\.attn_q\.weight has 64 columns here and 128 in the model"):
        matrix().of(ATTENTION, (8, 128))


def test_the_older_format(tmp_path: Path):
    tail = struct.pack("<ii", 9, 8) + b"text.txt"
    (tmp_path / "a.dat").write_bytes(legacy({"a": (4, [2, 4, 8]), "b": (0, [1, 2])}, tail))
    found = read_imatrix(tmp_path / "a.dat")
    assert (found.datasets, found.chunks) == (("text.txt",), 9)
    assert found.entries["a"].importance.tolist() == [[0.5, 1, 2]]
    assert found.entries["b"].importance.tolist() == [[1, 2]]  # no calls: means already
    write_imatrix(found, tmp_path / "a.gguf")
    again = read_imatrix(tmp_path / "a.gguf")
    assert all(np.array_equal(again.entries[name].importance, entry.importance) for name, entry in found.entries.items())


def test_the_older_format_may_end_with_its_entries(tmp_path: Path):
    (tmp_path / "a.dat").write_bytes(legacy({"a": (4, [2, 4, 8])}))
    assert read_imatrix(tmp_path / "a.dat").datasets == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends at byte 0"),
        (b"hello, this is some text", "number of entries is"),
        (legacy({"a": (1, [1])})[:4] + struct.pack("<i", 2**31 - 1) + b"x" * 40, "length of a name is 2147483647"),
        (legacy({"a": (1, [1, 2, 3])})[:-4], "number of values of a is 3"),
        (legacy({"a": (1, [1, float("nan")])}), "a: sum of squares 1 is nan"),
        (legacy({"a": (1, [1, -2])}), "a: sum of squares 1 is -2"),
        (legacy({"a": (1, [1])}, b"\0"), "in the number of chunks"),
        (legacy({"a": (1, [1])}, struct.pack("<ii", 1, 9) + b"text.txt"), "in the length of the dataset"),
    ],
)
def test_damaged_files_of_the_older_format_are_refused(tmp_path: Path, data: bytes, message: str):
    (tmp_path / "a.dat").write_bytes(data)
    with pytest.raises(GGPyError, match=message) as caught:
        read_imatrix(tmp_path / "a.dat")
    assert str(caught.value).startswith(str(tmp_path / "a.dat"))


def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path):
    once = legacy({"a": (1, [1])})[4:]
    (tmp_path / "a.dat").write_bytes(struct.pack("<i", 2) + once + once)
    with pytest.raises(GGPyError, match="entry a is there twice"):
        read_imatrix(tmp_path / "a.dat")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 59), st.binary(min_size=1, max_size=4), st.integers(0, 60))
def test_any_bytes_give_a_matrix_or_one_error(tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes, size: int):
    data = bytearray(legacy({"ab": (3, [1, 2]), "c": (1, [4])}, struct.pack("<ii", 9, 8) + b"text.txt"))
    data[at : at + len(junk)] = junk
    path = tmp_path_factory.mktemp("fuzz") / "a.dat"
    path.write_bytes(bytes(data[:size]))
    try:
        assert read_imatrix(path).entries
    except GGPyError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": ("F32", 4)}, "no importance matrix"),
        ({"a.in_sum2": ("F32", 4)}, "a has only one of"),
        ({"a.in_sum2": ("F32", 4), "a.counts": ("F32", 3)}, "4 sums are not the same number for each of 3 matrices"),
        ({"a.in_sum2": ("F16", 4), "a.counts": ("F32", 1)}, r"tensor a\.in_sum2 is F16, expected F32"),
        ({"a.in_sum2": ("F32", 0), "a.counts": ("F32", 1)}, "0 sums"),
    ],
)
def test_gguf_files_that_are_no_importance_matrix_are_refused(tmp_path: Path, tensors: dict[str, tuple[str, int]], message: str):
    with GGUFWriter(tmp_path / "a.gguf") as writer:
        writer.add("imatrix.datasets", ["t"])
        writer.add("imatrix.chunk_count", 1)
        writer.add("imatrix.chunk_size", 1)
        for name, (format, size) in tensors.items():
            writer.add_tensor(name, (size,), BLOCKS[format])
        for name, (format, size) in tensors.items():
            writer.write_tensor(name, np.ones(size, np.float16 if format == "F16" else np.float32))
    with pytest.raises(GGPyError, match=message):
        read_imatrix(tmp_path / "a.gguf")


def test_weights_are_encoded_with_their_importance(tmp_path: Path):
    model = write_checkpoint(tmp_path / "model", WIDE)
    imatrix = importance_of(model, tmp_path)
    report = convert(model, tmp_path / "out.gguf", "q4_k_m", imatrix=imatrix)
    convert(model, tmp_path / "f32.gguf", "f32")
    known, n_weighted = read_imatrix(imatrix), 0
    with open_gguf(tmp_path / "out.gguf") as file, open_gguf(tmp_path / "f32.gguf") as exact:
        for name, tensor in file.tensors.items():
            encode = tensor.format.encode_weighted
            if name in known.entries and encode:
                values = exact.tensors[name].dequantize()
                assert np.array_equal(tensor.data, encode(values, known.of(name, tensor.shape)))
                n_weighted += 1
        assert {key: value for key, value in file.metadata.items() if key.startswith("quantize.")} == {
            "quantize.imatrix.file": "imatrix.gguf",
            "quantize.imatrix.dataset": "random.txt",
            "quantize.imatrix.entries_count": len(known.entries),
            "quantize.imatrix.chunks_count": 4,
        }
    assert n_weighted >= 7
    assert report.imatrix is not None and f"of {len(known.entries)} of {len(known.entries) + 1} matrices" in report.imatrix
    assert not report.warnings


def test_what_the_importance_matrix_does_not_know_is_said(tmp_path: Path):
    model = write_checkpoint(tmp_path / "model", WIDE)
    known = read_imatrix(importance_of(model, tmp_path))
    some = dict(known.entries) | {"blk.99.attn_q.weight": known.entries[ATTENTION]}
    del some[ATTENTION]
    write_imatrix(ImportanceMatrix(some), tmp_path / "some.gguf")
    report = convert(model, tmp_path / "out.gguf", "q4_k_m", imatrix=tmp_path / "some.gguf")
    assert any("1 of its tensors are not in the model: blk.99.attn_q.weight" in line for line in report.warnings)
    assert any("nothing is known of 1 tensors, encoded without: blk.0.attn_q.weight" in line for line in report.warnings)
    with pytest.raises(GGPyError, match=r"blk\.0\.attn_q\.weight would be Q2_K without an importance matrix"):
        convert(model, tmp_path / "q2.gguf", "q2_k_s", imatrix=tmp_path / "some.gguf")


def test_an_importance_matrix_of_another_model_is_refused(tmp_path: Path):
    model = write_checkpoint(tmp_path / "model", WIDE)
    write_imatrix(ImportanceMatrix({"other.weight": Collected(np.ones((1, 4), np.float32), np.array([1]))}), tmp_path / "a.gguf")
    with pytest.raises(GGPyError, match=r"knows none of the model's tensors; its own are other\.weight"):
        convert(model, tmp_path / "out.gguf", imatrix=tmp_path / "a.gguf")
    write_imatrix(ImportanceMatrix({ATTENTION: Collected(np.ones((1, 4), np.float32), np.array([1]))}), tmp_path / "b.gguf")
    with pytest.raises(GGPyError, match=r"blk\.0\.attn_q\.weight has 4 columns here"):
        convert(model, tmp_path / "out.gguf", imatrix=tmp_path / "b.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_formats_that_importance_does_not_change_are_said(tmp_path: Path):
    model = write_checkpoint(tmp_path / "model", WIDE)
    source = open_source(model)
    planned = plan_model(source, Options(type="q8_0", imatrix=importance_of(model, tmp_path)))
    source.close()
    assert any("has no effect" in line for line in planned.warnings)


def test_q2_k_s_needs_an_importance_matrix(tmp_path: Path):
    model = write_checkpoint(tmp_path / "model", WIDE)
    with pytest.raises(GGPyError, match=r"type Q2_K_S needs an importance matrix"):
        convert(model, tmp_path / "out.gguf", "q2_k_s")
    report = convert(model, tmp_path / "out.gguf", "q2_k_s", imatrix=importance_of(model, tmp_path))
    assert {tensor.format for tensor in report.tensors} >= {"Q2_K"}
