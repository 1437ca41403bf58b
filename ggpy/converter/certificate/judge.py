"""What a measured conversion may differ from its source, given the formats it was written in, and the name of what differs more.

Rounding weights by a relative error ε moves a layer's output by about as much, and the logits' KL divergence by about ε². How strongly
depends on the model; how much ε is does not. So limits are multiples of what the file's own formats do to ordinary weights. What the
multiples are was measured: docs/design/2026-11-certificate.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ggpy.blocks import BLOCKS, dequantize
from ggpy.converter.certificate.measure import LayerError, Measured
from ggpy.converter.certificate.walk import EMBEDDING, HEAD, ROTATED
from ggpy.gguf import Tensor

KL_PER_SQUARED_NOISE = 500.0  # measured: 12 to 110
LAYER_PER_NOISE = 10.0  # measured: 1.5 to 4.5
KL_FLOOR, LAYER_FLOOR, TURN_LIMIT = 1e-4, 0.01, 0.05


@dataclass(frozen=True)
class Verdict:
    """kl_limit: nats that the mean KL divergence should stay below. fault: what is wrong, in one line, or None."""

    kl_limit: float
    fault: str | None


@functools.cache
def noise_of(format: str) -> float:
    """Relative error, ‖decoded − x‖ / ‖x‖, of normally distributed weights in a block format."""
    block_format = BLOCKS[format]
    if block_format.encode is None or block_format.decode is None:
        return 2.0 ** (1 - block_format.bits_per_weight)  # more than formats of that size were found to have
    values = np.random.default_rng(0).standard_normal((64, 256), np.float32)
    decoded = dequantize(block_format.encode(values.reshape(-1, block_format.block_values)), block_format).reshape(values.shape)
    return float(np.linalg.norm(decoded - values) / np.linalg.norm(values))


def judge(measured: Measured, tensors: Iterable[Tensor], n_vocab: int) -> Verdict:
    """Whether what was measured of a file with these `tensors` is what its formats explain."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) > 1]
    limit = min(KL_FLOOR + KL_PER_SQUARED_NOISE * _noise(matrices) ** 2, 0.75 * math.log(n_vocab))
    return Verdict(limit, next(_faults(measured, matrices, limit), None))


def _faults(measured: Measured, matrices: list[Tensor], kl_limit: float) -> Iterator[str]:
    for layer in measured.layers:
        own = [tensor for tensor in matrices if tensor.name.startswith(layer.name + ".")]
        if layer.name == HEAD and not own:  # tied: the embedding is the head
            own = [tensor for tensor in matrices if tensor.name.startswith(EMBEDDING + ".")]
        noise = _noise(own)
        yield from _stage_faults(layer, noise)
        limit = LAYER_FLOOR + LAYER_PER_NOISE * noise
        if not layer.error <= limit:  # NaN is a fault, too
            yield f"{layer.name} is {layer.error:.1%} off by itself, expected at most {limit:.1%}"
    kl = float(measured.kl.mean())
    if not kl <= kl_limit:
        worst = max(measured.layers, key=lambda layer: layer.error)
        yield f"its layers add up to more than they should; the worst is {worst.name}, {worst.error:.1%} off by itself"


def _stage_faults(layer: LayerError, noise: float) -> Iterator[str]:
    # Two or three rounded products after each other leave this much; what does not belong together leaves about 0.
    limit, errors = 0.5 / (1 + (3 * noise) ** 2), {stage.name: stage.error for stage in layer.stages}
    for i, stage in enumerate(layer.stages):
        name = f"{layer.name}.{stage.name}"
        if i == 0 and stage.name.endswith("norm") and not stage.error <= LAYER_FLOOR:  # no rounding is behind it
            off = f"{stage.error:.1%} off, expected at most {LAYER_FLOOR:.1%}"
            yield f"{name}.weight gives something else than in the source ({off}): another norm, or another epsilon?"
        before = stage.name.removesuffix(ROTATED)
        if before != stage.name:
            if not stage.error - errors.get(before, 0.0) <= TURN_LIMIT:  # turning a vector does not change how far it is from another
                yield (
                    f"{layer.name}.{before} is turned by other rotary angles than the source's ({errors[before]:.1%} off before, "
                    f"{stage.error:.1%} after, over the whole context): rotary base, scaling or rope_freqs lost?"
                )
        elif not stage.correlation >= limit:
            instead = f"what the source's {stage.resembles} does" if stage.resembles else "something else than in the source"
            hint = "swapped" if stage.resembles else "rows in another order"
            yield f"{name}.weight gives {instead} (correlation {stage.correlation:.2f}, expected at least {limit:.2f}): {hint}?"


def _noise(tensors: list[Tensor]) -> float:
    n_values = sum(tensor.n_values for tensor in tensors)
    return math.sqrt(sum(t.n_values * noise_of(t.format.name) ** 2 for t in tensors) / n_values) if n_values else 0.0
