"""What the machine grants: affinity, cgroup quota, memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ggpy.runtime import host


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cgroup of this process that a test can fill: /outer/inner below a root."""
    inner = tmp_path / "outer/inner"
    inner.mkdir(parents=True)
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    monkeypatch.setattr(host, "_own_cgroups", lambda: (inner, inner.parent, tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return inner


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("max 100000", "max 100000", 8),
        ("150000 100000", "max 100000", 2),
        ("400000 100000", "300000 100000", 3),
        ("50000 100000", "", 1),
        ("1600000 100000", "", 8),
        ("nonsense", "", 8),
    ],
)
def test_threads_are_what_affinity_and_quotas_leave(cgroup: Path, inner: str, outer: str, expected: int):
    (cgroup / "cpu.max").write_text(inner, encoding="ascii")
    if outer:
        (cgroup.parent / "cpu.max").write_text(outer, encoding="ascii")
    assert host.available_threads() == expected


def test_the_older_cgroup_is_read_too(cgroup: Path):
    folder = cgroup.parents[1] / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text("250000", encoding="ascii")
    (folder / "cpu.cfs_period_us").write_text("100000", encoding="ascii")
    assert host.available_threads() == 3


def test_memory_is_what_the_cgroup_leaves(cgroup: Path):
    (cgroup / "memory.max").write_text("1000000", encoding="ascii")
    (cgroup / "memory.current").write_text("400000", encoding="ascii")
    assert host.available_memory() == 600000


def test_this_machine_answers():
    assert 1 <= host.available_threads() <= (os.cpu_count() or 1)
    free = host.available_memory()
    assert free is None or free > 1 << 20
