"""docs/reliability.md names, for each promise, tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = {cells[1]: cells[3] for line in PAGE.splitlines() if re.match(r"\| R-\d", line) and (cells := [c.strip() for c in line.split("|")])}


@cache
def functions_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_requirement_of_conversion_has_a_row():
    assert list(ROWS) == [f"R-{n}" for n in range(24, 40)]


@pytest.mark.parametrize("row", ROWS)
def test_the_tests_that_hold_it_exist(row: str):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", ROWS[row])
    assert named and len(named) == ROWS[row].count("`") // 2
    for file, test in named:
        assert test in functions_in(ROOT / file), f"{row}: {file} has no {test}"
