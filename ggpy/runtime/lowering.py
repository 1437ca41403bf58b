"""From recorded ops to kernel calls: which kernel does each op, what it reads and writes, and which ops melt into one.

Fused, where the recorded graph allows it: a norm or a gated activation with the quantization of the activations it feeds; a product, or
experts, with the sum that takes the result; the rotation of keys with their storage, and of heads with their norm. `fuse=False` keeps every
op apart so that each can be compared on its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ggpy.kernels import segments
from ggpy.kernels.desks import MOST_UNITS, PIECE_BYTES
from ggpy.kernels.kinds import activation_bytes, activation_kind, scratch_bytes
from ggpy.runtime.calls import Buffer, Cache, Call, Word
from ggpy.runtime.experts import Experts
from ggpy.runtime.kv_cache import CacheShape
from ggpy.runtime.recorder import Op, Value
from ggpy.runtime.rotary import Rope
from ggpy.runtime.weights import Weight
from ggpy.simd.target import target


class Lowering:
    """Lowers one recording; `calls` in order, `buffers` of the values that are materialised."""

    def __init__(self, ops: Sequence[Op], shape: CacheShape, fuse: bool = True):
        self.shape, self.fuse = shape, fuse
        self.calls: list[Call] = []
        self.buffers: dict[Value, Buffer] = {}
        self._activations: dict[tuple[Value, str], Buffer] = {}
        self._consumers: dict[Value, list[Op]] = defaultdict(list)
        self._sums: dict[Op, Op] = {}  # product, or experts -> the sum that takes the result
        self._done: set[Op] = set()
        for op in ops:
            for value in op.inputs:
                self._consumers[value].append(op)
        order = {op: i for i, op in enumerate(ops)}
        self._made = {value: op for op in ops for value in op.outputs}
        if fuse:
            for op in ops:
                self._find_sum(op, order)
        for op in ops:
            if op not in self._done:
                getattr(self, f"_{op.name}")(op)

    def _find_sum(self, op: Op, order: dict[Op, int]) -> None:
        """A product without bias, or what experts give, whose one consumer is a sum with a value that exists by then."""
        alone = op.name == "linear" and len(op.outputs) == 1 and op.params["weights"][0].bias is None
        if not alone and op.name != "experts":
            return
        consumers = self._consumers[op.outputs[0]]
        if len(consumers) == 1 and consumers[0].name == "add" and consumers[0].inputs[0] is not consumers[0].inputs[1]:
            other = next(v for v in consumers[0].inputs if v is not op.outputs[0])
            if order[self._made[other]] < order[op]:
                self._sums[op] = consumers[0]
                self._done.add(consumers[0])

    def _buffer(self, value: Value) -> Buffer:
        if value not in self.buffers:
            self.buffers[value] = Buffer(4 * value.width, value.of_outputs)
        return self.buffers[value]

    def _call(self, module: str, name: str, words: Sequence[object], reads: Sequence[object], writes: Sequence[object],
              scratch: int = 0, op: Op | None = None, can_be_own: bool = False) -> None:  # fmt: skip
        self.calls.append(Call((module, name), tuple(words), tuple(reads), tuple(writes), scratch, op, can_be_own=can_be_own))

    def _single_kind(self, value: Value) -> str | None:
        """The kind of activations a value is needed in, when products of one kind are all that read it."""
        consumers = self._consumers[value]
        if not self.fuse or not consumers or any(op.name != "linear" for op in consumers):
            return None
        kinds = {activation_kind(w.format.name) for op in consumers for w in op.params["weights"]}
        return kinds.pop() if len(kinds) == 1 else None

    def _as_activations(self, value: Value, kind: str) -> Buffer:
        """The buffer of a value's activations; the first to ask makes them."""
        known = self._activations.get((value, kind))
        if known is None:
            known = self._activations[value, kind] = Buffer(activation_bytes(kind, value.width), value.of_outputs)
            source = self._buffer(value)
            words = (source, known, value.width, Word("count", of_outputs=value.of_outputs), Word("counter"), Word("own", buffer=known))
            self._call("activations", kind, words, [source], [known], can_be_own=self.fuse)
        return known

    def _into_activations(self, module: str, op: Op, front: Sequence[object], rest: Sequence[object]) -> None:
        """An op whose result is only ever quantized goes straight there, else to a plain buffer. Words: front, out, k, count, rest."""
        out = op.outputs[0]
        kind = self._single_kind(out)
        if kind:
            target_buffer = self._activations[out, kind] = Buffer(activation_bytes(kind, out.width), out.of_outputs)
        else:
            target_buffer = self._buffer(out)
        words = (*front, target_buffer, out.width, Word("count", of_outputs=out.of_outputs), *rest, Word("scratch"), Word("scratch_bytes"),
                 Word("counter"), Word("own", buffer=target_buffer))  # fmt: skip
        reads = [word for word in front if isinstance(word, Buffer)]
        self._call(module, f"{op.name}_{kind}" if kind else op.name, words, reads, [target_buffer], 4 * out.width, op, kind is not None)

    def _embed(self, op: Op) -> None:
        weight: Weight = op.params["weight"]
        out = self._buffer(op.outputs[0])
        words = (weight, weight.row_bytes, weight.cols, Word("tokens"), out, Word("count"), Word("scratch"), Word("scratch_bytes"),
                 Word("counter"))  # fmt: skip
        self._call(weight.format.name.lower(), "embed", words, [], [out], scratch_bytes(weight.format.name, weight.cols, 0), op)

    def _rms_norm(self, op: Op) -> None:
        weight, x = op.params["weight"], op.inputs[0]
        if weight.cols != x.width:
            if not self._is_normed_when_turned(op):
                source, out = self._buffer(x), self._buffer(op.outputs[0])
                words = (source, weight, out, weight.cols, Word("count"), float(op.params["eps"]), x.width // weight.cols, Word("counter"))
                self._call("norm", "rms_norm_heads", words, [source], [out], op=op)
            return
        self._into_activations("norm", op, (self._buffer(op.inputs[0]), op.params["weight"]), (float(op.params["eps"]),))

    def _silu_mul(self, op: Op) -> None:
        self._into_activations("pointwise", op, tuple(self._buffer(v) for v in op.inputs), ())

    _gelu_mul = _silu_mul

    def _sigmoid_scale(self, op: Op) -> None:
        x, gate, out = self._buffer(op.inputs[0]), self._buffer(op.inputs[1]), self._buffer(op.outputs[0])
        words = (x, gate, out, op.outputs[0].width, Word("count", of_outputs=op.outputs[0].of_outputs), Word("counter"))
        self._call("pointwise", op.name, words, [x, gate], [out], op=op)

    def _scale(self, op: Op) -> None:
        self._map(op, op.params["factor"])

    def _soft_cap(self, op: Op) -> None:
        self._map(op, op.params["cap"])

    def _map(self, op: Op, number: float) -> None:
        x, out = self._buffer(op.inputs[0]), self._buffer(op.outputs[0])
        words = (x, out, op.outputs[0].width, Word("count", of_outputs=op.outputs[0].of_outputs), float(number), Word("counter"))
        self._call("pointwise", op.name, words, [x], [out], op=op)

    def _linear(self, op: Op) -> None:
        x, weights = op.inputs[0], op.params["weights"]
        sources = [self._as_activations(x, activation_kind(w.format.name)) for w in weights]
        for weight, out, source in zip(weights, op.outputs, sources, strict=True):
            assert weight.rows < MOST_UNITS
            total = self._sums.get(op)
            added: object = 0
            reads: list[object] = [source]
            if total is not None:
                added = self._buffer(next(v for v in total.inputs if v is not out))
                reads.append(added)
                out = total.outputs[0]
            elif weight.bias is not None:
                added = weight.bias
            y = self._buffer(out)
            words = (weight, weight.row_bytes, weight.rows, weight.cols, source, y, 4 * weight.rows, Word("count", of_outputs=x.of_outputs),
                     Word("counter"), Word("scratch"), Word("scratch_bytes"), added, 0 if total is None else 4 * weight.rows,
                     Word("desks"), Word("own", buffer=source))  # fmt: skip
            name = weight.format.name
            scratch = max(PIECE_BYTES, scratch_bytes(name, weight.cols, target().tile_tokens))
            self._call(name.lower(), "linear", words, reads, [y], scratch, total or op)

    def _rope(self, op: Op) -> None:
        if self._is_turned_when_stored(op):
            return
        rope: Rope = op.params["rope"]
        value, norm = self._norm_before(op.inputs[0])
        x, y = self._buffer(value), self._buffer(op.outputs[0])
        words = (x, y, value.width // rope.head_dim, rope.head_dim, *self._turn(rope), Word("counter"), *norm)
        self._call("rope", "rope", words, [x], [y], op=op)

    def _is_normed_when_turned(self, norm: Op) -> bool:
        consumers = self._consumers[norm.outputs[0]]
        return self.fuse and len(consumers) == 1 and consumers[0].name == "rope"

    def _norm_before(self, x: Value) -> tuple[Value, tuple[object, ...]]:
        """What a rotation reads, and the weight and eps of the norm that it does first: those of `x`, or none."""
        made = self._made[x]
        if made.name == "rms_norm" and made.params["weight"].cols != x.width and self._is_normed_when_turned(made):
            return made.inputs[0], (made.params["weight"], float(made.params["eps"]))
        return x, (0, 0)

    def _is_turned_when_stored(self, op: Op) -> bool:
        consumers = self._consumers[op.outputs[0]]
        return self.fuse and len(consumers) == 1 and consumers[0].name == "append"

    def _turn(self, rope: Rope) -> tuple[object, ...]:
        return rope.n_rot, rope.pairing, Word("cosines", rope), Word("sines", rope), Word("count")

    def _append(self, op: Op) -> None:
        layer, (keys, values) = op.params["layer"], op.inputs
        turn: tuple[object, ...] = (0, 0, 0, 0, Word("count"))
        norm: tuple[object, ...] = (0, 0)
        rotation = self._made[keys]
        if rotation.name == "rope" and self._is_turned_when_stored(rotation):
            (keys, norm), turn = self._norm_before(rotation.inputs[0]), self._turn(rotation.params["rope"])
        k, v = self._buffer(keys), self._buffer(values)
        key_cache, value_cache = Cache(layer, "keys"), Cache(layer, "values")
        words = (
            k,
            v,
            self.shape.n_kv_heads,
            self.shape.head_dim,
            *turn,
            Word("places"),
            key_cache,
            value_cache,
            Word("positions"),
            Word("scratch"),
        )
        self._call(
            "rope",
            "append",
            (*words, Word("scratch_bytes"), Word("counter"), *norm),
            [k, v],
            [key_cache, value_cache],
            4 * self.shape.head_dim,
            op,
        )

    def _attention(self, op: Op) -> None:
        layer, shape = op.params["layer"], self.shape
        q, out = self._buffer(op.inputs[0]), self._buffer(op.outputs[0])
        heads = op.inputs[0].width // shape.head_dim
        key_cache, value_cache = Cache(layer, "keys"), Cache(layer, "values")
        words = (q, out, heads, shape.n_kv_heads, shape.head_dim, key_cache, value_cache, Word("positions"), Word("n_segments"),
                 Word("segments"), Word("counter"), float(op.params["scale"]), Word("scratch"), Word("scratch_bytes"), Word("partials"),
                 Word("arrivals"), Word("desks"), op.params["window"], float(op.params["cap"]))  # fmt: skip
        scratch = segments.scratch_bytes(heads // shape.n_kv_heads, shape.head_dim)
        self.calls.append(Call(("attention", "attention"), words, (q, key_cache, value_cache), (out,), scratch, op, heads))

    def _route(self, op: Op) -> None:
        logits, out = self._buffer(op.inputs[0]), self._buffer(op.outputs[0])
        words = (logits, out, op.inputs[0].width, op.params["n_used"], int(op.params["normalised"]),
                 Word("count", of_outputs=op.outputs[0].of_outputs), Word("counter"))  # fmt: skip
        self._call("experts", "route", words, [logits], [out], op=op)

    def _experts(self, op: Op) -> None:
        number = sum(call.kernel == ("experts", "group") for call in self.calls) + 1
        x, routes = (self._buffer(v) for v in op.inputs)
        total = self._sums.get(op)
        if total is None:
            self.calls += Experts(op, number, x, routes, self._buffer(op.outputs[0])).calls()
        else:
            added = self._buffer(next(v for v in total.inputs if v is not op.outputs[0]))
            self.calls += Experts(op, number, x, routes, self._buffer(total.outputs[0]), total, added).calls()

    def _add(self, op: Op) -> None:
        a, b, out = self._buffer(op.inputs[0]), self._buffer(op.inputs[1]), self._buffer(op.outputs[0])
        words = (a, b, out, op.outputs[0].width, Word("count", of_outputs=op.outputs[0].of_outputs), Word("counter"))
        self._call("pointwise", "add", words, [a, b], [out], op=op)

    def _outputs(self, op: Op) -> None:
        x, out = self._buffer(op.inputs[0]), self._buffer(op.outputs[0])
        words = (x, out, op.outputs[0].width, Word("count", of_outputs=True), Word("output_rows"), Word("counter"))
        self._call("pointwise", "take_rows", words, [x], [out], op=op)
