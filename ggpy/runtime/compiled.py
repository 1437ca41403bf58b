"""Kernels as object code: compiled by Numba once per CPU, kept in the user's cache directory, loaded by llvmlite alone.

An entry is keyed by the source of all kernels, the CPU and its features, and the versions of Python, numba and llvmlite; so a second
start imports no numba. An entry is never trusted for its name: it carries a digest of its own bytes, it must belong to this user, and one
that is damaged, foreign or unreadable is compiled again.

Layout of an entry: one line of JSON {"key", "entry", "sha256", "bytes"}, a newline, the object code (ELF, Mach-O or COFF).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from ggpy.simd.target import target

KernelName = tuple[str, str]
"""(module below ggpy.kernels, attribute): ("q4_k", "linear")."""

OnCompile = Callable[[KernelName, int, int], None]
"""Called before a kernel is compiled: (its name, how many were compiled before it, how many there are to compile)."""

_SOURCES = Path(__file__).resolve().parents[1]
_lock = threading.RLock()
_addresses: dict[KernelName, int] = {}


def cache_directory() -> Path:
    """Where compiled kernels are kept: GGPY_CACHE_DIR, else the user's cache directory. Not created by asking."""
    chosen = os.environ.get("GGPY_CACHE_DIR")
    if chosen:
        return Path(chosen) / "kernels"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ggpy" / "kernels"


def has_kernel(module: str) -> bool:
    """Whether ggpy/kernels has a file for `module`, such as a block format's name in lower case. Imports nothing heavy."""
    return importlib.util.find_spec(f"ggpy.kernels.{module}") is not None


def kernel(module: str, name: str) -> int:
    """The address of one kernel, a C function `void(intp args, intp ith, intp crew)`; loaded from the cache or compiled."""
    prepare([(module, name)])
    return _addresses[module, name]


def prepare(names: Iterable[KernelName], on_compile: OnCompile | None = None) -> None:
    """Make the kernels' addresses known; those that no valid cache entry holds are compiled, one after the other."""
    with _lock:
        missing = []
        for name in dict.fromkeys(names):
            if name not in _addresses and not _load(name):
                missing.append(name)
        for done, name in enumerate(missing):
            if on_compile:
                on_compile(name, done, len(missing))
            code, entry = getattr(importlib.import_module(f"ggpy.kernels.{name[0]}"), name[1]).emit()
            _save(name, code, entry)
            _addresses[name] = _link(code, entry)


@functools.cache
def _key() -> str:
    """Digest of everything that decides what a kernel compiles to."""
    digest = hashlib.sha256()
    for folder in ("simd", "kernels"):
        for source in sorted((_SOURCES / folder).rglob("*.py")):
            digest.update(f"{source.relative_to(_SOURCES).as_posix()}\0".encode())
            digest.update(hashlib.sha256(source.read_bytes()).digest())
    versions = [importlib.metadata.version(package) for package in ("numba", "llvmlite")]
    about = [sys.implementation.cache_tag, sys.platform, *versions, target().cpu, target().features, target().lowering]
    about += [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("NUMBA_OPT") or k == "NUMBA_ENABLE_AVX"]
    digest.update(json.dumps(about).encode())
    return digest.hexdigest()


def _path(name: KernelName) -> Path:
    return cache_directory() / _key()[:16] / f"{name[0]}.{name[1]}.o"


def _load(name: KernelName) -> bool:
    """Take a kernel from the cache; False where no valid entry is there."""
    try:
        descriptor = os.open(_path(name), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            if not _is_private(os.fstat(descriptor)):
                return False
            header, code = json.loads(file.readline(4096)), file.read()
        valid = header["key"] == f"{_key()} {name[0]}.{name[1]}" and header["sha256"] == hashlib.sha256(code).hexdigest()
        if not valid or header["bytes"] != len(code):
            return False
        _addresses[name] = _link(code, str(header["entry"]))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, UnicodeDecodeError):
        return False
    return True


def _is_private(status: os.stat_result) -> bool:
    """A regular file of this user that nobody else may write."""
    if not stat.S_ISREG(status.st_mode):
        return False
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


def _save(name: KernelName, code: bytes, entry: str) -> None:
    """Keep a kernel for the next start; a cache that cannot be written only costs that start its time."""
    path = _path(name)
    header = {"key": f"{_key()} {name[0]}.{name[1]}", "entry": entry, "sha256": hashlib.sha256(code).hexdigest(), "bytes": len(code)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with open(handle, "wb") as file:
                file.write(json.dumps(header).encode() + b"\n" + code)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError:
        return


@functools.cache
def _engine():
    """The linker of this process; object files added to it stay loaded as long as the process lives."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _link(code: bytes, entry: str) -> int:
    import llvmlite.binding as llvm

    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(entry)
    if not address:
        raise RuntimeError(f"object code has no entry {entry!r}")
    return address
