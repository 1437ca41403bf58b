"""The `gguf` package reads what ggpy writes, ggpy reads what it writes, and both find the same in real files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.gguf import GGUFFile, GGUFWriter, ValueType, open_gguf

VOCABULARIES = [
    *("gpt-2", "llama-spm", "phi-3", "starcoder"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("deepseek-llm", "llama-bpe", "qwen2")),
]
HEADER = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}


def assert_same(file: GGUFFile, peer: gguf.GGUFReader, sample: int | None = None) -> None:
    """Every key, type, value and tensor alike; of arrays of strings all, or every `sample`-th (the peer takes long to decode one)."""
    fields = {name: field for name, field in peer.fields.items() if name not in HEADER}
    assert list(file.metadata) == list(fields)
    for key, field in fields.items():
        kinds = [file.metadata.value_type(key)] + [t for t in [file.metadata.element_type(key)] if t is not None]
        value = file.metadata[key]
        if kinds[0] is ValueType.ARRAY and not len(value):
            assert len(field.data) == 0
            continue
        assert [int(kind) for kind in kinds] == [int(kind) for kind in field.types[:2]], key
        if kinds[-1] is ValueType.STRING and len(kinds) == 2:
            step = sample or 1
            assert len(value) == len(field.data)
            assert value[::step] == [bytes(field.parts[i]).decode() for i in field.data[::step]], key
        elif kinds[0] is ValueType.ARRAY:
            assert list(value) == [field.parts[i][0] for i in field.data], key
        else:
            assert value == field.contents(), key
    assert list(file.tensors) == [t.name for t in peer.tensors]
    for mine, theirs in zip(file.tensors.values(), peer.tensors, strict=True):
        assert mine.format.name == theirs.tensor_type.name
        assert mine.shape == tuple(map(int, reversed(theirs.shape)))
        assert mine.offset == theirs.data_offset and mine.n_bytes == theirs.n_bytes
        assert np.array_equal(mine.data.reshape(-1), theirs.data.reshape(-1).view(np.uint8))


def test_peer_reads_what_we_write(tmp_path: Path):
    random = np.random.default_rng(0)
    formats = {
        name: random.integers(0, 256, (3, BLOCKS[name].row_bytes(512)), np.uint8) for name in ("Q4_0", "Q8_0", "Q4_K", "Q6_K", "BF16")
    }
    with GGUFWriter(tmp_path / "m.gguf", alignment=64) as writer:
        writer.add("general.architecture", "llama")
        for kind in ValueType:
            if kind is not ValueType.ARRAY:
                value = "naïve 🦙" if kind is ValueType.STRING else kind is ValueType.BOOL or 7
                writer.add(f"scalar.{kind.name}", value, kind)
                writer.add(f"array.{kind.name}", [value] * 3, kind)
                writer.add(f"empty.{kind.name}", [], kind)
        for name in formats:
            writer.add_tensor(name, (3, 512), BLOCKS[name])
        writer.add_tensor("F32", (2, 3, 5), BLOCKS["F32"])
        for name, blocks in formats.items():
            writer.write_tensor(name, blocks)
        writer.write_tensor("F32", np.arange(30, dtype=np.float32))
    with open_gguf(tmp_path / "m.gguf") as file:
        peer = gguf.GGUFReader(tmp_path / "m.gguf")
        assert peer.alignment == 64
        assert_same(file, peer)


def test_we_read_what_peer_writes(tmp_path: Path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(128)
    writer.add_uint8("u8", 255)
    writer.add_int8("i8", -128)
    writer.add_uint16("u16", 65535)
    writer.add_int16("i16", -32768)
    writer.add_uint32("u32", 2**32 - 1)
    writer.add_int32("i32", -(2**31))
    writer.add_uint64("u64", 2**64 - 1)
    writer.add_int64("i64", -(2**63))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("bool", True)
    writer.add_string("string", "naïve 🦙")
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("strings", ["one", "", "three"])
    values = np.random.default_rng(0).standard_normal((4, 256), np.float32)
    for kind in ("F32", "F16", "Q8_0", "Q4_0"):
        number = gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(values, number)
        writer.add_tensor(kind, data, raw_dtype=None if kind in ("F32", "F16") else number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_gguf(path) as file:
        assert file.alignment == 128
        assert_same(file, gguf.GGUFReader(path))
        for tensor in file.tensors.values():
            theirs = gguf.quants.dequantize(
                tensor.data if tensor.format.block_values > 1 else tensor.data.view(tensor.format.fields[0].dtype),
                gguf.GGMLQuantizationType[tensor.name],
            )
            assert np.array_equal(tensor.dequantize(), theirs)
        rewrite(file, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


def rewrite(file: GGUFFile, path: Path) -> None:
    with GGUFWriter(path, alignment=file.alignment) as writer:
        for key in file.metadata:
            writer.copy(file.metadata, key)
        for tensor in file.tensors.values():
            writer.add_tensor(tensor.name, tensor.shape, tensor.format)
        for tensor in file.tensors.values():
            writer.write_tensor(tensor.name, tensor.data)


@pytest.mark.real_model
@pytest.mark.parametrize("name", VOCABULARIES)
def test_real_vocabularies(name: str, shared: Path, tmp_path: Path):
    path = shared / "models" / "vocab" / f"ggml-vocab-{name}.gguf"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with open_gguf(path) as file:
        assert_same(file, gguf.GGUFReader(path), sample=10)
        rewrite(file, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


@pytest.mark.real_model
def test_real_model(smollm2_gguf: Path, tmp_path: Path):
    with open_gguf(smollm2_gguf) as file:
        assert_same(file, gguf.GGUFReader(smollm2_gguf), sample=10)
        rewrite(file, tmp_path / "again.gguf")
    assert digest(tmp_path / "again.gguf") == digest(smollm2_gguf)


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
