"""Typed access: what is asked for comes back in one type, anything else is an error that names file, key, value and expectation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ggpy.errors import GGUFError
from ggpy.gguf import Metadata, ValueType

METADATA = Metadata.of(
    {
        "name": "llama",
        "layers": 30,
        "negative": -5,
        "huge": 2**64 - 1,
        "eps": 1e-5,
        "wide": np.float64(1e-5),
        "nan": math.nan,
        "flag": True,
        "tokens": ["a", "b"],
        "types": [1, 2, 3],
        "unsigned": np.array([2**63], np.uint64),
        "scores": np.array([0.5, -1.5], np.float32),
        "flags": [True, False],
        "nested": [[1], ["x"]],
    },
    path="model.gguf",
)


def test_values():
    assert METADATA.string("name") == METADATA["name"] == "llama"
    assert METADATA.integer("layers", minimum=30, maximum=30) == 30
    assert METADATA.integer("negative") == -5
    assert METADATA.integer("huge") == 2**64 - 1
    assert METADATA.number("eps", minimum=0) == pytest.approx(1e-5)
    assert METADATA.number("wide") == 1e-5
    assert METADATA.number("layers") == 30.0 and type(METADATA.number("layers")) is float
    assert math.isnan(METADATA.number("nan", finite=False))
    assert METADATA.boolean("flag") is True
    assert METADATA.strings("tokens") == ["a", "b"]
    assert METADATA["flags"] == [True, False]
    assert METADATA["nested"] == [[1], ["x"]]


@pytest.mark.parametrize(
    "got, dtype, values",
    [
        (METADATA.integers("types"), np.int64, [1, 2, 3]),
        (METADATA.numbers("scores"), np.float32, [0.5, -1.5]),
        (METADATA.numbers("types"), np.float64, [1.0, 2.0, 3.0]),
        (METADATA.numbers("unsigned"), np.float64, [2.0**63]),
    ],
)
def test_arrays(got: np.ndarray, dtype: type, values: list):
    assert got.dtype == dtype and got.tolist() == values


@pytest.mark.parametrize("getter", ["string", "integer", "number", "boolean", "strings", "integers", "numbers"])
def test_default_only_where_the_key_is_missing(getter: str):
    get = getattr(METADATA, getter)
    assert get("absent", None) is None
    assert get("absent", 7) == 7
    with pytest.raises(GGUFError, match=r"^model\.gguf: key 'absent' is missing; expected an? "):
        get("absent")
    wrong = "tokens" if getter not in ("strings",) else "types"
    with pytest.raises(GGUFError, match=rf"key '{wrong}' is an array of . (string|int32) elements; expected an? "):
        get(wrong, 7)


@pytest.mark.parametrize(
    "ask, complaint",
    [
        (lambda m: m.integer("name"), "key 'name' is 'llama' (string); expected an integer"),
        (lambda m: m.integer("flag"), "key 'flag' is True (bool); expected an integer"),
        (lambda m: m.integer("eps"), "(float32); expected an integer"),
        (lambda m: m.integer("layers", minimum=31), "key 'layers' is 30 (uint32); expected an integer of at least 31"),
        (lambda m: m.integer("layers", maximum=29), "expected an integer of at most 29"),
        (lambda m: m.integer("layers", minimum=1, maximum=29), "expected an integer from 1 to 29"),
        (lambda m: m.number("nan"), "key 'nan' is nan (float32); expected a finite number"),
        (lambda m: m.number("nan", minimum=0, finite=False), "expected a number of at least 0"),
        (lambda m: m.number("flag"), "expected a finite number"),
        (lambda m: m.boolean("layers"), "key 'layers' is 30 (uint32); expected a bool"),
        (lambda m: m.strings("name"), "expected an array of strings"),
        (lambda m: m.integers("scores"), "key 'scores' is an array of 2 float32 elements; expected an array of integers below 2^63"),
        (lambda m: m.integers("unsigned"), "expected an array of integers below 2^63"),
        (lambda m: m.integers("flags"), "key 'flags' is an array of 2 bool elements"),
        (lambda m: m.numbers("nested"), "key 'nested' is an array of 2 array elements; expected an array of numbers"),
    ],
)
def test_complaints(ask, complaint: str):
    with pytest.raises(GGUFError) as caught:
        ask(METADATA)
    assert complaint in str(caught.value) and str(caught.value).startswith("model.gguf: ")


def test_types():
    assert METADATA.value_type("layers") is ValueType.UINT32 and METADATA.element_type("layers") is None
    assert METADATA.value_type("tokens") is ValueType.ARRAY and METADATA.element_type("tokens") is ValueType.STRING
    assert METADATA.element_type("nested") is ValueType.ARRAY
    assert METADATA.raw("negative") == b"\xfb\xff\xff\xff"
    with pytest.raises(KeyError):
        METADATA.value_type("absent")


def test_mapping():
    assert len(METADATA) == len(list(METADATA)) == 14
    assert "name" in METADATA and "absent" not in METADATA
    assert METADATA.get("absent") is None
    with pytest.raises(KeyError):
        METADATA["absent"]
