"""Kernels as object code: compiled by Numba once per CPU, kept in the user's cache directory, loaded without Numba.

An entry is keyed by the source of all kernels and of the block formats, whose tables they hold, the CPU and its features, and the versions
of Python, numba and llvmlite; so a second start imports neither of these. One that is damaged, foreign or unreadable is compiled again (see
ggpy.cache). Its bytes are the object code (ELF, Mach-O or COFF); its header names the "entry" in it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ggpy.cache import cache_directory, read_entry, write_entry
from ggpy.errors import GGPyError
from ggpy.runtime import elf
from ggpy.runtime.host import available_threads
from ggpy.simd.target import target
from ggpy.simd.versions import version_digest

KernelName = tuple[str, str]
"""(module below ggpy.kernels, attribute): ("q4_k", "linear")."""

OnCompile = Callable[[KernelName, int, int], None]
"""Called before a kernel is compiled: (its name, how many were begun before it, how many there are to compile). One call at a time, but not
always from the thread that waits for the kernels."""

_SOURCES = os.fspath(Path(__file__).resolve().parents[1])
_lock = threading.RLock()
_addresses: dict[KernelName, int] = {}


def has_kernel(module: str) -> bool:
    """Whether ggpy/kernels has a file for `module`, such as a block format's name in lower case. Imports nothing heavy."""
    return importlib.util.find_spec(f"ggpy.kernels.{module}") is not None


def kernel(module: str, name: str) -> int:
    """The address of one kernel, a C function `void(intp args, intp ith, intp crew)`; loaded from the cache or compiled."""
    prepare([(module, name)])
    return _addresses[module, name]


def prepare(names: Iterable[KernelName], on_compile: OnCompile | None = None) -> None:
    """Make the kernels' addresses known; those that no valid cache entry holds are compiled, on several processors where there are."""
    if target().triple:
        kind = f"{target().triple.partition('-')[0]} ({target().name})"
        raise GGPyError(f"code for {kind} does not run on this machine ({platform.machine()})")
    with _lock:
        missing = [name for name in dict.fromkeys(names) if name not in _addresses and not _load(name)]
        for name, (code, entry) in _compile(missing, on_compile).items():
            _addresses[name] = _link(code, entry)


def object_code(names: Iterable[KernelName]) -> dict[KernelName, tuple[bytes, str]]:
    """Of each kernel, from the cache or compiled, for the CPU that `ggpy.simd.target` names: (object code, name of its entry)."""
    with _lock:
        found = {name: _read(name) for name in names}
        cached = {name: (entry[1], str(entry[0]["entry"])) for name, entry in found.items() if entry is not None}
        return cached | _compile([name for name, entry in found.items() if entry is None])


def _compile(names: list[KernelName], on_compile: OnCompile | None = None) -> dict[KernelName, tuple[bytes, str]]:
    """The same, and into the cache."""
    if not names:
        return {}
    from ggpy.runtime.compiling import compile_kernels

    return compile_kernels(names, available_threads(), on_compile, _save)


@functools.cache
def _key() -> str:
    """Digest of everything that decides what a kernel compiles to."""
    digest = hashlib.sha256()
    for name, path in sorted(source for folder in ("blocks", "simd", "kernels") for source in _sources(folder)):
        digest.update(f"{name}\0".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    versions = [version_digest(package) for package in ("numba", "llvmlite")]
    about = [sys.implementation.cache_tag, sys.platform, *versions, target().cpu, target().features, target().name, target().triple]
    about += [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("NUMBA_OPT") or k == "NUMBA_ENABLE_AVX"]
    digest.update(json.dumps(about).encode())
    return digest.hexdigest()


def _sources(folder: str) -> Iterator[tuple[str, str]]:
    """(path below ggpy, path) of the modules in a folder of it and in those below."""
    with os.scandir(os.path.join(_SOURCES, folder)) as found:  # noqa: PTH118 (a Path for each file takes longer than reading it)
        for item in found:
            name = f"{folder}/{item.name}"
            if item.name.endswith(".py"):
                yield name, item.path
            elif item.name != "__pycache__" and item.is_dir():
                yield from _sources(name)


def _path(name: KernelName) -> Path:
    return cache_directory() / "kernels" / _key()[:16] / f"{name[0]}.{name[1]}.o"


def _load(name: KernelName) -> bool:
    """Take a kernel from the cache; False where no valid entry is there."""
    found = _read(name)
    if found is None:
        return False
    header, code = found
    try:
        _addresses[name] = _link(code, str(header["entry"]))
    except (KeyError, RuntimeError):
        return False
    return True


def _read(name: KernelName):
    """The header and object code of a valid cache entry, or None."""
    return read_entry(_path(name), f"{_key()} {name[0]}.{name[1]}")


def _save(name: KernelName, code: bytes, entry: str) -> None:
    write_entry(_path(name), f"{_key()} {name[0]}.{name[1]}", code, entry=entry)


@functools.cache
def _engine():
    """LLVM's linker, for this process; object files added to it stay loaded as long as the process lives."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _link(code: bytes, entry: str) -> int:
    """The address of `entry`, with the object code in executable memory; RuntimeError for code without such an entry."""
    return elf.load(code, entry) or _link_by_llvm(code, entry)


def _link_by_llvm(code: bytes, entry: str) -> int:
    import llvmlite.binding as llvm

    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(entry)
    if not address:
        raise RuntimeError(f"object code has no entry {entry!r}")
    return address
