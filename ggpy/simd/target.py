"""The CPU that kernels are compiled for, asked without importing numba.

Follows numba's own settings: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES override the host's. GGPY_SIMD=portable keeps the int8 dot product
in plain LLVM IR on any CPU; it is how the portable lowering is tested.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from ggpy.simd.host_cpu import host_cpu

_VNNI_512 = {"cascadelake", "cooperlake", "icelake-client", "icelake-server", "tigerlake", "rocketlake", "sapphirerapids", "emeraldrapids",
             "graniterapids", "graniterapids-d", "diamondrapids", "znver4", "znver5"}  # fmt: skip
_AVX_VNNI = {"alderlake", "raptorlake", "meteorlake", "gracemont", "sierraforest", "grandridge", "arrowlake", "arrowlake-s", "lunarlake"}
_AVX2 = {"haswell", "broadwell", "skylake", "skylake-avx512", "cannonlake", "znver1", "znver2", "znver3", "x86-64-v3", "x86-64-v4"}

LOWERINGS = ("avx512-vnni", "avx-vnni", "avx2", "neon-dot", "portable")


@dataclass(frozen=True)
class Target:
    """cpu: LLVM's name; features: LLVM's feature string; lowering: one of LOWERINGS, how int8 products are summed."""

    cpu: str
    features: str
    lowering: str

    @property
    def tile_tokens(self) -> int:
        """Tokens in a register tile of sixteen rows: as many as the registers hold sums for (32 of 512 bits, or fewer and narrower)."""
        return 8 if self.lowering == "avx512-vnni" else 4

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
    return Target(cpu, features, os.environ.get("GGPY_SIMD") or _lowering(cpu, {f[1:] for f in features.split(",") if f.startswith("+")}))


def _lowering(cpu: str, features: set[str]) -> str:
    if (cpu in _VNNI_512 and not features) or {"avx512vnni", "avx512vl", "avx512bw"} <= features:
        return "avx512-vnni"
    if (cpu in _AVX_VNNI and not features) or "avxvnni" in features:
        return "avx-vnni"
    if (cpu in _AVX2 and not features) or "avx2" in features:
        return "avx2"
    if "dotprod" in features:
        return "neon-dot"
    return "portable"
