"""What a lowered forward pass is made of: calls of kernels, and the words they take."""

from __future__ import annotations

from dataclasses import dataclass

from ggpy.runtime.compiled import KernelName
from ggpy.runtime.recorder import Op
from ggpy.runtime.rotary import Rope


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory for one value, or for its activations, of a batch; `of_outputs` as in Value. more_bytes: beside those of tokens; row_bytes: of
    a slot, where experts have several of a token."""

    bytes_per_token: int
    of_outputs: bool
    more_bytes: int = 0
    row_bytes: int = 0


@dataclass(frozen=True)
class Cache:
    """A word: the address of a layer's "keys" or "values" in the KV cache."""

    layer: int
    part: str


@dataclass(frozen=True)
class Routing:
    """Which tokens go to which of `n_experts` experts, `n_used` of them each; as `kernels/experts.py` keeps it."""

    n_experts: int
    n_used: int


@dataclass(frozen=True)
class Word:
    """A word known only when the program is laid out.

    kind: "count" (address of the number of rows), "tokens" (the ids), "places" (slot and position of each token), "segments", "n_segments"
    (address of their number), "output_rows" (their numbers), "cosines", "sines" (of `rope`), "positions" (in a slot of the cache),
    "partials", "arrivals" (of `attention`), "counter" (of claims), "scratch", "scratch_bytes", "desks" (of the threads), "own"
    (bytes from one thread's own `buffer` to the next, 0 where all share it); and of `routing`: "routing" (the table), "slots",
    "slot_tokens", "counts" (of the first expert's slots), "counters" (of claims, one for each expert).
    """

    kind: str
    rope: Rope | None = None
    of_outputs: bool = False
    buffer: Buffer | None = None
    routing: Routing | None = None


@dataclass(frozen=True)
class Step:
    """A word of a kernel that runs once for each expert, and what is added to it: times the expert's number, its first slot, and the number
    of experts with tokens before it."""

    word: object
    expert: int = 0
    slot: int = 0
    active: int = 0


@dataclass(frozen=True, eq=False)
class Inner:
    """A word: the address of such a kernel's words."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel call. words: integers, floats (passed as float32 bits), addresses of the kinds above. scratch: bytes per thread;
    heads: of attention, whose partial results they decide; can_be_own: of one token, every thread can do it for itself, as long as only
    products read it; inner: the kernel that it calls."""

    kernel: KernelName
    words: tuple[object, ...]
    reads: tuple[object, ...]
    writes: tuple[object, ...]
    scratch: int = 0
    op: Op | None = None
    heads: int = 0
    can_be_own: bool = False
    inner: KernelName | None = None
