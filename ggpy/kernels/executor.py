"""What each thread runs: walk the tape, call its kernels, and where an op needs all of the one before, wait for that work to be done.

A tape is int64 rows of 24 words: [kernel address, flags, the kernel's words …]. Threads meet after an op with the flag MEET and after the
last. Who comes to a meeting has found nothing left to claim; it waits for those that show at their desks (`desks.py`) that they still hold
a piece of the work, not for those that are elsewhere: a thread that the machine has stopped delays nobody unless it holds a piece. A
piece of an op with the flag HELP is then done over by who waits. An op with the flag OWN is done by every thread for itself, so nobody
waits for it.

A walk is over when its last op is done. A thread may come out of it later, even during the next walk: all counters that it knows are used
up by then, so it touches nothing; but it reads, so memory may only be freed after `ThreadPool.settle`.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from ggpy.kernels.claims import UNIT_BITS
from ggpy.kernels.desks import (
    AWAY,
    DESK_BYTES,
    DESKS,
    DONE,
    HELP,
    HOLDING,
    INSIDE,
    LOOKING,
    MEET,
    ON,
    OP_BITS,
    OP_SHIFT,
    OWN,
    STALLED,
    STALLED_TICKET,
    STATE,
    WALK_SHIFT,
)
from ggpy.kernels.options import inline, kernel
from ggpy.simd.memory import I64, atomic_add, atomic_load, atomic_store, load_i64, pause, store_i64
from ggpy.simd.vectors import intrinsic

TAPE_BYTES = 24 * 8

# In pauses of 15 to 40 ns. A thread that is running delivers its piece well within the first; an idle one waits for the next token
# about as long as a sampler takes, and then sleeps.
PATIENCE = 800
SPINS = 4000
IDLE_SPINS = 6000


@intrinsic
def call_kernel(typing, address, args, ith, crew):
    def code(context, builder, signature, arguments):
        function = ir.FunctionType(ir.VoidType(), [I64, I64, I64])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), code


@intrinsic
def _call_yield(typing, address):
    """Call the C function `int sched_yield(void)` whose address Python hands in: kernels themselves link to nothing."""

    def code(context, builder, signature, arguments):
        function = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.intp), code


@inline
def _wait_for(desk, low, high, tape, own, ith, crew, give_way):
    """Until the thread at `desk` holds nothing of the ops from ticket `low` to before `high`. Whether it has yet to come there."""
    spins = 0
    while True:
        ticket = atomic_load(desk)
        if ticket - low < 0:
            return True
        if ticket - high >= 0 or ticket & STATE == AWAY:
            return False
        spins += 1
        if spins >= PATIENCE and ticket & STATE == HOLDING:
            row = tape + ((ticket - low) >> OP_SHIFT) * TAPE_BYTES
            if load_i64(row + 8) & HELP:
                store_i64(own + STALLED, desk)
                store_i64(own + STALLED_TICKET, ticket)
                call_kernel(load_i64(row), row + 16, ith, crew)
                store_i64(own + STALLED, 0)
                continue
        if spins > SPINS:
            _call_yield(give_way)
        else:
            pause()


@inline
def _walk(tape, count, walk, state, give_way, ith, nth):
    crew, base = (walk << UNIT_BITS) + nth, walk << WALK_SHIFT
    desks = state + DESKS
    own = desks + ith * DESK_BYTES
    i = first = 0
    while i < count:
        row = tape + i * TAPE_BYTES
        flags = load_i64(row + 8)
        if nth > 1:
            atomic_store(own, base + (i << OP_SHIFT) + (AWAY if flags & OWN else LOOKING))
        call_kernel(load_i64(row), row + 16, ith, crew)
        i += 1
        if nth > 1 and (flags & MEET or i == count):
            low, high = base + (first << OP_SHIFT), base + (i << OP_SHIFT)
            atomic_store(own, high - (1 << OP_SHIFT))
            behind = False
            for other in range(nth):
                if other != ith:
                    desk = desks + other * DESK_BYTES
                    behind |= _wait_for(desk, low, high, tape + first * TAPE_BYTES, own, ith, crew, give_way)
            here = (walk << OP_BITS) + i
            ahead = atomic_load(state + DONE) - here
            if behind and ahead < 0:
                atomic_store(state + DONE, here)
            i = first = min(count, i + max(ahead, 0))


@inline
def _lead(words, state, give_way, nth):
    """The caller's part of a walk, which may be all of it."""
    walk = load_i64(words + 32)
    atomic_store(state + ON, 2 * walk + 1)
    _walk(load_i64(words), load_i64(words + 8), walk, state, give_way, 0, nth)
    atomic_add(state + ON, -1)


@inline
def _follow(words, state, give_way, ith, nth):
    """A helper's part of walks, until none has come for a while."""
    desk = state + DESKS + ith * DESK_BYTES
    joined, idle = 0, 0
    while idle < IDLE_SPINS:
        on = atomic_load(state + ON)
        if on & 1 == 0 or on == joined:
            pause()
            idle += 1
            continue
        atomic_add(desk + INSIDE, on)  # before the next look: `settle` ends the walk first and then looks here
        tape, count = atomic_load(words), atomic_load(words + 8)
        if atomic_load(state + ON) == on:  # so these are its words
            _walk(tape, count, on >> 1, state, give_way, ith, nth)
            joined, idle = on, 0
        atomic_add(desk + INSIDE, -on)


@kernel
def run(args, ith, nth):
    """words: tape address, number of ops, state address, address of sched_yield, number of the latest walk.

    On thread 0, which alone changes the words: walk the tape. On others: take part in such walks, until none has come for a while.
    """
    state, give_way = load_i64(args + 16), load_i64(args + 24)
    if ith == 0:
        _lead(args, state, give_way, nth)
    else:
        _follow(args, state, give_way, ith, nth)
