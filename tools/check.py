"""The checks a change must pass, the same list CI runs.

    python tools/check.py               all of them
    python tools/check.py lint types   some of them, by name

Every check runs even when an earlier one failed; the exit code is 1 if any did. The kernel tests run again under other lowerings,
because one machine shows only its own: AVX2 (`NUMBA_CPU_NAME=haswell`), portable (no int8 dot instruction), the products of AMX, which
are emulated where the CPU has none (any x86-64 with AVX-512 on Linux), and code for ARM64, which `qemu-aarch64` runs (Debian's package
qemu-user; without it those tests are skipped).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNEL_TESTS = ("tests/simd", "tests/kernels", "tests/runtime/test_lockstep.py")
ARM64_TESTS = ("tests/kernels/test_linear.py", "tests/kernels/test_ops.py")
AMX_TESTS = ("tests/kernels", "tests/runtime", "-k", "test_linear or test_tiled_bf16 or test_limits or many_tokens")


@dataclass(frozen=True)
class Check:
    """One check: its name, the command (the first word is a program beside this Python), and what it adds to the environment."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


CHECKS = (
    Check("format", ("ruff", "format", "--check", ".")),
    Check("lint", ("ruff", "check", ".")),
    Check("types", ("pyright",)),
    Check("imports", ("lint-imports",)),
    Check("docs", ("python", "tools/generate_docs.py", "--check")),
    Check("tests", ("pytest", "-q")),
    Check("avx2", ("pytest", "-q", *KERNEL_TESTS), {"NUMBA_CPU_NAME": "haswell"}),
    Check("amx", ("pytest", "-q", *AMX_TESTS), {"GGPY_SIMD": "amx-bf16"}),
    Check("arm64", ("pytest", "-q", *ARM64_TESTS), {"GGPY_SIMD": "neon-dot"}),
    Check("portable", ("pytest", "-q", *KERNEL_TESTS), {"GGPY_SIMD": "portable"}),
)


def run(check: Check) -> bool:
    """Run one check from the root of the checkout; its output goes straight through."""
    program, *arguments = check.command
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = os.environ | {"PATH": path} | check.environment
    shown = " ".join((*(f"{key}={value}" for key, value in check.environment.items()), *check.command))
    print(f"== {check.name}: {shown}", flush=True)
    start = time.perf_counter()
    passed = subprocess.run([program, *arguments], cwd=ROOT, env=environment, check=False).returncode == 0
    print(f"== {check.name}: {'passed' if passed else 'FAILED'} in {time.perf_counter() - start:.1f} s", flush=True)
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [check.name for check in CHECKS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which checks to run: {' '.join(names)} (default: all)")
    chosen = parser.parse_args().names or names
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        parser.error(f"no check named {', '.join(unknown)}; there are {', '.join(names)}")
    failed = [check.name for check in CHECKS if check.name in chosen and not run(check)]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
