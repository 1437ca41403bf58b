"""How threads share an op: each claims the next of its units until none is left, so a thread that does not run takes none.

A counter is an int64: walk << UNIT_BITS, plus the units claimed in that walk, or all ones once none is left. A kernel's `crew` is
walk << UNIT_BITS, plus the number of threads. A counter that still names an earlier walk counts as zero, so nobody has to reset it. A
thread that comes late finds it used up or with a later walk, and nothing to do, even if what it reads as the total is that of another
walk. For a single call on fresh counters the walk is 0 and `crew` the number of threads.

A thread can be stopped while it computes a piece. So where a piece takes long, it is computed to memory of the thread's own and stored at
the end, and a thread that waits may compute it too (`hold`): whoever first turns HOLDING into STORING stores it. The other throws away
what it has, which may be nonsense by then: the piece's inputs may be overwritten as soon as it is stored.
"""

from __future__ import annotations

from ggpy.kernels.desks import FIRST_SHIFT, HOLDING, LOOKING, MOST_UNITS, OP_SHIFT, STALLED, STALLED_TICKET, STORING
from ggpy.kernels.options import inline
from ggpy.simd.memory import atomic_load, atomic_replace, atomic_store, load_i64, pause

UNIT_BITS = 28
_UNITS = (1 << UNIT_BITS) - 1


@inline
def threads(crew):
    """How many threads share the op."""
    return crew & _UNITS


@inline
def share(left, crew, least, most):
    """Of `left` units, how many to take at a time, `most` at most: all if alone, else large pieces first, smaller ones towards the end."""
    return min(left, most, max(least, left // (2 * threads(crew) - 1)))


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
        found = atomic_replace(counter, seen, walk + (last if last < total else _UNITS))
        if found == seen:
            return first, last
        seen = found


@inline
def hold(desk, counter, crew, total, least, most):
    """`claim` for work that others may do over: (first, last + 1, its ticket, the desk that holds it).

    `desk`: the caller's own, or 0 where threads do not help each other. A caller that is there to help gets what another thread holds.
    """
    stalled = load_i64(desk + STALLED) if desk != 0 else 0
    if stalled != 0:
        ticket = load_i64(desk + STALLED_TICKET)
        first = (ticket >> FIRST_SHIFT) & (MOST_UNITS - 1)
        return first, first + share(max(total - first, 0), crew, least, most), ticket, stalled
    first, last = claim(counter, crew, total, least, most)
    ticket = 0
    if desk != 0 and first < last:
        ticket = load_i64(desk) + (first << FIRST_SHIFT) + (HOLDING - LOOKING)
        atomic_store(desk, ticket)
    return first, last, ticket, desk


@inline
def is_open(holder, ticket):
    """Whether nobody has delivered the piece yet."""
    return holder == 0 or atomic_load(holder) == ticket


@inline
def is_of_this_walk(holder, ticket):
    """Whether what the caller has read so far belongs to the piece, and not, some of it, to a later walk: nobody has delivered it yet."""
    return holder == 0 or atomic_replace(holder, ticket, ticket) == ticket


@inline
def deliver(holder, ticket):
    """Whether the caller is the one to store its piece; `clear` says when that is done."""
    return holder == 0 or atomic_replace(holder, ticket, ticket + (STORING - HOLDING)) == ticket


@inline
def clear(desk, holder, ticket):
    """The piece is stored."""
    if desk != 0:
        atomic_store(holder, ticket - HOLDING if holder != desk else _looking(ticket))


@inline
def give_up(desk, holder, ticket):
    """Another thread delivers the piece: its holder may not go on before that is done."""
    if holder == desk:
        while atomic_load(desk) == ticket + (STORING - HOLDING):
            pause()
        atomic_store(desk, _looking(ticket))


@inline
def _looking(ticket):
    return (ticket >> OP_SHIFT << OP_SHIFT) + LOOKING
