"""`tools/measure_memory.py` counts all that is resident but the mapped file and the KV cache."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import measure_memory
import numpy as np
import pytest

from tests.runtime.tiny import write_llama

from .run_tool import run_tool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PAGE = mmap.PAGESIZE


def test_stages_add_up_and_the_limit_decides(tmp_path: Path):
    model = write_llama(tmp_path / "model.gguf", "Q8_0", vocab=320, context=128)
    run = run_tool("measure_memory", model, "--ctx", 128, "--prompt", 64, "--tokens", 4, "--max", 4000)
    assert run.returncode == 0, run.stderr
    stages = run.stdout.splitlines()[1:-1]
    assert [stage.split("  ")[0] for stage in stages] == [
        "interpreter and numpy", "model loaded", "text tokenized", "prefill of 64", "decoded 4"
    ]  # fmt: skip
    for stage in stages:
        peak, now, file, cache, beside = map(float, stage[28:].split())
        assert peak >= now > 0 and beside == pytest.approx(peak - file - cache, abs=0.2)
    assert run_tool("measure_memory", model, "--ctx", 128, "--prompt", 64, "--tokens", 4, "--max", 1).returncode == 1


def test_only_touched_pages_of_an_array_are_resident():
    raw = mmap.mmap(-1, 512 * PAGE)
    raw.madvise(mmap.MADV_NOHUGEPAGE)
    array = np.frombuffer(raw, np.uint8)
    assert measure_memory.resident(array) == 0
    array[10 * PAGE : 30 * PAGE] = 1
    assert measure_memory.resident(array) == 20 * PAGE
    assert measure_memory.resident(array[: 15 * PAGE]) == 5 * PAGE


def test_only_the_mapped_model_counts_as_file(tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(os.urandom(64 * PAGE))
    assert measure_memory.memory(str(path))[2] == 0
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert sum(mapped[::PAGE]) > 0
    assert measure_memory.memory(str(path))[2] == 64 * PAGE
    mapped.close()
