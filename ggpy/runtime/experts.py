"""A mixture of experts as kernel calls: tokens are grouped by expert, then ordinary kernels run once for each expert that has any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ggpy.kernels.desks import PIECE_BYTES
from ggpy.kernels.kinds import activation_bytes, activation_kind, scratch_bytes
from ggpy.runtime.calls import Buffer, Call, Inner, Routing, Step, Word
from ggpy.runtime.compiled import KernelName
from ggpy.runtime.kv_cache import LINE
from ggpy.runtime.recorder import Op
from ggpy.runtime.weights import Weight
from ggpy.simd.target import target

_WORDS_BYTES = 8 * 18  # of a kernel, at most


@dataclass(frozen=True)
class Experts:
    """The calls of one `experts` op. number: of the op among its like, from 1 on. x, routes, out: buffers of its inputs and output.

    total: the sum that takes the result, whose buffer `out` then is; added: its other term.
    """

    op: Op
    number: int
    x: Buffer
    routes: Buffer
    out: Buffer
    total: Op | None = None
    added: Buffer | None = None

    @property
    def routing(self) -> Routing:
        x, routes = self.op.inputs
        return Routing(self.op.params["weights"][2].rows // x.width, routes.width // 2)

    def calls(self) -> list[Call]:
        """In order."""
        x, routing = self.op.inputs[0], self.routing
        gate, up, down = self.op.params["weights"]
        count, counter = Word("count", of_outputs=x.of_outputs), Word("counter")
        slots, tokens = Word("slots", routing=routing), Word("slot_tokens", routing=routing)
        words = (self.routes, routing.n_experts, routing.n_used, count, Word("routing", routing=routing), self.number, slots, tokens,
                 target().padded_tokens, counter)  # fmt: skip
        made = [Call(("experts", "group"), words, (self.routes,), (routing,))]
        products: list[Buffer] = []
        sources: dict[str, Buffer] = {}
        for weight in (gate, up):
            kind = activation_kind(weight.format.name)
            if kind not in sources:
                sources[kind] = self._rows(activation_bytes(kind, x.width))
                taken = [self.x, *self._moved(sources[kind]), x.width, *self._shared, 0, Step(tokens, slot=8)]
                made.append(self._each(("activations", f"{kind}_taken"), taken, [self.x], sources[kind]))
            products.append(self._rows(4 * (weight.rows // routing.n_experts)))
            made.append(self._linear(weight, sources[kind], products[-1]))
        kind = activation_kind(down.format.name)
        hidden = self._rows(activation_bytes(kind, down.cols))
        count_of, counter_of = self._shared
        silu = [*self._moved(*products, hidden), down.cols, count_of, Word("scratch"), Word("scratch_bytes"), counter_of, 0]
        made.append(self._each(("pointwise", f"silu_mul_{kind}"), silu, products, hidden, 4 * down.cols))
        results = self._rows(4 * x.width)
        made.append(self._linear(down, hidden, results))
        added = () if self.added is None else (self.added,)
        words = (results, self.routes, self.out, x.width, routing.n_used, count, slots, counter, self.added or 0)
        return [*made, Call(("experts", "mix"), words, (results, self.routes, routing, *added), (self.out,), op=self.total or self.op)]

    def _rows(self, row_bytes: int) -> Buffer:
        """Memory for a row in each slot."""
        routing = self.routing
        room = routing.n_experts * (target().padded_tokens - 1)
        return Buffer(row_bytes * routing.n_used, self.op.inputs[0].of_outputs, room * row_bytes, row_bytes)

    @property
    def _shared(self) -> tuple[Step, Step]:
        """(address of an expert's count of slots, address of its claim counter)."""
        counts = Word("counts", routing=self.routing)
        return Step(counts, active=24), Step(Word("counters", routing=self.routing), active=LINE)

    @staticmethod
    def _moved(*buffers: Buffer) -> list[Step]:
        return [Step(buffer, slot=buffer.row_bytes) for buffer in buffers]

    def _linear(self, weight: Weight, source: Buffer, out: Buffer) -> Call:
        n_rows, (count, counter) = weight.rows // self.routing.n_experts, self._shared
        words = [Step(weight, expert=n_rows * weight.row_bytes), weight.row_bytes, n_rows, weight.cols, *self._moved(source, out),
                 4 * n_rows, count, counter, Word("scratch"), Word("scratch_bytes"), 0, 0, 0, 0]  # fmt: skip
        scratch = max(PIECE_BYTES, scratch_bytes(weight.format.name, weight.cols, target().tile_tokens))
        return self._each((weight.format.name.lower(), "linear"), words, [source], out, scratch)

    def _each(self, kernel: KernelName, words: Sequence[object], reads: Sequence[Buffer], out: Buffer, scratch: int = 0) -> Call:
        steps = tuple(word if isinstance(word, Step) else Step(word) for word in words)
        at = -(-scratch // LINE) * LINE
        outer = (
            kernel,
            Inner(steps),
            len(steps),
            Word("routing", routing=self.routing),
            self.number,
            Word("scratch"),
            Word("scratch_bytes"),
            at,
        )
        return Call(("experts", "each"), outer, (*reads, self.routing), (out,), at + _WORDS_BYTES, inner=kernel)
