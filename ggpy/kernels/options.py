"""Every Numba option in one place: how helpers are inlined, how kernels are compiled and turned into object code.

No fast-math anywhere: what may be fused or reassociated is written so, with `fma` and explicit lanes. That keeps the encoders
bit-exact and every kernel independent of the optimizer's mood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numba import cfunc, njit
from numba.core import types

SIGNATURE = types.void(types.intp, types.intp, types.intp)  # (address of int64 words, thread index, thread count)
OPTIONS = {"error_model": "numpy", "boundscheck": False}

inline = njit(forceinline=True, **OPTIONS)
"""For helpers of kernels: always inlined by LLVM, no exceptions, no bounds checks."""


@dataclass(frozen=True)
class Kernel:
    """A Python function that `emit` compiles to object code for the CPU that `ggpy.simd.target` names."""

    function: Callable[[int, int, int], None]

    def emit(self) -> tuple[bytes, str]:
        """(object code, name of its entry); the code has no undefined symbols, so llvmlite alone can load it."""
        compiled: Any = cfunc(SIGNATURE, forceinline=True, **OPTIONS)(self.function)
        library = compiled._library
        return bytes(library._codegen._tm.emit_object(library._final_module)), compiled._wrapper_name


def kernel(function: Callable[[int, int, int], None]) -> Kernel:
    """Mark `function(args, ith, nth)` as a kernel. Nothing is compiled until its object code is asked for."""
    return Kernel(function)
