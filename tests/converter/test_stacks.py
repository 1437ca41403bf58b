"""Experts that lie in tensors of their own become one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ggpy.converter.source import SourceTensor
from ggpy.converter.stacks import stacked
from ggpy.errors import CheckpointError

VALUES = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)


def part(e: int) -> SourceTensor:
    return SourceTensor("up", f"experts.{e}.up", (5, 8), "F32", "F32", lambda: lambda start, stop: VALUES[e, start:stop])


def test_rows_come_from_the_expert_they_belong_to():
    tensor = stacked("ffn_up_exps", "experts.0…2.up", [part(e) for e in range(3)])
    assert (tensor.shape, tensor.rows, tensor.columns) == ((3, 5, 8), 15, 8)
    read, rows = tensor.open(), VALUES.reshape(15, 8)
    for start in range(16):
        for stop in range(start, 16):
            assert np.array_equal(read(start, stop), rows[start:stop])


def test_a_reader_asks_only_for_what_is_wanted():
    asked = []

    def noted(e: int) -> SourceTensor:
        return replace(part(e), open=lambda: lambda start, stop: asked.append((e, start, stop)) or VALUES[e, start:stop])

    stacked("ffn_up_exps", "up", [noted(e) for e in range(3)]).open()(7, 12)
    assert asked == [(1, 2, 5), (2, 0, 2)]


def test_experts_of_several_types_are_refused():
    with pytest.raises(CheckpointError, match=r"experts\.1\.up is F16, expected F32, as experts\.0\.up is"):
        stacked("ffn_up_exps", "up", [part(0), replace(part(1), dtype="F16")])
