"""From what a user calls a model to a GGUF file: a file, a checkpoint directory, a Hub repository, or the bundled checkpoint.

Checkpoints are converted once, into the user's cache directory, and again when a file of theirs, the type or the version of ggpy changes.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import ggpy
from ggpy.cache import cache_directory
from ggpy.cli.status import Status
from ggpy.errors import GGUFError

DEMO = Path(ggpy.__file__).parent / "demo"
DEFAULT_TYPE = "q4_k_m"
_MAX_CONFIG_BYTES = 1 << 20
_FLOAT_TYPES = {"bfloat16": "bf16", "float16": "f16"}  # by config.json's dtype


def find_model(name: str, status: Status, threads: int | None = None, *, unquantized: bool = False) -> Path:
    """The GGUF file for `name`: FILE.gguf, a checkpoint directory or owner/model[@revision]; the last two with an optional :type.

    unquantized: without a type, convert a checkpoint to the floating-point type of its weights.
    Raises GGPyError for what is none of these, CheckpointError for a checkpoint that cannot be converted or a failed download.
    """
    path = Path(name)
    if path.is_file() or name.lower().endswith(".gguf"):
        return path
    source_name, type = _split_type(name)
    source = Path(source_name)
    if not source.is_dir():
        if file := _hub_file(source_name, type, status):
            return file
        from ggpy.converter.hub import find_source

        source = find_source(source_name)
    return convert_once(source, type or _default_type(source, unquantized), status, threads)


def find_demo(status: Status, threads: int | None = None) -> Path:
    """The GGUF file of the bundled checkpoint, converted where that was not done before."""
    return convert_once(DEMO, DEFAULT_TYPE, status, threads, title="the bundled checkpoint")


def convert_once(source: Path, type: str, status: Status, threads: int | None, title: str | None = None) -> Path:
    """The converted `source` in the cache; converts it where no complete file of the same input, type and version is there."""
    target = _model_cache() / f"{source.resolve().name}-{type.lower()}-{_fingerprint(source)}.gguf"
    if _is_complete(target):
        return target
    from ggpy.converter import Progress, convert

    def on_progress(progress: Progress) -> None:
        if progress.stage == "compile":
            line = f"compiling the encoder {progress.what} ({progress.done + 1} of {progress.total}), once per machine"
        else:
            line = f"{progress.stage}: {progress.done / max(progress.total, 1):.0%} {progress.what}"
        status.show(line)

    status.say(f"converting {title or source} to {type.upper()}, once")
    report = convert(source, target, type, force=True, threads=threads, on_progress=on_progress, on_warning=status.say)
    size = f"{report.n_values / 1e6:.1f} M weights in {report.file_bytes / 1e6:.1f} MB, {report.bits_per_weight:.2f} bits per weight"
    status.say(f"{target}: {size}, {report.seconds:.1f} s")
    return target


def _default_type(source: Path, unquantized: bool = False) -> str:
    """`DEFAULT_TYPE`, or the floating-point type of the weights; where a checkpoint is quantized already, the type that leaves it so."""
    try:
        with open(source / "config.json", "rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):  # the conversion says what is wrong with it
        return DEFAULT_TYPE
    if not isinstance(config, dict):
        return DEFAULT_TYPE
    if config.get("quantization_config") or config.get("compression_config"):
        return "keep"
    return _FLOAT_TYPES.get(str(config.get("dtype") or config.get("torch_dtype")), "f32") if unquantized else DEFAULT_TYPE


def _split_type(name: str) -> tuple[str, str | None]:
    """owner/model:q8_0 -> (owner/model, q8_0). A directory with a colon in its name is itself."""
    base, colon, type = name.rpartition(":")
    if not colon or Path(name).exists() or "/" in type or "\\" in type:
        return name, None
    return base, type


def _model_cache() -> Path:
    """The folder for converted models; a temporary one where the user's cache directory cannot be written."""
    folder = cache_directory() / "models"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        temporary = Path(tempfile.mkdtemp(prefix="ggpy-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary


def _fingerprint(source: Path) -> str:
    """Names a conversion: ggpy's version and every file of the checkpoint by name, size and time of its last change."""
    digest = hashlib.sha256(ggpy.__version__.encode())
    for path in sorted(path for path in source.iterdir() if path.is_file()):
        status = path.stat()
        digest.update(f"\0{path.name}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]


def _is_complete(path: Path) -> bool:
    """Whether a converted file is there and whole: its table fits its size."""
    from ggpy.gguf import open_gguf

    try:
        open_gguf(path).close()
    except (OSError, GGUFError):
        return False
    return True


def _hub_file(name: str, type: str | None, status: Status) -> Path | None:
    """The GGUF file of a Hub repository that has any, downloaded or from the client's cache; None where it has none."""
    from ggpy.converter.hub import find_gguf

    return find_gguf(name, type, status.say)
