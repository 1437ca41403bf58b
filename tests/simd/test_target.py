"""What the target is made of: the CPU as the system describes it, and the settings that override it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ggpy.simd import host_cpu
from ggpy.simd.target import NEON, _lowering


@pytest.mark.parametrize(("line", "has_dot"), [(b"Features\t: fp asimd atomics asimdhp asimddp", True), (b"Features\t: fp asimd", False)])
def test_linux_tells_of_the_dot_product_of_arm64(monkeypatch: pytest.MonkeyPatch, line: bytes, has_dot: bool):
    """LLVM reads the same line and leaves it out."""
    monkeypatch.setattr(host_cpu, "_description", lambda: b"BogoMIPS\t: 50.00\n" + line + b"\nCPU part\t: 0xd0c")
    _, features = host_cpu._ask()
    assert ("+dotprod" in features.split(",")) == has_dot


@pytest.mark.parametrize(
    ("cpu", "features", "lowering"),
    [
        ("neoverse-n1", set(), NEON),
        ("generic", {"neon", "dotprod"}, NEON),
        ("generic", {"neon"}, "portable"),
        ("cortex-a72", set(), "portable"),
    ],
)
def test_arm64_takes_its_dot_product_where_there_is_one(cpu: str, features: set[str], lowering: str):
    assert _lowering(cpu, features) == lowering


@pytest.mark.parametrize(("named", "cpu"), [("", "generic"), ("host", "generic"), ("apple-m1", "apple-m1")])
def test_a_lowering_for_arm64_names_the_machine_that_it_is_for(named: str, cpu: str):
    asked = (
        "import platform; platform.machine = lambda: 'x86_64'\n"
        "from ggpy.simd.target import target; print(target().cpu, target().triple, target().name)"
    )
    environment = os.environ | {"GGPY_SIMD": NEON, "NUMBA_CPU_NAME": named}
    environment.pop("NUMBA_CPU_FEATURES", None)
    run = subprocess.run([sys.executable, "-c", asked], env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.split() == [cpu, "aarch64-unknown-linux-gnu", NEON]
