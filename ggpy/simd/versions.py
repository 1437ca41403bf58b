"""Which numba and llvmlite are installed, asked without importing them."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path


def version_digest(package: str) -> str:
    """Names the installed version of numba or llvmlite: a digest of the file in which it states its version and revision."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        stated = Path(folder) / "_version.py"
        if stated.is_file():
            return hashlib.sha256(stated.read_bytes()).hexdigest()
    from importlib.metadata import version

    return version(package)
