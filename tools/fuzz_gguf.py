"""Fuzz the container reader: any bytes must end in an open file or in a GGUFError.

    python tools/fuzz_gguf.py [FOLDER] [libFuzzer options, such as -max_total_time=600]

Begins with the files in formats/gguf and keeps what it finds in FOLDER (default: a temporary one). Needs atheris, which is not among
the requirements for developers (`pip install atheris`; Linux only, because the inputs lie in memory).
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def one_input(raw: bytes) -> None:
    """Open `raw` as a file that lies in memory alone, and look at all of it."""
    from ggpy.cli.inspect import describe, to_json
    from ggpy.errors import GGUFError
    from ggpy.gguf import open_gguf

    descriptor = os.memfd_create("fuzz.gguf")
    try:
        os.write(descriptor, raw)
        with open_gguf(f"/proc/self/fd/{descriptor}", only_this_part=True) as file:
            to_json(file)
            lines = describe(file, tensors=True, width=200)
            assert not any(map(UNSAFE.search, lines)), "control characters in what is shown"
            for tensor in file.tensors.values():
                tensor.data.tobytes()
                if tensor.format.decode is not None:
                    tensor.dequantize()
    except GGUFError as error:
        if UNSAFE.search(str(error)):
            raise AssertionError(f"control characters in a complaint: {error!r}") from error
    finally:
        os.close(descriptor)


def main() -> int:
    try:
        import atheris
    except ImportError:
        print("tools/fuzz_gguf.py needs atheris: pip install atheris", file=sys.stderr)
        return 1
    with atheris.instrument_imports(include=["ggpy"]):
        from ggpy.cli import inspect  # noqa: F401
    arguments = sys.argv[1:]
    if not any(not argument.startswith("-") for argument in arguments):
        arguments.append(tempfile.mkdtemp(prefix="ggpy-fuzz-"))  # libFuzzer writes into the first folder it is given
    seeds = [str(ROOT / "formats" / "gguf" / folder) for folder in ("good", "bad")]
    atheris.Setup([sys.argv[0], *arguments, *seeds], one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
