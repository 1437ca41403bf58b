"""A recorded forward pass laid out in memory as a tape, and its execution."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ggpy.kernels.desks import ENTRIES, HELP, MEET, MOST_OPS, OWN
from ggpy.kernels.segments import SEGMENT_WORDS, partial_bytes
from ggpy.runtime.calls import Buffer, Cache, Call, Inner, Routing, Word
from ggpy.runtime.compiled import KernelName, OnCompile, kernel, prepare
from ggpy.runtime.kv_cache import LINE, KVCache
from ggpy.runtime.lowering import Lowering
from ggpy.runtime.meetings import meetings, own_places, own_results
from ggpy.runtime.parallel import ThreadPool
from ggpy.runtime.recorder import Recorder, Value
from ggpy.runtime.rotary import Rope
from ggpy.runtime.weights import Weight
from ggpy.simd.target import target

TAPE_WORDS = 24
_COUNT, _N_SEGMENTS, _OUTPUT_COUNT = range(3)

Forward = Callable[[Recorder], Value]
"""An architecture's forward pass with weights and config already given: recorder -> logits."""


@dataclass(frozen=True)
class Segment:
    """Tokens (ids) of the sequence in `slot` of the cache, the first at `position`."""

    slot: int
    tokens: Sequence[int] | np.ndarray
    position: int


class Program:
    """One context's forward pass: its tape, its buffers and its KV cache. Not for two threads at once.

    batch: most tokens of one run, of one sequence or several. outputs: most rows of logits computed at a time. fuse=False keeps every op
    and every value apart, each in memory of its own, so that all can be looked at after a run.
    """

    def __init__(self, forward: Forward, cache: KVCache, *, batch: int, outputs: int, pool: ThreadPool, fuse: bool = True,
                 on_compile: OnCompile | None = None):  # fmt: skip
        recorder = Recorder(cache.shape)
        logits = forward(recorder)
        lowered = Lowering(recorder.ops, cache.shape, fuse)
        self.ops, self.calls, self.cache, self.pool = recorder.ops, lowered.calls, cache, pool
        self.batch, self.outputs, self.n_vocab = batch, outputs, logits.width
        self._buffers = lowered.buffers
        assert len(self.calls) < MOST_OPS
        prepare(self.kernels, on_compile)
        self._step = np.zeros(8, np.int64)
        self._tokens, self._output_rows = np.zeros(batch, np.int64), np.zeros(outputs, np.int64)
        self._places = np.zeros((batch, 2), np.int64)  # slot and position of each token
        self._segments = np.zeros((cache.slots, SEGMENT_WORDS), np.int64)
        self._arrivals = np.zeros((cache.slots, cache.shape.n_kv_heads), np.int64)
        heads = max(call.heads for call in self.calls)
        self._partials = _aligned(cache.slots * partial_bytes(heads, cache.shape.head_dim, cache.positions))
        self._ropes = _tables(self.calls, batch)
        tile = target().padded_tokens
        capacity = {False: -(-batch // tile) * tile, True: -(-outputs // tile) * tile}
        self._offsets, size = _plan(self.calls, lowered.buffers[logits], capacity, reuse=fuse)
        self._scratch_bytes = -(-max(call.scratch for call in self.calls) // LINE) * LINE + LINE
        self._split = next(i for i, call in enumerate(self.calls) if call.op is not None and call.op.name == "outputs")
        own = own_results(self.calls, self._offsets, self._split)
        own_offsets, self._own_bytes = own_places(self.calls, own, meetings(self.calls, self._offsets, self._split, own))
        self._arena = _aligned(size + (self._scratch_bytes + self._own_bytes) * pool.threads)
        self._scratch = self._arena.ctypes.data + size
        self._own = self._scratch + self._scratch_bytes * pool.threads
        self._counters = np.zeros((len(self.calls), LINE // 8), np.int64)
        self._routings = {
            word.routing: RoutingMemory(word.routing, capacity[False])
            for call in self.calls
            for word in call.words
            if isinstance(word, Word) and word.routing is not None
        }
        self._inner: list[np.ndarray] = []  # words and counters of kernels that run for each expert
        self._tape, self._single_tape = self._assemble({}), self._assemble(own_offsets)
        self._logits = self.values(logits, outputs)
        weakref.finalize(self, pool.settle)  # a helper may still be reading what the program holds

    def run(self, tokens: Sequence[int] | np.ndarray, position: int, n_outputs: int, out: np.ndarray | None = None) -> np.ndarray:
        """Process `tokens` (1 … batch ids) of the sequence in slot 0 at `position`; logits of the last `n_outputs` of them, returned as
        `run_segments` does."""
        return self.run_segments([Segment(0, tokens, position)], range(len(tokens) - n_outputs, len(tokens)), out)

    def run_segments(self, segments: Sequence[Segment], rows: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Process the tokens of all segments (1 … batch in all, each slot at most once) together; logits of those that `rows` names,
        counted through all segments: float32 (len(rows), n_vocab).

        The array is `out`, if given, else for at most `outputs` rows a view that the next run overwrites.
        """
        n = self._enter(segments)
        assert all(0 <= row < n for row in rows)
        if not len(rows):
            self.pool.walk(self._tape, self._split)
        if out is None:
            out = self._logits[: len(rows)] if len(rows) <= self.outputs else np.empty((len(rows), self.n_vocab), np.float32)
        for first in range(0, len(rows), self.outputs):
            part = rows[first : first + self.outputs]
            self._output_rows[: len(part)] = part
            self._step[_OUTPUT_COUNT] = len(part)
            tape = self._tape if n > 1 else self._single_tape
            self.pool.walk(tape[self._split :] if first else tape)
            if out.base is not self._logits.base:
                out[first : first + len(part)] = self._logits[: len(part)]
        return out

    def run_again(self, first: int, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The last run once more from call `first` on: only with fuse=False, which keeps the values of the calls before it. rows: at most
        `outputs`, as of `run_segments`; the logits are a view that the next run overwrites."""
        assert len(rows) <= self.outputs
        self._output_rows[: len(rows)] = rows
        self._step[_OUTPUT_COUNT] = len(rows)
        self.pool.walk(self._tape[first:])
        return self._logits[: len(rows)]

    def first_call(self, data: np.ndarray) -> int | None:
        """The number of the first call to repeat when weights that lie in `data` change; None where no call reads any."""
        group = 0
        for i, call in enumerate(self.calls):
            if call.kernel == ("experts", "group"):  # what a mixture's calls share is made here, again for every layer
                group = i
            inner = [step.word for word in call.words if isinstance(word, Inner) for step in word.steps]
            for words, place in ((call.words, i), (inner, group)):
                if any(isinstance(word, Weight) and np.may_share_memory(word.data, data) for word in words):
                    return place
        return None

    def _enter(self, segments: Sequence[Segment]) -> int:
        """Put the segments where kernels read them; the number of tokens."""
        assert len({segment.slot for segment in segments}) == len(segments)
        n = 0
        for i, segment in enumerate(segments):
            count, position = len(segment.tokens), segment.position
            assert count > 0 and position >= 0 and position + count <= self.cache.positions and n + count <= self.batch
            self._segments[i] = segment.slot, n, count, position
            self._tokens[n : n + count] = segment.tokens
            self._places[n : n + count, 0] = segment.slot
            self._places[n : n + count, 1] = np.arange(position, position + count)
            n += count
        for rope, (cosines, sines) in self._ropes.items():
            cosines[:n], sines[:n] = rope.tables(self._places[:n, 1])
        self._step[_COUNT], self._step[_N_SEGMENTS] = n, len(segments)
        return n

    def values(self, value: Value, count: int) -> np.ndarray:
        """What the last run left in a value's buffer: a view, float32 (count, width). Only without reuse is every value still there."""
        offset = self._offsets[self._buffers[value]]
        return self._arena[offset : offset + 4 * value.width * count].view(np.float32).reshape(count, value.width)

    def is_materialised(self, value: Value) -> bool:
        """Whether the value has a buffer of its own, not melted into another op."""
        return value in self._buffers

    @property
    def kernels(self) -> tuple[KernelName, ...]:
        """The kernels chosen, in the order of first use."""
        return tuple(dict.fromkeys(name for call in self.calls for name in (call.kernel, call.inner) if name is not None))

    @property
    def n_bytes(self) -> int:
        """Memory held beside the mapped weights and the KV cache."""
        return self._arena.nbytes + self._partials.nbytes + self._tape.nbytes + self._single_tape.nbytes + self._counters.nbytes

    def _assemble(self, own: dict[Buffer, int]) -> np.ndarray:
        """The tape, with the offsets of what each thread has its own of."""
        tape = np.zeros((len(self.calls), TAPE_WORDS), np.int64)
        for i, (call, meet) in enumerate(zip(self.calls, meetings(self.calls, self._offsets, self._split, own), strict=True)):
            is_own = call.can_be_own and call.writes[0] in own
            tape[i, 0], tape[i, 1] = kernel(*call.kernel), MEET * meet + HELP * (call.kernel[1] in ("linear", "attention")) + OWN * is_own
            for j, word in enumerate(call.words):
                tape[i, 2 + j] = self._resolve(word, i, own)
        return tape

    def _resolve(self, word: object, call: int, own: dict[Buffer, int]) -> int:
        match word:
            case bool() | int():
                return int(word)
            case float():
                return int(np.float32(word).view(np.uint32))
            case Weight():
                return word.address
            case np.ndarray():
                return word.ctypes.data
            case Buffer():
                offset = own.get(word)
                return self._own + offset if offset is not None else self._arena.ctypes.data + self._offsets[word]
            case Cache(layer, part):
                return getattr(self.cache, part)[layer].ctypes.data
            case (str(module), str(name)):
                return kernel(module, name)
            case Inner():
                found = [(self._resolve(s.word, call, own), s.expert, s.slot, s.active) for s in word.steps]
                self._inner.append(np.array(found, np.int64))
                return self._inner[-1].ctypes.data
            case Word("own"):
                return self._own_bytes if word.buffer in own else 0
            case Word():
                return self._resolve_word(word, call)
        raise TypeError(f"no kernel word can hold {word!r}")

    def _resolve_word(self, word: Word, call: int) -> int:
        step = self._step.ctypes.data
        match word.kind:
            case "count":
                return step + 8 * (_OUTPUT_COUNT if word.of_outputs else _COUNT)
            case "n_segments":
                return step + 8 * _N_SEGMENTS
            case "segments":
                return self._segments.ctypes.data
            case "tokens":
                return self._tokens.ctypes.data
            case "places":
                return self._places.ctypes.data
            case "output_rows":
                return self._output_rows.ctypes.data
            case "partials":
                return self._partials.ctypes.data
            case "arrivals":
                return self._arrivals.ctypes.data
            case "cosines" | "sines":
                assert word.rope is not None
                return self._ropes[word.rope][word.kind == "sines"].ctypes.data
            case "routing" | "slots" | "slot_tokens" | "counts":
                assert word.routing is not None
                return self._routings[word.routing].address(word.kind)
            case "counters":
                assert word.routing is not None
                self._inner.append(np.zeros((word.routing.n_experts, LINE // 8), np.int64))
                return self._inner[-1].ctypes.data
            case "positions":
                return self.cache.positions
            case "counter":
                return self._counters[call].ctypes.data
            case "desks":
                return self.pool.desks
            case "scratch":
                return self._scratch
            case "scratch_bytes":
                return self._scratch_bytes
        raise ValueError(f"unknown word {word.kind!r}")


class RoutingMemory:
    """Where a `Routing` of at most `capacity` tokens is kept."""

    def __init__(self, routing: Routing, capacity: int):
        most = capacity * routing.n_used
        rows = most + routing.n_experts * (target().padded_tokens - 1)
        sizes = {"routing": ENTRIES // 8 + 4 * routing.n_experts, "slots": most, "slot_tokens": rows}
        self._parts = {kind: np.zeros(size, np.int64) for kind, size in sizes.items()}

    def address(self, kind: str) -> int:
        """Of "routing", "slots", "slot_tokens" or "counts"."""
        if kind == "counts":
            return self._parts["routing"].ctypes.data + ENTRIES + 16
        return self._parts[kind].ctypes.data


def _aligned(size: int) -> np.ndarray:
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size]


def _tables(calls: Sequence[Call], batch: int) -> dict[Rope, tuple[np.ndarray, np.ndarray]]:
    """(cosines, sines) of a batch for every rotary setting in use."""
    ropes = {word.rope for call in calls for word in call.words if isinstance(word, Word) and word.rope is not None}
    return {rope: (np.zeros((batch, rope.n_rot // 2), np.float32), np.zeros((batch, rope.n_rot // 2), np.float32)) for rope in ropes}


def _plan(calls: Sequence[Call], logits: Buffer, capacity: dict[bool, int], *, reuse: bool) -> tuple[dict[Buffer, int], int]:
    """(offset of each buffer, bytes in all). A buffer's place is free for others after its last use; what the logits' part reads from
    before stays, since that part may run several times."""
    last: dict[Buffer, int] = {}
    split = next(i for i, call in enumerate(calls) if call.op is not None and call.op.name == "outputs")
    for i, call in enumerate(calls):
        for buffer in (*call.reads, *call.writes):
            if isinstance(buffer, Buffer):
                last[buffer] = len(calls) if i >= split and not buffer.of_outputs else i
    last[logits] = len(calls)
    for call in calls:
        if call.can_be_own:  # threads that make it for themselves read what it is made of as long as others read the result
            until = max(last[b] for b in call.writes if isinstance(b, Buffer))
            last |= {b: max(last[b], until) for b in call.reads if isinstance(b, Buffer)}
    ending: dict[int, list[Buffer]] = defaultdict(list)
    for buffer, i in last.items():
        ending[i].append(buffer)
    places: dict[Buffer, int] = {}
    free: list[tuple[int, int]] = []  # (bytes, offset)
    sizes: dict[Buffer, int] = {}
    end = 0
    for i, call in enumerate(calls):
        for buffer in call.writes:
            if not isinstance(buffer, Buffer) or buffer in places:
                continue
            size = -(-(buffer.bytes_per_token * capacity[buffer.of_outputs] + buffer.more_bytes) // LINE) * LINE
            fitting = [slot for slot in free if slot[0] >= size]
            if fitting:
                slot = min(fitting)
                free.remove(slot)
                sizes[buffer], places[buffer] = slot
            else:
                sizes[buffer], places[buffer] = size, end
                end += size
        if reuse:
            free += [(sizes[buffer], places[buffer]) for buffer in ending[i]]
    return places, end
