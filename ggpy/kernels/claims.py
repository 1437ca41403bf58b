"""How threads share an op: each claims the next of its units until none is left, so a thread that does not run takes none.

A counter is an int64: walk << UNIT_BITS, plus the units claimed in that walk. A kernel's `crew` is walk << UNIT_BITS, plus the number of
threads. A counter that still names an earlier walk counts as zero, so nobody has to reset it; one that names a later walk counts as
used up, so a thread that comes late finds nothing to do. For a single call on fresh counters the walk is 0 and `crew` the number of
threads.
"""

from __future__ import annotations

from ggpy.kernels.options import inline
from ggpy.simd.memory import atomic_load, atomic_replace

UNIT_BITS = 28
_UNITS = (1 << UNIT_BITS) - 1


@inline
def share(left, crew, least, most):
    """Of `left` units, how many to take at a time: all if alone, else large pieces first and smaller ones towards the end."""
    return min(left, max(least, min(most, left // (2 * (crew & _UNITS) - 1))))


@inline
def claim(counter, crew, total, least, most):
    """(first, last + 1) of the units of `total` that are the caller's now, `least` to `most` of them; two equal numbers if none is left."""
    walk = crew & ~_UNITS
    seen = atomic_load(counter)
    while True:
        first = max(seen - walk, 0)
        if first >= total:
            return total, total
        last = first + share(total - first, crew, least, most)
        found = atomic_replace(counter, seen, walk + last)
        if found == seen:
            return first, last
        seen = found
