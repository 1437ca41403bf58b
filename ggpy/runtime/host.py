"""What the machine grants this process: processors and memory, cgroup limits included."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_threads() -> int:
    """Threads worth starting: the processors this process may run on, less what a cgroup quota takes away; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(count, math.ceil(quota))) if quota else max(1, count)


def _cpu_quota() -> float | None:
    """Processors' worth of time per second that cgroup v2 or v1 grants, the strictest on the way up; None: no limit."""
    quotas = []
    for folder in _own_cgroups():
        match _words(folder / "cpu.max"):
            case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
                quotas.append(int(quota) / int(period))
    quota, period = _words(_CGROUP / "cpu/cpu.cfs_quota_us"), _words(_CGROUP / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        quotas.append(int(quota[0]) / int(period[0]))
    return min(quotas, default=None)


def available_memory() -> int | None:
    """Bytes that can still be allocated without swapping, cgroup limits included; None where the system does not say."""
    limits = []
    for line in _words_by_line(Path("/proc/meminfo")):
        if line[0] == "MemAvailable:":
            limits.append(int(line[1]) * 1024)
    for folder in _own_cgroups():
        match _words(folder / "memory.max"), _words(folder / "memory.current"):
            case [limit], [used] if limit.isdigit() and used.isdigit():
                limits.append(max(0, int(limit) - int(used)))
    return min(limits, default=None)


@functools.cache
def _own_cgroups() -> tuple[Path, ...]:
    """This process's cgroup v2 folder and its parents, as far as they are visible."""
    for line in _words_by_line(Path("/proc/self/cgroup")):
        if line[0].startswith("0::"):
            own = _CGROUP / line[0][3:].lstrip("/")
            return (*(p for p in (own, *own.parents) if p.is_relative_to(_CGROUP)),)
    return (_CGROUP,)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _words_by_line(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines() if line.strip()]
    except OSError:
        return []
