"""How fast a stage goes is told from what it did itself: a resumed conversion begins in the middle."""

from __future__ import annotations

import pytest

from ggpy.cli import progress
from ggpy.converter import Progress


@pytest.mark.parametrize(
    ("stage", "first", "done", "total", "seconds", "said"),
    [
        ("encode", 0, 500_000_000, 1_000_000_000, 5.0, "100 M weights/s, 5 s left"),
        ("encode", 900_000_000, 950_000_000, 1_000_000_000, 5.0, "10 M weights/s, 5 s left"),
        ("verify", 0, 10**9, 10**11, 2.0, "500 MB/s, 3 min 18 s left"),
        ("certify", 0, 1, 3601, 2.0, "2 h 0 min left"),
        ("encode", 100, 100, 200, 9.0, ""),
        ("encode", 0, 100, 200, 0.1, ""),
    ],
)
def test_pace(stage: str, first: int, done: int, total: int, seconds: float, said: str, monkeypatch: pytest.MonkeyPatch):
    clock = iter((100.0, 100.0 + seconds))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    pace = progress._Pace(Progress(stage, "x", first, total))
    assert pace.after(Progress(stage, "x", done, total)) == said
