"""docs/quantization.md: its table has the bits that the methods have, and every method."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ggpy.methods import METHODS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quantization.md"
ROWS = re.findall(r"^\| ([^|]+?) \| (\d+\.\d{3}) \| \d\.\d{4} \| \d\.\d{4} \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
BY_TEXT = ("LLM.int8()", "SpQR 3-bit")  # whose outliers depend on the text and the weights
BY_SIZE = ("absmax", "zero-point", "NF4 double")  # what a row or a matrix has once


@cache
def bits(name: str, cols: int) -> float:
    weights = np.random.default_rng(0).standard_normal((4 if METHODS[name].max_rows else 16, cols)).astype(np.float32)
    return METHODS[name].quantize(weights, np.ones((2, cols), np.float32)).bits


def test_every_method_is_in_the_table():
    assert {name for name, _ in ROWS} == set(METHODS)


@pytest.mark.parametrize(("name", "shown"), [row for row in ROWS if row[0] not in BY_TEXT and "OBQ" not in row[0]])
def test_the_bits_are_the_methods(name: str, shown: str):
    lengths = (576, 1536) if "_K" not in name else (1536,)
    near = 0.002 if name.startswith(BY_SIZE) else 0.0006
    assert min(abs(bits(name, cols) - float(shown)) for cols in lengths) < near
