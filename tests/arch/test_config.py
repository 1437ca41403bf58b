"""What is read from GGUF metadata, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ggpy.arch import ARCHS, Config
from ggpy.errors import GGPyError
from ggpy.gguf import open_gguf
from tests.runtime.tiny import write_llama


def config_of(path: Path, extra: Mapping[str, object], architecture: str = "llama", head_dim: int | None = None) -> Config:
    with open_gguf(write_llama(path / "m.gguf", architecture=architecture, head_dim=head_dim, layers=1, extra=extra)) as file:
        return ARCHS[architecture].config(file)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_dynamic_scaling_counts_beyond_the_trained_context(tmp_path: Path, architecture: str):
    config = config_of(tmp_path, {"rope.scaling.dynamic_factor": 2.0}, architecture)
    assert config.for_context(256) is config and config.rope.base == 10000.0
    for length, times in ((257, 2 * 257 / 256 - 1), (384, 2.0), (512, 3.0)):
        assert config.for_context(length).rope.base == pytest.approx(10000.0 * times ** (64 / 62), rel=1e-12)
    assert config_of(tmp_path, {}, architecture).for_context(512).rope.base == 10000.0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"rope.scaling.dynamic_factor": 0.0}, r"dynamic_factor"),
        ({"rope.scaling.dynamic_factor": float("nan")}, r"dynamic_factor"),
        ({"rope.scaling.dynamic_factor": 2.0, "rope.scaling.type": "linear"}, r"dynamic_factor is 2, expected none beside another scaling"),
    ],
)
def test_senseless_dynamic_scaling_is_refused(tmp_path: Path, extra: dict[str, object], message: str):
    with pytest.raises(GGPyError, match=message):
        config_of(tmp_path, extra)


def test_dynamic_scaling_needs_more_than_one_pair(tmp_path: Path):
    with pytest.raises(GGPyError, match=r"dynamic_factor is 2, expected none .* for less than 4 values of a head"):
        config_of(tmp_path, {"rope.scaling.dynamic_factor": 2.0}, head_dim=2)
