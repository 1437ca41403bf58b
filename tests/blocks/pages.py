"""The pages and vectors of `formats/blocks`, parsed: what code is held to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "formats" / "blocks"


@dataclass(frozen=True)
class Vector:
    """One case of a vectors file. blocks: uint8 (n,); values: float32 (m,), input of an encoder or output of a decoder."""

    name: str
    blocks: np.ndarray
    values: np.ndarray
    decoded: np.ndarray | None
    importance: np.ndarray | None


def tables(page: Path) -> list[list[list[str]]]:
    """Every table of a Markdown page: its rows, header first and ruler left out, as stripped cells."""
    found: list[list[list[str]]] = [[]]
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not all(set(cell) <= set("-:") and cell for cell in cells):
                found[-1].append(cells)
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def vectors(name: str) -> dict:
    """The vectors file of a format as it stands, JSON."""
    return json.loads((FOLDER / f"{name.lower()}.vectors.json").read_text(encoding="utf-8"))


def cases(name: str, direction: str) -> list[Vector]:
    """The `decode`, `encode` or `encode_weighted` cases of a format."""
    return [
        Vector(
            case["name"],
            _bytes(case["blocks"]),
            _floats(case["values"]),
            _floats(case["decoded"]) if "decoded" in case else None,
            _floats(case["importance"]) if "importance" in case else None,
        )
        for case in vectors(name)[direction]
    ]


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), np.uint8)


def _floats(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), "<f4").astype(np.float32, copy=False)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two float32 arrays are equal bit for bit, any NaN equal to any other."""
    return a.shape == b.shape and bool(((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())
