"""Ways to round a matrix into blocks, by what is known of its inputs; and the judge between two of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat, dequantize
from ggpy.errors import GGPyError, printable
from ggpy.quantize import gptq
from ggpy.quantize.drift import made_up_for
from ggpy.quantize.products import Array, Products
from ggpy.quantize.statistics import Gram
from ggpy.runtime.encode import encode_rows

WAYS = ("rtn", "imatrix", "awq", "gptq", "gptaq", "auto")
"""What a conversion may be asked for: each weight to the nearest value; with an eye on how large its inputs are; so,
with columns scaled up that see large ones; with the errors of one column made up for by those behind it; so, and with what inputs lost in
quantized layers made up for too; whichever of the first, the second and the fourth does best on inputs that none of them saw."""
DEFAULT_WAY = "gptq"
_FEW = 32  # inputs: fewer say nothing of how large each column's are


@dataclass(frozen=True)
class Seen:
    """What is known of a matrix's inputs. importance: mean squares, float32 (cols,); None where there were next to none. gram: Σ x xᵀ.
    drift: Σ (exact − x) xᵀ, exact being what x would be in the model as it was. held_out: Σ x xᵀ over other tokens, to judge by."""

    importance: NDArray[np.float32] | None
    gram: Gram | None = None
    drift: NDArray[np.float64] | None = None
    held_out: Gram | None = None


@dataclass(frozen=True)
class Way:
    """name: one of `WAYS`."""

    name: str

    @property
    def twice(self) -> bool:
        """Whether the text is to go through the model as it was, too."""
        return self.name == "gptaq"

    @property
    def held_out(self) -> bool:
        """Whether tokens are kept back to judge by."""
        return self.name == "auto"

    @property
    def folds(self) -> bool:
        """Whether scales are folded into the model first (`quantize.awq`)."""
        return self.name == "awq"

    def needs_gram(self, tokens: int, cols: int) -> bool:
        """Whether sums of squares are not enough; of few tokens there is no more to know."""
        return self.name in ("gptq", "gptaq", "auto") and tokens >= max(_FEW, cols // 8)

    def quantize(self, weights: Array, seen: Seen, format: BlockFormat, products: Products, threads: int) -> tuple[NDArray[np.uint8], str]:
        """Blocks of weights (rows, cols), uint8 (rows, row_bytes), and by which of `WAYS` they were made."""
        ways = ("rtn", "imatrix", "gptq") if self.name == "auto" else ("imatrix",) if self.folds else (self.name,)
        made = {way: blocks for way in ways if (blocks := _blocks(way, weights, seen, format, products, threads)) is not None}
        for way in ("gptq", "imatrix", "rtn"):
            if not made and (blocks := _blocks(way, weights, seen, format, products, threads)) is not None:
                made = {way: blocks}
        if len(made) > 1 and seen.held_out is not None:
            errors = {way: output_error(weights, dequantize(b, format), seen.held_out, products) for way, b in made.items()}
            best = min(errors, key=lambda way: errors[way])
        else:
            best = next(reversed(made)) if self.name == "auto" else next(iter(made))
        return made[best], best


def find_way(name: str) -> Way:
    """The way called `name`, in any case; raises GGPyError listing all."""
    if name.lower() not in WAYS:
        raise GGPyError(f"method {printable(repr(name), 40)} is none of {', '.join(WAYS)}")
    return Way(name.lower())


def output_error(weights: Array, decoded: Array, gram: Gram, products: Products) -> float:
    """Σ over tokens of ‖(weights − decoded) x‖², from Σ x xᵀ."""
    difference = weights - decoded
    (moved,) = products.linear(difference, gram.matrix.astype(np.float32))
    return float(np.einsum("ij,ij->i", difference, moved, dtype=np.float64).sum())


def _blocks(way: str, weights: Array, seen: Seen, format: BlockFormat, products: Products, threads: int) -> NDArray[np.uint8] | None:
    """None where the format or what is known does not allow it."""
    if way == "rtn":
        return encode_rows(weights, format, threads)
    if way == "imatrix":
        if seen.importance is None or format.encode_weighted is None:
            return None
        return encode_rows(weights, format, threads, importance=seen.importance)
    if seen.gram is None or format.grid is None or (way == "gptaq" and seen.drift is None):
        return None
    if way == "gptaq" and seen.drift is not None:
        weights = made_up_for(weights, seen.gram.matrix, seen.drift, products)
    return gptq.quantize(weights, seen.gram.matrix, format, tokens=seen.gram.tokens, threads=threads)
