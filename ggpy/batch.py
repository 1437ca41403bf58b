"""Several sequences in one pass: each weight is read once for all of them, and a common beginning is evaluated once.

Ids in, logits out, as in `generate.py`. What is queued for the sequences, prompts or single tokens, is evaluated together: a prompt may
share its passes with sequences that are being continued.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ggpy.errors import ContextError, GGPyError, ModelError
from ggpy.generate import BATCH, Alone, Generator, Network, check_ids, check_memory, common_prefix
from ggpy.runtime.compiled import OnCompile
from ggpy.runtime.kv_cache import KVCache
from ggpy.runtime.parallel import ThreadPool
from ggpy.runtime.program import Program, Segment

WORTH_WAITING = (
    16  # tokens: a beginning that another sequence is about to evaluate is waited for, if it is longer by this than what is there
)


class _Sequence:
    """What a slot of the cache holds. ids: evaluated tokens, then queued ones from `done` on. number: of the addition, None if removed."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.done = self.cached = self.used = 0
        self.number: int | None = None
        self.is_placed = True

    @property
    def queued(self) -> int:
        return len(self.ids) - self.done


class BatchGenerator:
    """Up to `slots` sequences of at most `context` tokens each and their KV cache, for one thread at a time.

    `add` a prompt, `step` until its logits come, `append` the token chosen, `step` again; `remove` what is finished. What was removed stays
    in the cache until its slot is needed: a prompt that begins like any sequence there is evaluated from the first difference on.
    batch: most tokens of one pass. ModelError if the cache would not fit into the memory that is free.
    """

    def __init__(
        self, network: Network, context: int, slots: int, *, threads: int, batch: int = BATCH, on_compile: OnCompile | None = None
    ):
        if context < 1 or slots < 1 or threads < 1 or batch < 1:
            raise ValueError(f"context {context}, slots {slots}, threads {threads} and batch {batch} must be at least 1")
        check_memory(network, context, slots)
        self.network, self.context, self.slots = network, context, slots
        self._pool = ThreadPool(threads)
        cache = KVCache(network.shape, context, slots)
        batch = max(slots, min(batch, context * slots))
        self._program = Program(network.forward, cache, batch=batch, outputs=slots, pool=self._pool, on_compile=on_compile)
        self._sequences = [_Sequence() for _ in range(slots)]
        self._added = 0
        self._alone = Alone("BatchGenerator")

    @property
    def program(self) -> Program:
        """The recorded forward pass: its kernels and buffers, to be looked at."""
        return self._program

    @property
    def free_slots(self) -> int:
        """How many more sequences can be added."""
        return sum(sequence.number is None for sequence in self._sequences)

    def ids(self, slot: int) -> tuple[int, ...]:
        """The tokens of a sequence, evaluated or queued."""
        return tuple(self._at_work(slot).ids)

    def cached_tokens(self, slot: int) -> int:
        """How many tokens of a sequence's prompt were in the cache, or copied from another sequence; known after its first pass."""
        return self._at_work(slot).cached

    def close(self) -> None:
        """End the helper threads; memory goes with the last reference."""
        self._pool.close()

    def add(self, ids: Sequence[int], like: Generator | None = None) -> int:
        """Queue a prompt as a new sequence; returns its slot.

        like: a generator whose cache may hold the prompt's beginning. ValueError for no ids or one out of range; ContextError if they do
        not fit; GGPyError if no slot is free.
        """
        check_ids(ids, self.network, self.context)
        with self._alone:
            slot = self._free_slot(ids)
            sequence = self._sequences[slot]
            kept = common_prefix(sequence.ids[: sequence.done], ids)
            if like is not None:
                shared = min(like.shared_prefix(ids), len(ids) - 1)
                if shared > kept:
                    sequence.done = 0
                    self._program.cache.copy(like.program.cache, 0, slot, shared)
                    kept = shared if like.shared_prefix(ids) >= shared else 0  # it may be at work in another thread
            sequence.ids, sequence.done = [int(i) for i in ids], min(kept, len(ids) - 1)
            self._added += 1
            sequence.number, sequence.is_placed, sequence.cached = self._added, False, sequence.done
            return slot

    def append(self, slot: int, token: int) -> None:
        """Queue one token behind a sequence. ContextError if the sequence is full."""
        with self._alone:
            sequence = self._at_work(slot)
            if len(sequence.ids) >= self.context:
                raise ContextError(f"the context of {self.context} tokens is full")
            check_ids([token], self.network, self.context)
            sequence.ids.append(int(token))

    def remove(self, slot: int) -> None:
        """Give the slot of a sequence free."""
        with self._alone:
            sequence = self._at_work(slot)
            del sequence.ids[sequence.done :]
            sequence.number = None
            self._added += 1
            sequence.used = self._added

    def step(self) -> dict[int, np.ndarray]:
        """One pass over what is queued, as much as fits: single tokens first, then prompts in the order they were added.

        Returns, by slot, the logits after the last token of each sequence that has nothing queued any more: float32 (n_vocab,),
        overwritten by the next pass. Empty if a prompt needs more passes, or nothing was queued. ModelError if logits are not finite; all
        sequences are empty then.
        """
        with self._alone:
            self.network.check_unchanged()
            parts = self._next_parts()
            if not parts:
                return {}
            segments = [Segment(slot, (s := self._sequences[slot]).ids[s.done : s.done + count], s.done) for slot, count in parts]
            ends = np.cumsum([count for _, count in parts]) - 1
            finished = [(slot, int(end)) for (slot, count), end in zip(parts, ends, strict=True) if count == self._sequences[slot].queued]
            logits = self._program.run_segments(segments, [end for _, end in finished])
            for slot, count in parts:
                self._sequences[slot].done += count
            self._check_finite(logits)
            return {slot: row for (slot, _), row in zip(finished, logits, strict=True)}

    def _at_work(self, slot: int) -> _Sequence:
        if not 0 <= slot < self.slots or self._sequences[slot].number is None:
            raise ValueError(f"slot {slot} holds no sequence")
        return self._sequences[slot]

    def _free_slot(self, ids: Sequence[int]) -> int:
        """A free slot that holds a beginning of `ids` and little more, else the one that was free for longest."""
        free = [slot for slot, sequence in enumerate(self._sequences) if sequence.number is None]
        if not free:
            raise GGPyError(f"all {self.slots} slots of this BatchGenerator are at work; remove a sequence first")

        def would_be_lost(slot: int) -> int:
            kept = self._sequences[slot].ids
            return len(kept) - common_prefix(kept, ids)

        oldest = min(free, key=lambda slot: self._sequences[slot].used)
        best = max(free, key=lambda slot: common_prefix(self._sequences[slot].ids, ids))
        return best if would_be_lost(best) <= would_be_lost(oldest) else oldest

    def _next_parts(self) -> list[tuple[int, int]]:
        """(slot, tokens) to evaluate next."""
        room, parts = self._program.batch, []
        waiting = [slot for slot, sequence in enumerate(self._sequences) if sequence.number is not None and sequence.queued]
        for slot in sorted(waiting, key=lambda slot: (self._sequences[slot].queued > 1, self._sequences[slot].number)):
            sequence = self._sequences[slot]
            if not sequence.is_placed and not self._place(slot):
                continue
            if room:
                parts.append((slot, min(sequence.queued, room)))
                room -= parts[-1][1]
        return parts

    def _place(self, slot: int) -> bool:
        """Before a prompt's first pass: copy what another slot has of its beginning. False if one added earlier will soon have more."""
        sequence = self._sequences[slot]
        source, most, coming = slot, sequence.done, 0
        for other, candidate in enumerate(self._sequences):
            shared = min(common_prefix(candidate.ids, sequence.ids), len(sequence.ids) - 1)
            if min(shared, candidate.done) > most:
                source, most = other, min(shared, candidate.done)
            if candidate.number is not None and candidate.number < (sequence.number or 0):
                coming = max(coming, shared)
        if coming >= most + WORTH_WAITING:
            return False
        if source != slot:
            self._program.cache.copy(self._program.cache, source, slot, most)
        sequence.done = sequence.cached = most
        sequence.is_placed = True
        return True

    def _check_finite(self, logits: np.ndarray) -> None:
        if not np.isfinite(logits.sum(dtype=np.float64)):
            for sequence in self._sequences:
                sequence.ids.clear()
                sequence.done = 0
            raise ModelError(f"{self.network.name}: logits are not finite; {self.network.describe_fault()}")
