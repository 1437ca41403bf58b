"""llama.cpp as it is installed: a `llama-bench` binary, or one of its Python modules; how fast it is, and what of the CPU it uses.

    python tools/llama_peers.py PATH/llama-bench      what the build uses of this CPU

As a script it says that of one peer, in JSON: two builds' libraries cannot be loaded into one process.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison import run_json

Key = tuple[str, int]
"""(test such as "tg128@d8000", threads)"""

MODULES = ("llama_cpp", "xllamacpp")
MODES: dict[str, tuple[str, ...]] = {"default": (), "norepack": ("--repack", "0"), "nofa": ("--flash-attn", "off")}
"""llama-bench's options by the names that `--modes` takes."""

FEATURES = {  # llama.cpp's name -> Linux's, in /proc/cpuinfo
    "avx": "avx",
    "avx2": "avx2",
    "f16c": "f16c",
    "fma": "fma",
    "bmi2": "bmi2",
    "avx_vnni": "avx_vnni",
    "avx512": "avx512f",
    "avx512_vbmi": "avx512vbmi",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "neon": "asimd",
    "dotprod": "asimddp",
    "matmul_int8": "i8mm",
    "sve": "sve",
}

_AVX512 = frozenset(("avx512", "avx512_vbmi", "avx512_vnni", "avx512_bf16"))
LEFT_UNUSED = {  # what ggpy's lowerings do without
    "avx512-vnni": frozenset(("amx_int8",)),
    "avx-vnni": _AVX512 | {"amx_int8"},
    "avx2": _AVX512 | {"amx_int8", "avx_vnni"},
    "neon-dot": frozenset(("matmul_int8", "sve")),
    "portable": frozenset(FEATURES),
}


@dataclass(frozen=True)
class Peer:
    """One llama.cpp. name: as it stands in tables; program: path of llama-bench, or a module's name."""

    name: str
    program: str

    @property
    def is_module(self) -> bool:
        return self.program in MODULES

    def run(self, model: Path, *, prefill: int, decode: int, depths: Sequence[int], threads: str, mode: str) -> dict[Key, float]:
        """One measured run of each test after a warm-up: tokens per second."""
        command = [self.program]
        if self.is_module:
            command = [sys.executable, str(Path(__file__).with_name("llama_module_bench.py")), self.program]
        command += ["-m", str(model), "-p", str(prefill), "-n", str(decode), "-t", threads, "-r", "1", "-o", "json"]
        rows = run_json([*command, "-d", ",".join(map(str, depths)), *MODES[mode]])
        return {(test_name(row), row["n_threads"]): row["avg_ts"] for row in rows}

    def features(self) -> list[str]:
        """The CPU features it was built with; empty where it does not say."""
        return run_json([sys.executable, __file__, self.program])


def test_name(row: Mapping[str, int]) -> str:
    """llama-bench's row -> the name that ggpy-bench gives that test."""
    kind = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
    depth = row.get("n_depth", 0)
    return f"{kind}@d{depth}" if depth else kind


def find_peer(words: str, is_module: bool) -> Peer:
    """NAME=PROGRAM, or a program alone, which then is its name. SystemExit when there is no such program."""
    name, _, program = words.rpartition("=")
    if is_module and program not in MODULES:
        raise SystemExit(f"{program} is no module that this can measure, expected one of {', '.join(MODULES)}")
    if not is_module and not os.access(program, os.X_OK):
        raise SystemExit(f"{program}: no program that can be run; it wants the path of a llama-bench binary")
    return Peer(name or (program if is_module else "llama.cpp"), program)


def host_features(cpuinfo: str) -> list[str]:
    """The features that the processors of a /proc/cpuinfo have, by llama.cpp's names."""
    flags = {flag for line in cpuinfo.splitlines() if re.match(r"(flags|Features)\s*:", line) for flag in line.partition(":")[2].split()}
    return [name for name, flag in FEATURES.items() if flag in flags]


def this_host() -> list[str]:
    """The features of this machine; empty where the system does not say."""
    try:
        return host_features(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return []


def warning(peer: Peer, host: Sequence[str], built: Sequence[str], held_to: str | None = None) -> str | None:
    """What is to be said of a build that leaves instructions of the host unused, else None. held_to: the lowering that ggpy was told to
    use: what that leaves unused, too, need not be in the build."""
    if not built:
        return f"WARNING: {peer.name} does not say what of the CPU it uses; if that is less than there is, ratios flatter ggpy"
    missing = [name for name in host if name not in built and name not in LEFT_UNUSED.get(held_to or "", ())]
    if missing:
        return f"WARNING: {peer.name} was built without {', '.join(missing)}, which this CPU has: ratios to it flatter ggpy"
    return None


def features_in_words(info: str) -> list[str]:
    """From llama.cpp's system info, `CPU : AVX2 = 1 | F16C = 1 | …`."""
    on = {name.lower() for name, value in re.findall(r"(\w+) = (\d)", info) if value == "1"}
    return [name for name in FEATURES if name in on]


def _features(program: str) -> list[str]:
    if program == "llama_cpp":
        import llama_cpp  # pyright: ignore[reportMissingImports]

        return features_in_words(llama_cpp.llama_print_system_info().decode())
    if program == "xllamacpp":
        xllamacpp: Any = importlib.import_module("xllamacpp")
        return features_in_words(xllamacpp.get_system_info())
    binary = Path(program).resolve()
    folders = (binary.parent, binary.parent.parent / "lib")
    libraries = [path for folder in folders for path in sorted(folder.glob("libggml-cpu*.so"))]
    if len(libraries) != 1:  # a static build, or one library per kind of CPU, of which it chooses
        return []
    ctypes.CDLL(str(libraries[0].with_name("libggml-base.so")), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(libraries[0]))
    return [name for name in FEATURES if getattr(library, f"ggml_cpu_has_{name}", int)()]


if __name__ == "__main__":
    print(json.dumps(_features(sys.argv[1])))
