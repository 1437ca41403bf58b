"""Any bytes at all end in an open file that can be used, or in a GGUFError."""

from __future__ import annotations

import itertools
import json
import re
import struct
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggpy.cli.inspect import describe, to_json
from ggpy.errors import GGUFError
from ggpy.gguf import open_gguf

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
FOLDER = Path(__file__).resolve().parents[2] / "formats" / "gguf"
SEEDS = [path.read_bytes() for path in sorted(FOLDER.glob("*/*.gguf"))]
NUMBERS = [
    0,
    1,
    2,
    3,
    9,
    17,
    31,
    32,
    63,
    64,
    65,
    127,
    255,
    256,
    2**15,
    2**16,
    *(2**n + d for n in (31, 32, 60, 61, 62, 63, 64) for d in (-1, 0, 1)),
]

position = st.integers(0, 4000)
mutation = st.one_of(
    st.tuples(st.just("byte"), position, st.integers(0, 255)),
    st.tuples(st.just("u32"), position, st.sampled_from([n for n in NUMBERS if n < 2**32])),
    st.tuples(st.just("u64"), position, st.sampled_from([n for n in NUMBERS if n < 2**64])),
    st.tuples(st.just("cut"), position, st.just(0)),
    st.tuples(st.just("delete"), position, st.integers(1, 40)),
    st.tuples(st.just("repeat"), position, st.integers(1, 200)),
)


def mutate(raw: bytes, mutations: list[tuple[str, int, int]]) -> bytes:
    for kind, at, value in mutations:
        at %= len(raw) + 1
        if kind == "cut":
            raw = raw[:at]
        elif kind == "delete":
            raw = raw[:at] + raw[at + value :]
        elif kind == "repeat":
            raw = raw[: at + value] + raw[at:]
        else:
            new = struct.pack({"byte": "<B", "u32": "<I", "u64": "<Q"}[kind], value)
            raw = raw[:at] + new + raw[at + len(new) :]
    return raw


def use(path: Path) -> None:
    """Touch everything a caller can reach."""
    with open_gguf(path, only_this_part=True) as file:
        json.dumps(to_json(file), allow_nan=False)
        assert not any(map(UNSAFE.search, describe(file, tensors=True, width=200)))
        ends = []
        for tensor in file.tensors.values():
            assert 0 < len(tensor.shape) <= 4 and tensor.offset % file.alignment == file.data_offset % file.alignment
            assert tensor.offset + tensor.data.size <= file.file_size and tensor.data.size == tensor.n_bytes
            assert tensor.data.shape[1] == tensor.format.row_bytes(tensor.shape[-1])
            int(np.bitwise_xor.reduce(tensor.data, axis=None))
            if tensor.format.decode is not None:
                assert tensor.dequantize().shape == tensor.shape
            if tensor.n_bytes:
                ends.append((tensor.offset, tensor.offset + tensor.n_bytes))
        ends.sort()
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEEDS), st.lists(mutation, min_size=1, max_size=6))
def test_mutated_files(tmp_path: Path, raw: bytes, mutations: list[tuple[str, int, int]]):
    path = tmp_path / "m.gguf"
    for cut in range(1, len(mutations) + 1):
        path.write_bytes(mutate(raw, mutations[:cut]))
        try:
            use(path)
        except GGUFError as error:
            assert not UNSAFE.search(str(error))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_noise(tmp_path: Path, raw: bytes, header: bool):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + raw if header else raw)
    try:
        use(path)
    except GGUFError as error:
        assert not UNSAFE.search(str(error))
