"""What each part of GPTQ in blocks adds: squared errors of layers' outputs against rounding with importance, as a table in Markdown.

    python tools/compare_gptq.py HF_DIR|FILE.gguf --text CALIBRATION.txt --held-out OTHER.txt [--layers 3,12] [--only ffn_down,attn_q]
        [--formats Q4_0,Q4_K] [--tokens 4096] [--rows 192]

Every figure is the mean over the chosen matrices of tr(E H Eᵀ) as a share of that of ggml's encoder with the importance matrix of the same
text: over the calibration text's tokens, and over those of the other text. --rows: of each matrix, the first so many; rows do not depend on
each other. Formats whose blocks do not fit a matrix are left out there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from comparison import markdown

from ggpy.blocks import BLOCKS, BlockFormat, dequantize
from ggpy.errors import GGPyError
from ggpy.methods.activations import Model
from ggpy.quantize import gptq
from ggpy.quantize.factor import factored
from ggpy.quantize.feedback import with_feedback
from ggpy.quantize.scale_search import search
from ggpy.runtime.encode import encode_rows

Method = Callable[[np.ndarray, np.ndarray, BlockFormat], np.ndarray]


def importance(gram: np.ndarray) -> np.ndarray:
    return (np.diagonal(gram) / np.diagonal(gram).max()).astype(np.float32)


def free_order(weights: np.ndarray, gram: np.ndarray, block_format: BlockFormat) -> np.ndarray:
    """Feedback through all columns by falling activation, whatever their block, on the scales that the blocks' own order found."""
    found = with_feedback(weights, factored(gram, np.arange(len(gram)), gptq.DAMPING, gptq.SHRINKAGE), block_format, 1)
    assert block_format.grid is not None
    blocks = found.reshape(-1, block_format.block_bytes)
    scale, offset, _ = (part.reshape(weights.shape) for part in block_format.grid.unpack(blocks))
    order, levels = np.argsort(-np.diagonal(gram), kind="stable"), block_format.grid.levels
    factor = factored(gram, order, gptq.DAMPING, gptq.SHRINKAGE)
    assert factor.feedback is not None
    feedback, errors = np.tril(factor.feedback, -1), np.zeros(weights.shape, np.float32)
    quants, middles = np.zeros(weights.shape, np.uint8), (levels[1:] + levels[:-1]) / 2
    for i, j in enumerate(order):
        target = weights[:, j] + errors @ feedback[i]
        steps = (target - offset[:, j]) / np.where(scale[:, j] == 0, 1, scale[:, j])
        quants[:, j] = np.searchsorted(middles, steps)
        errors[:, i] = weights[:, j] - (scale[:, j] * levels[quants[:, j]] + offset[:, j])
    return block_format.grid.with_quants(blocks, quants.reshape(-1, block_format.block_values)).reshape(len(weights), -1)


METHODS: dict[str, Method] = {
    "scale search alone": lambda w, gram, f: search(w, f, importance(gram)),
    "feedback, columns in the file's order": partial(gptq.quantize, activation_order=False, sweeps=0),
    "feedback, all columns by activation": free_order,
    "feedback, by activation within blocks": partial(gptq.quantize, sweeps=0),
    "… and 1 sweep": partial(gptq.quantize, sweeps=1),
    f"… and {gptq.SWEEPS} sweeps (what is done)": gptq.quantize,
    "… and 6 sweeps": partial(gptq.quantize, sweeps=6),
    "shrinkage 0": partial(gptq.quantize, shrinkage=0.0),
    "shrinkage 0.05": partial(gptq.quantize, shrinkage=0.05),
    "shrinkage 0.5": partial(gptq.quantize, shrinkage=0.5),
    "shrinkage 0.75": partial(gptq.quantize, shrinkage=0.75),
    "shrinkage 0, damping 0.1": partial(gptq.quantize, shrinkage=0.0, damping=0.1),
}


def errors_of(weights: np.ndarray, blocks: np.ndarray, grams: Sequence[np.ndarray], block_format: BlockFormat) -> np.ndarray:
    off = weights - dequantize(blocks, block_format)
    return np.array([np.einsum("ij,ij->", off @ gram, off, dtype=np.float64) for gram in grams])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--layers", default="0")
    parser.add_argument("--only", help="names of matrices, such as ffn_down; default all")
    parser.add_argument("--formats", default="Q4_0,Q4_K")
    parser.add_argument("--tokens", type=int, default=4096, help="of each text")
    parser.add_argument("--rows", type=int, default=192, help="of each matrix")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    layers, formats = [int(n) for n in args.layers.split(",")], [BLOCKS[name] for name in args.formats.split(",")]
    weights: dict[str, np.ndarray] = {}
    grams: dict[str, list[np.ndarray]] = {}

    def visit(name: str, matrix: np.ndarray, x: np.ndarray) -> None:
        if args.only is None or name.split(".")[2] in args.only.split(","):
            weights[name] = np.array(matrix[: args.rows], np.float32)
            grams.setdefault(name, []).append(x.T @ x)

    with Model(args.model) as model:
        for path, what in ((args.text, "the text"), (args.held_out, "the held-out text")):
            model.read(model.chunks(path.read_text(encoding="utf-8"), args.tokens, what), layers, visit)
    for block_format in formats:
        names = [name for name in weights if weights[name].shape[1] % block_format.block_values == 0]
        plain = {n: encode_rows(weights[n], block_format, importance=importance(grams[n][0])) for n in names}
        plain_errors = {n: errors_of(weights[n], plain[n], grams[n], block_format) for n in names}
        table: list[list[str]] = []
        for title, method in METHODS.items():
            found = {n: method(weights[n], grams[n][0], block_format) for n in names}
            shares = [errors_of(weights[n], found[n], grams[n], block_format) / plain_errors[n] for n in names]
            table.append([title, *(f"{share:.3f}" for share in np.mean(shares, axis=0))])
        print(markdown([f"{block_format.name}, {len(names)} matrices", "calibration", "held out"], table), "\n", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GGPyError as error:
        sys.exit(f"compare_gptq: {error}")
