"""Every Numba option in one place: how helpers are inlined, how kernels are compiled and turned into object code.

No fast-math anywhere: what may be fused or reassociated is written so, with `fma` and explicit lanes. That keeps the encoders
bit-exact and every kernel independent of the optimizer's mood.

Numba would optimize each helper by itself, emit machine code for it and keep a copy beside the kernel that inlined it. Here a helper is
only typed and lowered; the kernel's module, with everything but its entry made internal, is optimized and emitted once: in less than half
the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit
from numba.core import cgutils, codegen, config, dispatcher, registry, types
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock

from ggpy.simd.target import target

SIGNATURE = types.void(types.intp, types.intp, types.intp)  # (address of int64 words, thread index, crew)
OPTIONS = {"error_model": "numpy", "boundscheck": False}


class _LinkedOnly(codegen.JITCodeLibrary):
    """A library that is only ever linked into a kernel's: nothing in it is optimized as a whole or emitted."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@contextmanager
def _lowering_only() -> Iterator[Any]:
    """While it lasts, functions that Numba compiles are typed, lowered and linkable, but not turned into machine code. Yields the generator
    of code. Under Numba's own lock, so that functions other threads compile are not affected."""
    target_context: Any = registry.cpu_target.target_context
    generator = target_context.codegen()

    def lower_only(self: Any, flags: Any) -> Any:
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        return flags

    with global_compiler_lock:
        compiler: Any = getattr(dispatcher, "_FunctionCompiler")  # noqa: B009 (private to numba)
        before, usual = compiler._customize_flags, generator._library_class
        compiler._customize_flags, generator._library_class = lower_only, _LinkedOnly
        generator.set_env = lambda name, environment: None  # would write to a symbol that machine code has
        machine, features, layout = generator._tm, generator._tm_features, generator._data_layout
        generator._tm, generator._tm_features = _machine(generator), target().features
        if target().triple:
            generator._data_layout = str(generator._tm.target_data)
            generator._create_empty_module = lambda name: _module(generator, name)
        try:
            yield generator
        finally:
            generator._tm, generator._tm_features, generator._data_layout = machine, features, layout
            compiler._customize_flags, generator._library_class = before, usual
            generator.__dict__.pop("_create_empty_module", None)
            del generator.set_env


def _machine(generator: Any) -> Any:
    """The generator's own target machine, or one for `target` where that has other features than numba found, or is of another kind."""
    if generator._tm_features == target().features and not target().triple:
        return generator._tm
    options: dict[str, Any] = {"opt": getattr(config, "OPT")}  # noqa: B009 (made when numba is imported)
    generator._customize_tm_options(options)
    options |= {"cpu": target().cpu, "features": target().features}
    if target().triple:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        options["reloc"] = "default"  # as numba has it there
    return llvm.Target.from_triple(target().triple or llvm.get_process_triple()).create_target_machine(**options)


def _module(generator: Any, name: str) -> ir.Module:
    """As numba makes empty modules, for `target`'s kind of machine."""
    module = ir.Module(cgutils.normalize_ir_text(name))
    module.triple, module.data_layout = target().triple, generator._data_layout
    return module


inline = njit(forceinline=True, **OPTIONS)
"""For helpers of kernels: always inlined by LLVM, no exceptions, no bounds checks."""

outlined = njit(forceinline=False, **OPTIONS)
"""For large helpers: called, never inlined, so that the optimizer does not copy them for each case of what is around the call."""


@dataclass(frozen=True)
class Kernel:
    """A Python function that `emit` compiles to object code for the CPU that `ggpy.simd.target` names."""

    function: Callable[[int, int, int], None]

    def emit(self) -> tuple[bytes, str]:
        """(object code, name of its entry); the code has no undefined symbols, so llvmlite alone can load it."""
        with _lowering_only() as generator:
            options = {"forceinline": True, **OPTIONS}
            function: Any = CFunc(self.function, (SIGNATURE.args, SIGNATURE.return_type), {}, options)
            result = function._compile_uncached()
            library, entry = result.library, result.fndesc.llvm_cfunc_wrapper_name
            library.finalize()
            module = library._final_module
            for defined in module.functions:
                if not defined.is_declaration and defined.name != entry:
                    defined.linkage = "internal"
                    if defined.name.startswith("_ZN4ggpy") and b"alwaysinline" not in defined.attributes:
                        defined.add_function_attribute("noinline")
            codegen.JITCodeLibrary._optimize_final_module(library)
            return bytes(generator._tm.emit_object(library._final_module)), entry


def kernel(function: Callable[[int, int, int], None]) -> Kernel:
    """Mark `function(args, ith, crew)` as a kernel. Nothing is compiled until its object code is asked for."""
    return Kernel(function)
