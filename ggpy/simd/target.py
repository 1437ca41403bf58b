"""The CPU that kernels are compiled for, asked without importing numba.

Follows numba's own settings: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES override the host's. GGPY_SIMD names a lowering in place of the one that
fits the CPU: "portable" keeps the int8 dot product in plain LLVM IR, "avx512-vnni" leaves AMX unused where it is there, and "amx-bf16"
compiles for AMX without looking (a CPU that lacks it ends the process; tests emulate it). "neon-dot" on another machine than ARM64 compiles
for one: for any that has the instruction, or for the one that NUMBA_CPU_NAME names. It is how each lowering is tested.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from dataclasses import dataclass

from ggpy.simd.host_cpu import host_cpu

_VNNI_512 = {"cascadelake", "cooperlake", "icelake-client", "icelake-server", "tigerlake", "rocketlake", "sapphirerapids", "emeraldrapids",
             "graniterapids", "graniterapids-d", "diamondrapids", "znver4", "znver5"}  # fmt: skip
_AVX_VNNI = {"alderlake", "raptorlake", "meteorlake", "gracemont", "sierraforest", "grandridge", "arrowlake", "arrowlake-s", "lunarlake"}
_AVX2 = {"haswell", "broadwell", "skylake", "skylake-avx512", "cannonlake", "znver1", "znver2", "znver3", "x86-64-v3", "x86-64-v4"}
_DOTPROD = {"cortex-a76", "cortex-a77", "cortex-a78", "cortex-a710", "cortex-a720", "cortex-x1", "cortex-x2", "cortex-x3", "cortex-x4",
            "neoverse-n1", "neoverse-n2", "neoverse-n3", "neoverse-v1", "neoverse-v2", "neoverse-v3", "ampere1", "ampere1a", "ampere1b",
            "apple-m1", "apple-m2", "apple-m3", "apple-m4"}  # fmt: skip

_AMX_BF16 = {"sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d", "diamondrapids"}

LOWERINGS = ("avx512-vnni", "avx-vnni", "avx2", "neon-dot", "portable")
NEON = "neon-dot"
ARM64_TRIPLE, ARM64_FEATURES = "aarch64-unknown-linux-gnu", "+neon,+dotprod"
AMX = "amx-bf16"
AMX_FEATURES = ("amx-tile", "amx-bf16", "avx512bf16")

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18  # x86-64's number of the system call, its code and the component's number


@dataclass(frozen=True)
class Target:
    """cpu: LLVM's name; features: LLVM's feature string; lowering: one of LOWERINGS, how int8 products are summed.

    amx: many tokens are multiplied as bfloat16 in AMX tiles; the lowering is then "avx512-vnni", for few. triple: LLVM's name of another
    kind of machine that the code is for, which this one can only emulate; "" for its own.
    """

    cpu: str
    features: str
    lowering: str
    amx: bool = False
    triple: str = ""

    @property
    def name(self) -> str:
        """What GGPY_SIMD calls it: AMX or the lowering."""
        return AMX if self.amx else self.lowering

    @property
    def tile_tokens(self) -> int:
        """Tokens in a register tile of sixteen rows: as many as the registers hold sums for (32 of 512 bits, or fewer and narrower)."""
        return 8 if self.lowering == "avx512-vnni" else 4

    @property
    def padded_tokens(self) -> int:
        """What a batch's tokens are rounded up to in memory: those of the largest tile."""
        return 16 if self.amx else self.tile_tokens

    @property
    def has_affine_u8(self) -> bool:
        """Whether any bit field of a byte is one instruction away (GFNI), at the registers' full width."""
        return self.lowering == "avx512-vnni" and (
            ("+gfni" in self.features) if self.features else self.cpu not in ("cascadelake", "cooperlake")
        )

    @property
    def has_byte_permute(self) -> bool:
        """Whether bytes move anywhere within 512 bits in one instruction (VBMI)."""
        return self.lowering == "avx512-vnni" and (
            ("+avx512vbmi" in self.features.split(",")) if self.features else self.cpu not in ("cascadelake", "cooperlake")
        )

    @property
    def dots_any_u8(self) -> bool:
        """Whether the unsigned side of the int8 dot may use all eight bits; otherwise it must stay below 128."""
        return self.lowering in ("avx512-vnni", "avx-vnni", "portable")


@functools.cache
def target() -> Target:
    """The target of this process; constant while it runs."""
    named = os.environ.get("NUMBA_CPU_NAME")
    cpu = host_cpu()[0] if named in (None, "", "host") else named
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = "" if named not in (None, "", "host") else host_cpu()[1]
    chosen = os.environ.get("GGPY_SIMD")
    known = {f[1:] for f in features.split(",") if f.startswith("+")}
    if chosen == AMX:
        request_tiles()
        missing = [f"+{feature}" for feature in AMX_FEATURES if feature not in known]
        return Target(cpu, ",".join([features] * bool(features) + missing), "avx512-vnni", amx=True)
    if chosen == NEON and platform.machine().lower() not in ("aarch64", "arm64"):
        if named in (None, "", "host"):
            cpu, features = "generic", ARM64_FEATURES
        return Target(cpu, features, NEON, triple=ARM64_TRIPLE)
    lowering = chosen or _lowering(cpu, known)
    fits = (cpu in _AMX_BF16 and not features) or known.issuperset(AMX_FEATURES)
    return Target(cpu, features, lowering, amx=fits and not chosen and lowering == "avx512-vnni" and request_tiles())


def request_tiles() -> bool:
    """Ask Linux for the AMX tiles' state, which it grants per process (Documentation/arch/x86/xstate.rst); elsewhere they are not used.

    It refuses where there are no tiles, and where a thread's stack for signals is too small to hold them.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


def _lowering(cpu: str, features: set[str]) -> str:
    if (cpu in _VNNI_512 and not features) or {"avx512vnni", "avx512vl", "avx512bw"} <= features:
        return "avx512-vnni"
    if (cpu in _AVX_VNNI and not features) or "avxvnni" in features:
        return "avx-vnni"
    if (cpu in _AVX2 and not features) or "avx2" in features:
        return "avx2"
    if cpu in _DOTPROD or "dotprod" in features:
        return NEON
    return "portable"
