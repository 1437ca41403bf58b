"""docs/prequantized.md says what happens."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from .test_layouts import LAYERS, opened, rows_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "prequantized.md"

# a row of the page's table -> layers it speaks of
ROWS = {
    "GPTQ 4-bit, symmetric": ("gptq", "gptq v2", "gptq whole rows", "gptq reordered blocks"),
    "GPTQ 4-bit, asymmetric": ("gptq asymmetric",),
    "GPTQ 3-bit": ("gptq 3", "gptq 3 asymmetric"),
    "GPTQ 2-bit": ("gptq 2",),
    "GPTQ 8-bit, symmetric": ("gptq 8",),
    "GPTQ 8-bit, asymmetric": ("gptq 8 asymmetric",),
    "GPTQ act-order": ("gptq act-order", "gptq act-order asymmetric"),
    "AWQ": ("awq", "awq bf16"),
    "bitsandbytes LLM.int8()": ("bnb int8",),
    "bitsandbytes NF4, FP4": ("bnb nf4", "bnb fp4"),
    "bitsandbytes NF4, double-quantized": ("bnb double",),
    "compressed-tensors int4, symmetric": ("packed", "packed by row"),
    "compressed-tensors int4, asymmetric": ("packed asymmetric",),
    "compressed-tensors int8, packed": ("packed 8",),
    "compressed-tensors int8 with float32 scales": ("int8", "int8 groups"),
    "FP8": ("fp8 rows", "fp8 tensor", "fp8 blocks", "fp8 e5m2", "fp8 compressed-tensors", "fp8 compressed-tensors blocks"),
}


def table() -> dict[str, tuple[str, str]]:
    section = PAGE.read_text(encoding="utf-8").partition("## What becomes what")[2].partition("*Bit for bit*")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return {re.sub(r" \([^)].*\)$", "", name): (keep, exact) for name, keep, exact in rows[1:]}


def test_the_table_speaks_of_every_layout():
    assert list(table()) == list(ROWS)


@pytest.mark.parametrize(("row", "name"), [(row, name) for row, names in ROWS.items() for name in names])
def test_the_table_says_what_happens(tmp_path: Path, row: str, name: str):
    keep, exact = table()[row]
    make, arguments, _, _ = LAYERS[name]
    layer = make(np.random.default_rng(0), rows_of(name), 96, **arguments)
    with opened(tmp_path, layer.settings, layer.entries) as matrix:
        how = matrix.quantized
    format = how.fits[0] if how.fits else how.nearest
    what = ("bit for bit" if format in how.exact else "rounded") if how.fits else "decoded" if format == "F16" else "quantized again"
    assert keep == f"{format}, {what}" and exact == (how.exact[0] if how.exact else "F32")
