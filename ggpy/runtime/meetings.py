"""After which calls of a tape the threads must meet, and what each does for itself, of a single token, so that they need not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ggpy.runtime.calls import Buffer, Call
from ggpy.runtime.kv_cache import LINE


def meetings(calls: Sequence[Call], places: Mapping[Buffer, int], split: int, own: Collection[Buffer] = ()) -> list[bool]:
    """Whether threads meet after each call: before one that reads or overwrites what another thread may still be at work on.

    places: where each buffer lies. split: number of the call before which the tape is divided. own: what each thread has one of.
    """

    def place(thing: object) -> object:
        return places[thing] if isinstance(thing, Buffer) else thing

    meet = [False] * len(calls)
    reading: set[object] = set()
    writing: set[object] = set()
    for i, call in enumerate(calls):
        reads, writes = ({place(b) for b in things if b not in own} for things in (call.reads, call.writes))
        if reads & writing or writes & (reading | writing):
            meet[i - 1] = True
            reading, writing = set(), set()
        reading |= reads
        writing |= writes
    meet[split - 1] = meet[-1] = True
    return meet


def own_results(calls: Sequence[Call], places: Mapping[Buffer, int], split: int) -> set[Buffer]:
    """Buffers of which, for a single token, each thread may have its own: only products read them, and all before the next meeting."""
    made = {call.writes[0]: i for i, call in enumerate(calls) if call.can_be_own}
    last = {thing: i for i, call in enumerate(calls) for thing in call.reads}
    own = {b for b in made if isinstance(b, Buffer)}.difference(*(call.reads for call in calls if call.kernel[1] != "linear"))
    while True:
        meet = meetings(calls, places, split, own)
        kept = {b for b in own if not any(meet[made[b] : last[b]])}
        if kept == own:
            return own
        own = kept


def own_places(calls: Sequence[Call], own: Collection[Buffer], meet: Sequence[bool]) -> tuple[dict[Buffer, int], int]:
    """(offset of each in a thread's own memory, bytes of that): free for others from the next meeting on."""
    places: dict[Buffer, int] = {}
    end = size = 0
    for call, met in zip(calls, meet, strict=True):
        for buffer in call.writes:
            if isinstance(buffer, Buffer) and buffer in own:
                places[buffer] = end
                end += -(-buffer.bytes_per_token // LINE) * LINE
        size = max(size, end)
        if met:
            end = 0
    return places, size
