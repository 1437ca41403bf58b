"""`tools/compare_perplexity.py` reads what llama-perplexity prints; `tools/compare_at_once.py` times and compares."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import compare_at_once
import compare_perplexity
import pytest

PRINTED = """
====== Perplexity statistics ======
Mean PPL(Q)                   :  43.279081 ±   4.159174
Mean PPL(base)                :  39.739081 ±   3.722692
Mean PPL(Q)/PPL(base)         :   1.089081 ±   0.014276
Mean PPL(Q)-PPL(base)         :   3.540000 ±   0.700000

====== KL divergence statistics ======
Mean    KLD:   0.063080 ±   0.002984
Maximum KLD:   2.315714
99.9%   KLD:   0.904810
99.0%   KLD:   0.308670
90.0%   KLD:   0.117569
Median  KLD:   0.045936

====== Token probability statistics ======
RMS Δp    :  5.724 ± 0.571 %
Same top p: 82.353 ± 1.194 %
"""


def test_every_figure_is_found_in_what_is_printed():
    found = {name: compare_perplexity.find(figure, PRINTED) for name, figure in compare_perplexity.FIGURES.items()}
    assert found["perplexity"] == (43.279081, 4.159174) and found["ratio"] == (1.089081, 0.014276)
    assert found["KL divergence, mean"] == (0.06308, 0.002984) and found["largest"] == (2.315714, None)
    assert found["RMS of Δp"] == pytest.approx((0.05724, 0.00571)) and found["top-1 agreement"] == pytest.approx((0.82353, 0.01194))
    with pytest.raises(SystemExit, match="printed no line"):
        compare_perplexity.find(compare_perplexity.FIGURES["median"], "")


def test_figures_are_found_by_name():
    found = SimpleNamespace(perplexity=1.5, comparison=SimpleNamespace(top1=0.5))
    assert [compare_perplexity.value_of(found, name) for name in ("perplexity", "comparison.top1")] == [1.5, 0.5]  # pyright: ignore


def test_chunks_at_once_are_timed(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    text = tmp_path / "text.txt"
    text.write_text("In the beginning God created the heaven and the earth. " * 8, encoding="utf-8")
    options = [str(demo_gguf), "--text", str(text), "--ctx", "32", "--chunks", "2", "--threads", "2", "--rounds", "2"]
    monkeypatch.setattr("sys.argv", ["compare_at_once.py", *options])
    compare_at_once.main()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["chunks at once", "tokens/s", "ratio"] and [row[0] for row in rows[2:]] == ["1", "2"]
    assert rows[2][2].startswith("1.00")
