"""`tools/compare_quality.py` tells files apart by how far they are from their base, and takes up where it was ended."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import compare_quality
import numpy as np
import pytest

import ggpy
from ggpy.cli.model_file import DEMO
from ggpy.evaluate import store

TEXTS = {
    "genesis": "In the beginning God created the heaven and the earth. And the earth was without form, and void. " * 4,
    "psalm": "The LORD is my shepherd; I shall not want. He maketh me to lie down in green pastures. " * 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    for type in ("f16", "q8_0", "q4_0"):
        ggpy.convert(DEMO, folder / f"{type}.gguf", type)
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "cache_directory", lambda: folder / "cache")


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str) -> list[list[str]]:
    options = ["--base", folder / "f16.gguf", "--text", folder / "genesis.txt", "--text", folder / "psalm.txt", "--ctx", 32, "--chunks", 3]
    monkeypatch.setattr(
        "sys.argv", ["compare_quality.py", *map(str, options), *more, str(folder / "q8_0.gguf"), f"small={folder}/q4_0.gguf"]
    )
    compare_quality.main()
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|") and "---" not in line]


def test_a_table_for_each_text_and_one_for_all(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    rows = run(folder, monkeypatch, capsys, "--against", "q8_0", "--json", str(folder / "found.json"))
    assert len(rows) == 3 * 3 and rows[0] == [*compare_quality.HEAD, "KL of q8_0 ×"]
    for first in (0, 3, 6):
        q8, q4 = rows[first + 1 : first + 3]
        assert (q8[0], q4[0]) == ("q8_0", "small") and q8[-1] == "1"
        assert int(q8[1].replace(",", "")) == (folder / "q8_0.gguf").stat().st_size
        assert float(q8[2]) > 8 and 4 < float(q4[2]) < 7
        assert 0 < float(q8[3].split()[0]) < float(q4[3].split()[0])
        assert float(q4[-1].split()[0]) == pytest.approx(float(q4[3].split()[0]) / float(q8[3].split()[0]), rel=0.1)
    means = [float(rows[first + 2][3].split()[0]) for first in (0, 3, 6)]
    assert means[2] == pytest.approx((means[0] + means[1]) / 2, abs=2e-5)
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert [(row["name"], row["text"]) for row in found] == [(name, text) for name in ("q8_0", "small") for text in TEXTS]
    again = run(folder, monkeypatch, capsys, "--against", "q8_0", "--json", str(folder / "again.json"))
    assert again == rows
    assert all(row["known_chunks"] == 3 for row in json.loads((folder / "again.json").read_text(encoding="utf-8")))


def test_names_that_do_not_tell_apart_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        run(folder, monkeypatch, capsys, "--against", "other")
    assert "files are named q8_0, small" in capsys.readouterr().err


def rows_of(*chunks: list[float]):
    return [SimpleNamespace(comparison=SimpleNamespace(kl_chunks=tuple(part))) for part in chunks]


def test_the_error_of_a_ratio_is_that_of_its_pairs():
    """Where every chunk of one file has twice the divergence of the other's, there is nothing to doubt, however much chunks differ."""
    rng = np.random.default_rng(1)
    spread = rng.uniform(0.01, 1, 20)
    value, error = compare_quality.ratio(rows_of((2 * spread).tolist()), rows_of(spread.tolist()))
    assert value == pytest.approx(2) and error == pytest.approx(0, abs=1e-12)
    ratios = []
    for _ in range(300):
        chunks = rng.uniform(0.5, 1.5, (2, 40))
        ratios.append(compare_quality.ratio(rows_of(chunks[0].tolist()), rows_of(chunks[1].tolist())))
    assert np.mean([error for _, error in ratios]) == pytest.approx(np.std([value for value, _ in ratios]), rel=0.15)
