"""Where threads show each other what they are at: layout of a pool's shared state. Imports no numba.

State of a pool, int64 words by byte offset, what is written by different threads on different cache lines:

    ON    twice the number of the latest walk, plus 1 while it is on
    DONE  ops known to be done, as walk << OP_BITS plus their number; written only when a thread is behind, which then goes on from there
    DESKS a desk of DESK_BYTES for each thread

Words of a desk:

    0               ticket: walk << WALK_SHIFT, op << OP_SHIFT, first claimed unit << FIRST_SHIFT, and one of the states
    INSIDE          the walk whose memory its thread reads, or 0
    STALLED         desk of the thread whose work this one does over, or 0
    STALLED_TICKET  the ticket found there

States: AWAY, nothing of this op is held; LOOKING, about to claim a piece; HOLDING a piece, computing it to memory of its own; STORING what
was computed.
"""

from __future__ import annotations

ON, DONE, DESKS = 0, 64, 128
DESK_BYTES, INSIDE, STALLED, STALLED_TICKET = 128, 64, 72, 80
PIECE_BYTES = 4096  # of scratch, at most, for the results of a piece

MEET, HELP, OWN = 1, 2, 4
"""Flags of a tape's row: threads meet after it; what a thread holds of it, another may do over; every thread does all of it for itself."""

ENTRIES = 16
"""Bytes before the experts' entries in a routing table (`experts.py`)."""

FIRST_SHIFT, OP_SHIFT, WALK_SHIFT = 2, 26, 39
OP_BITS = WALK_SHIFT - OP_SHIFT
MOST_UNITS, MOST_OPS = 1 << (OP_SHIFT - FIRST_SHIFT), 1 << OP_BITS
AWAY, LOOKING, HOLDING, STORING = range(4)
STATE = 3
