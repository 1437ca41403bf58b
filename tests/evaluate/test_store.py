"""What evaluations leave on disk is bounded, checked, and bound to what it was made of."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ggpy.evaluate import Store, store


def test_bytes_come_back_under_their_key_only(tmp_path: Path):
    kept = Store(tmp_path / "new" / "folder")
    kept.write(b"content", "model", (1, 2))
    assert kept.read("model", (1, 2)) == b"content"
    assert kept.read("model", (1, 3)) is None
    assert Store(tmp_path).read("model", (1, 2)) is None


def test_damaged_entries_are_not_believed(tmp_path: Path):
    kept = Store(tmp_path)
    kept.write(b"content", "key")
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"X", whole + b"X", b"", b"{}\n"):
        entry.write_bytes(damaged)
        assert kept.read("key") is None
    entry.write_bytes(whole)
    assert kept.read("key") == b"content"


def test_what_was_not_used_for_longest_goes(tmp_path: Path):
    kept = Store(tmp_path, limit=2800)
    for number in range(2):
        kept.write(bytes(1000), number)
        os.utime(next(path for path in tmp_path.iterdir() if path.stat().st_mtime > time.time() - 50), (number + 1, number + 1))
    assert kept.read(0) is not None  # used again, so that the other is the oldest
    kept.write(bytes(1000), 2)
    assert [kept.read(number) is not None for number in range(3)] == [True, False, True]


def test_more_than_the_limit_or_the_disk_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = Store(tmp_path, limit=100)
    kept.write(bytes(101), "key")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: SimpleNamespace(free=store.SPARE + 50))
    assert Store(tmp_path, limit=None).has_room_for(49) and not Store(tmp_path, limit=None).has_room_for(50)


def test_a_model_is_known_by_its_bytes_and_its_settings(tmp_path: Path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(path.name.encode())

    def named(*paths: Path, config: object = "config") -> str:
        return store.identity(SimpleNamespace(paths=paths), config)  # pyright: ignore[reportArgumentType]

    assert named(paths[0]) == named(paths[0])
    assert len({named(paths[0]), named(paths[1]), named(*paths), named(paths[0], config="other")}) == 4
    before = named(paths[0])
    paths[0].write_bytes(b"other")
    assert named(paths[0]) != before
