"""The host's CPU by LLVM's name and features, remembered so that only the first start needs LLVM to tell."""

from __future__ import annotations

import functools
import hashlib
import json
import sys

from ggpy.cache import cache_directory, read_entry, write_entry
from ggpy.simd.versions import version_digest

_DESCRIBED = 4096  # bytes of /proc/cpuinfo that describe the first processor, and more
_CHANGING = (b"cpu MHz", b"bogomips", b"processor", b"apicid", b"initial apicid", b"core id", b"physical id")


@functools.cache
def host_cpu() -> tuple[str, str]:
    """(name, feature string) as LLVM has them.

    They are kept under a digest of how Linux describes the processor, flags of what the kernel lets programs use included, and of
    llvmlite's version; where there is no such description, LLVM is asked each time.
    """
    described = _description()
    if described is None:
        return _ask()
    key = hashlib.sha256(described + version_digest("llvmlite").encode()).hexdigest()
    path = cache_directory() / "cpu" / f"{key[:16]}.json"
    entry = read_entry(path, key)
    if entry is not None:
        name, features = json.loads(entry[1])
        return name, features
    answer = _ask()
    write_entry(path, key, json.dumps(answer).encode())
    return answer


def _ask() -> tuple[str, str]:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    if b"asimddp" in _words(b"Features"):  # of what Linux tells about ARM64, LLVM leaves this out
        features = ",".join([features] * bool(features) + ["+dotprod"])
    return llvm.get_host_cpu_name(), features


def _words(name: bytes) -> list[bytes]:
    """What the first processor's description has in the line of that name."""
    for line in (_description() or b"").split(b"\n"):
        if line.split(b":")[0].strip() == name:
            return line.partition(b":")[2].split()
    return []


def _description() -> bytes | None:
    """What stays the same from start to start of the first processor in /proc/cpuinfo."""
    if sys.platform != "linux":
        return None
    try:
        with open("/proc/cpuinfo", "rb", buffering=0) as file:
            first = file.read(_DESCRIBED).partition(b"\n\n")
    except OSError:
        return None
    if not first[1] or not (b"flags" in first[0] or b"Features" in first[0]):
        return None
    return b"\n".join(line for line in first[0].split(b"\n") if not line.startswith(_CHANGING))
