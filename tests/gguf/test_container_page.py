"""formats/gguf/container.md is the specification: its tables decode the good files, and ggpy has every number it gives."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.blocks import BY_TYPE
from ggpy.gguf import ValueType, open_gguf, types

FOLDER = Path(__file__).resolve().parents[2] / "formats" / "gguf"
PAGE = (FOLDER / "container.md").read_text(encoding="utf-8")
GOOD = json.loads((FOLDER / "good" / "manifest.json").read_text(encoding="utf-8"))
BAD = json.loads((FOLDER / "bad" / "manifest.json").read_text(encoding="utf-8"))


def table(heading: str) -> list[dict[str, str]]:
    """The rows of the first table under a heading, by column."""
    section = re.split(r"^#+ ", PAGE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


LAYOUTS = {name: [(row["field"], row["type"]) for row in table(name)] for name in ("file", "string", "key", "array", "tensor")}
VALUES = {int(row["number"]): row for row in table("Value types")}


class Decoder:
    """Decodes a legal file by the page's tables alone."""

    def __init__(self, raw: bytes):
        self.raw, self.at = raw, 0

    def number(self, dtype: str) -> Any:
        value = np.frombuffer(self.raw, dtype, 1, self.at)[0].item()
        self.at += np.dtype(dtype).itemsize
        return value

    def one(self, kind: str, known: dict[str, Any]) -> Any:
        if kind in LAYOUTS:
            return self.record(kind)
        if kind == "value":
            row = VALUES[known["type"]]
            if row["name"] in ("string", "array"):
                record = self.record(row["name"])
                return record["text"] if row["name"] == "string" else record["elements"]
            value = self.number(row["numpy"])
            return bool(value) if row["name"] == "bool" else value
        if kind == "magic":
            self.at += 4
            return self.raw[self.at - 4 : self.at]
        return self.number({"u32": "<u4", "u64": "<u8"}[kind])

    def record(self, layout: str) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, kind in LAYOUTS[layout]:
            kind, _, times = kind.partition(" × ")
            if kind == "utf8":
                self.at += fields[times]
                fields[name] = self.raw[self.at - fields[times] : self.at].decode("utf-8")
            else:
                fields[name] = [self.one(kind, fields) for _ in range(fields[times])] if times else self.one(kind, fields)
        return fields


@pytest.mark.parametrize("name", GOOD)
def test_page_decodes_good_files(name: str):
    raw = (FOLDER / "good" / name).read_bytes()
    decoder = Decoder(raw)
    file = decoder.record("file")
    holds = GOOD[name]
    assert file["magic"] == bytes.fromhex(re.search(r"four bytes `([0-9a-f ]+)`", PAGE)[1])
    assert file["version"] == holds["version"]
    assert {key["name"]["text"]: key["value"] for key in file["keys"]} == holds["metadata"]
    alignment = holds["metadata"].get("general.alignment", 32)
    start = -(-decoder.at // alignment) * alignment
    assert [t["name"]["text"] for t in file["tensors"]] == list(holds["tensors"])
    for tensor, expected in zip(file["tensors"], holds["tensors"].values(), strict=True):
        data = bytes.fromhex(expected["data"])
        assert tensor["dimensions"] == expected["shape"][::-1]
        assert BY_TYPE[tensor["type"]].name == expected["type"]
        assert raw[start + tensor["offset"] :][: len(data)] == data


def test_value_types():
    assert {number: row["name"] for number, row in VALUES.items()} == {kind.value: kind.name.lower() for kind in ValueType}
    for kind, scalar in types.SCALARS.items():
        assert VALUES[kind]["numpy"] == scalar.dtype.str.replace("|", "")
        assert int(VALUES[kind]["bytes"]) == scalar.n_bytes == struct.calcsize("<" + scalar.code)


def test_limits():
    limits = {row["limit"]: row["value"] for row in table("Limits")}
    assert limits == {
        "versions": ", ".join(map(str, types.VERSIONS)),
        "default alignment": str(types.DEFAULT_ALIGNMENT),
        "bytes of a key": str(types.MAX_KEY_BYTES),
        "bytes of a tensor's name": str(types.MAX_TENSOR_NAME_BYTES),
        "bytes of a tensor's name, written": str(types.WRITTEN_TENSOR_NAME_BYTES),
        "dimensions": str(types.MAX_DIMENSIONS),
        "depth of nested arrays": str(types.MAX_NESTING),
        "bytes before the data section": str(types.MAX_METADATA_BYTES),
        "keys; tensors": str(types.MAX_ENTRIES),
        "strings and arrays in all arrays together": str(types.MAX_ELEMENTS),
    }


def test_every_class_of_fault_has_files_and_a_rule():
    classes = [row["class"] for row in table("What makes a file illegal")]
    assert {next((c for c in classes if name.startswith(c + "_")), None) for name in BAD} == set(classes)


def test_committed_files_are_those_the_tool_makes():
    import make_bad_files

    for folder, manifest, made in (("good", GOOD, make_bad_files.good_files()), ("bad", BAD, make_bad_files.bad_files())):
        files = {f"{name}.gguf": (raw, about) for name, raw, about in made}
        assert {name: about for name, (_, about) in files.items()} == manifest
        assert {path.name: path.read_bytes() for path in (FOLDER / folder).glob("*.gguf")} == {n: raw for n, (raw, _) in files.items()}


@pytest.mark.parametrize("name", GOOD)
def test_reader_agrees_with_the_manifest(name: str):
    holds = GOOD[name]
    with open_gguf(FOLDER / "good" / name) as file:
        assert file.version == holds["version"]
        assert list(file.metadata) == list(holds["metadata"])
        for key, value in holds["metadata"].items():
            assert plain(file.metadata[key]) == value, key
            assert type(plain(file.metadata[key])) is type(value), key
        assert list(file.tensors) == list(holds["tensors"])
        for tensor, expected in zip(file.tensors.values(), holds["tensors"].values(), strict=True):
            assert list(tensor.shape) == expected["shape"]
            assert tensor.format.name == expected["type"]
            assert tensor.data.tobytes() == bytes.fromhex(expected["data"])
            assert tensor.dequantize().shape == tensor.shape


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, list) else value
