"""The safetensors reader takes every legal file as the safetensors package does, and refuses every breach of the format by name."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggpy.converter.safetensors import SafetensorsFile
from ggpy.errors import CheckpointError
from ggpy.runtime.encode import widened

from .checkpoints import safetensors_bytes, stored, with_header

DATA = bytes(range(24))
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
HALVES = {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}, "b": {"dtype": "F32", "shape": [3], "data_offsets": [12, 24]}}


def entry(**changes: Any) -> bytes:
    return json.dumps({"a": ENTRY | changes}).encode()


def second(**changes: Any) -> bytes:
    return json.dumps(HALVES | {"b": HALVES["b"] | changes}).encode()


# what is wrong -> (file, what the message says)
BAD = {
    "empty": (b"", "not a safetensors file"),
    "header size cut": (b"\x02\x00\x00", "not a safetensors file"),
    "header past the end": (struct.pack("<Q", 1000) + b"{}", "header of 1000 bytes"),
    "header size wraps": (struct.pack("<Q", 2**64 - 1) + b"{}", "header of 18446744073709551615 bytes"),
    "header not an object": (with_header(b"[]"), "not a safetensors file"),
    "header begins with a space": (with_header(b" {}"), "not a safetensors file"),
    "header no JSON": (with_header(b"{'a': 1}"), "not legal JSON"),
    "header no UTF-8": (with_header(b'{"\xff": 1}'), "not UTF-8"),
    "header nested": (with_header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested too deeply"),
    "NaN in the header": (with_header(b'{"a": NaN}'), "NaN is no JSON number"),
    "name twice": (with_header(b'{"a": 1, "a": 2}'), "'a' twice"),
    "key twice": (with_header(b'{"a": {"dtype": "F32", "dtype": "F32"}}'), "'dtype' twice"),
    "a pickle": (b"\x80\x02}q\x00." + bytes(64), "pickle"),
    "a zip": (b"PK\x03\x04" + bytes(64), "pickle"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
    "a web page": (b"<!DOCTYPE html><html><head></head></html>", "HTML"),
    "a GGUF file": (b"GGUF\x03\x00\x00\x00" + bytes(24), "GGUF"),
    "metadata no strings": (with_header(b'{"__metadata__": {"a": 1}}'), "__metadata__"),
    "entry no object": (with_header(b'{"a": 3}', DATA), "expected an object"),
    "dtype unknown": (with_header(entry(dtype="F128"), DATA), "dtype 'F128'"),
    "dtype no string": (with_header(entry(dtype=["F32"]), DATA), "dtype"),
    "shape negative": (with_header(entry(shape=[-2, -3]), DATA), "shape"),
    "shape no integers": (with_header(entry(shape=[2.0, 3]), DATA), "shape"),
    "shape booleans": (with_header(entry(shape=[True, 6]), DATA), "shape"),
    "shape too long": (with_header(entry(shape=[1] * 9), DATA), "shape"),
    "shape product wraps": (with_header(entry(shape=[2**32, 2**32, 4]), DATA), "24 bytes for shape"),
    "shape and bytes differ": (with_header(entry(shape=[2, 2]), DATA), "expected 16"),
    "offsets missing": (with_header(b'{"a": {"dtype": "F32", "shape": [6]}}', DATA), "data_offsets"),
    "offsets reversed": (with_header(entry(data_offsets=[24, 0]), DATA), "data_offsets"),
    "offsets three": (with_header(entry(data_offsets=[0, 12, 24]), DATA), "data_offsets"),
    "offsets past the end": (with_header(entry(shape=[2, 4], data_offsets=[0, 32]), DATA), "tensors end at byte"),
    "bytes left over": (with_header(entry(), DATA + b"\x00"), "tensors end at byte"),
    "a gap in front": (with_header(entry(data_offsets=[4, 28]), DATA + bytes(4)), "begins at byte"),
    "a gap between": (with_header(second(data_offsets=[16, 28]), DATA + bytes(4)), "begins at byte"),
    "an overlap": (with_header(second(data_offsets=[8, 20]), DATA), "begins at byte"),
}


@pytest.mark.parametrize("fault", BAD)
def test_every_breach_is_refused_by_name(fault: str, tmp_path: Path):
    raw, message = BAD[fault]
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("fault", sorted(set(BAD) - {"name twice", "key twice", "shape too long", "header begins with a space"}))
def test_the_package_refuses_it_too(fault: str, tmp_path: Path):
    """All but what it lets pass: repeated names, of which it keeps the last; more dimensions than any weight has; a space in front."""
    safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed (pip install -e '.[dev]')")
    path = tmp_path / "model.safetensors"
    path.write_bytes(BAD[fault][0])
    with pytest.raises(safetensors.SafetensorError), safetensors.safe_open(path, "numpy"):
        pass


NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__" and name.isprintable())
ARRAYS = st.tuples(st.sampled_from(["F32", "F16", "BF16"]), st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 2**32 - 1))


@given(st.dictionaries(NAMES, ARRAYS, max_size=6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_legal_files_read_as_the_package_reads_them(tmp_path: Path, arrays: dict[str, tuple[str, list[int], int]]):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed (pip install -e '.[dev]')")  # NumPy has no bfloat16 of its own
    load_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed (pip install -e '.[dev]')").load_file
    entries = {name: stored(np.random.default_rng(seed).standard_normal(shape), dtype) for name, (dtype, shape, seed) in arrays.items()}
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(entries, {"format": "pt"}))
    theirs = load_file(path)
    file = SafetensorsFile(path)
    try:
        assert file.tensors.keys() == theirs.keys()
        for name, tensor in file.tensors.items():
            values = theirs[name].astype(np.float32)
            assert tensor.shape == values.shape
            if values.size:
                np.testing.assert_array_equal(widened(tensor.read(0, tensor.rows)), values.reshape(tensor.rows, tensor.columns))
    finally:
        file.close()


@given(st.binary(max_size=200))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_ends_in_a_file_or_in_one_error(tmp_path: Path, header: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(with_header(b"{" + header, DATA))
    try:
        SafetensorsFile(path).close()
    except CheckpointError as error:
        assert str(error).isprintable()


EMPTY = {"dtype": "BF16", "shape": [2, 0, 3], "data_offsets": [24, 24]}
MUTABLE = json.dumps({"__metadata__": {"a": "b"}, **HALVES, "c": EMPTY}).encode()
PIECES = [
    *(b"0", b"1", b"12", b"24", b"-1", b"1e1", b"2.0", b"18446744073709551616", b"[]", b"{}", b"[6]", b"null", b"true", b'"F16"', b'"F64"'),
    *(b'"a"', b'"b"', b'"dtype"', b'"shape"', b",", b":", b"[", b'"', b" ", b"\n", b"\\u0061", b"\xc3\xa9", b"\xff", b"\x00"),
]
STRICTER = ("twice", "at most 8 sizes", "not a safetensors file", "expected at most")  # refusals of ours that the package does not share


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """A small legal file, a few pieces of its header replaced; the size of the header is made right again, or not."""
    header = MUTABLE
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(header)))
        header = header[:at] + draw(st.sampled_from(PIECES)) + header[at + draw(st.integers(0, 3)) :]
    size = len(header) + draw(st.sampled_from([0, 0, 0, 0, 1, -1, 2**40]))
    return struct.pack("<Q", max(0, size)) + header + DATA + draw(st.sampled_from([b"", b"", b"", b"\0"]))


@given(mutated_files())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_are_accepted_by_both_or_by_neither(tmp_path: Path, raw: bytes):
    """What is read here, the package reads as the same tensors; what only the package reads is refused for a reason that is known."""
    safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed (pip install -e '.[dev]')")
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    try:
        theirs = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in safetensors.deserialize(raw)}
    except safetensors.SafetensorError:
        theirs = None
    try:
        file = SafetensorsFile(path)
    except CheckpointError as error:
        assert theirs is None or any(reason in str(error) for reason in STRICTER), error
        return
    data = {name: (t.dtype, t.shape, t.file.read(t.offset, t.n_bytes).tobytes()) for name, t in file.tensors.items()}
    file.close()
    assert theirs is not None and data == theirs


def test_rows_are_read_alone(tmp_path: Path):
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"x": stored(np.ones(3)), "a": stored(values, "F16")}))
    file = SafetensorsFile(path)
    np.testing.assert_array_equal(file.tensors["a"].read(5, 9), values.reshape(12, 5)[5:9])
    file.close()


def test_a_file_that_shrinks_meanwhile_is_an_error(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"a": stored(np.ones((10, 10)))}))
    file = SafetensorsFile(path)
    with path.open("r+b") as damaged:
        damaged.truncate(200)
    with pytest.raises(CheckpointError, match="cut short"):
        file.tensors["a"].read(0, 10)
    file.close()
