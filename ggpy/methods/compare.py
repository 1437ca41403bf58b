"""Methods on a model's own matrices: what each costs in bits and in time, and how far its outputs are off on text it has not seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggpy.errors import GGPyError, printable
from ggpy.methods import METHODS, DoesNotFit, Method
from ggpy.methods.activations import Model
from ggpy.methods.quantized import Matrix

CALIBRATION_TOKENS = 8192


@dataclass(frozen=True)
class Result:
    """A method on a matrix.

    bits: per weight, side data included. output_error: ‖(W − Ŵ) X‖ / ‖W X‖ over held-out activations X, the error of quantized activations
    included where a method has them. weight_error: ‖W − Ŵ‖ / ‖W‖. seconds: to quantize. sampled: rows it was tried on, where not on all.
    """

    method: str
    matrix: str
    rows: int
    cols: int
    bits: float
    output_error: float
    weight_error: float
    seconds: float
    sampled: int | None


@dataclass(frozen=True)
class Summary:
    """A method over all matrices with rows of one length: bits per weight over all their weights, means of the errors, sum of the
    seconds."""

    method: str
    cols: int
    matrices: int
    bits: float
    output_error: float
    weight_error: float
    seconds: float
    sampled: int | None


@dataclass(frozen=True)
class Comparison:
    """results: in the order in which they were found. left_out: method and length of rows -> why it has no result there."""

    model: str
    layers: tuple[int, ...]
    calibration_tokens: int
    held_out_tokens: int
    results: tuple[Result, ...]
    left_out: Mapping[tuple[str, int], str]

    def summaries(self) -> list[Summary]:
        """By length of rows, then by output error."""
        groups: dict[tuple[int, str], list[Result]] = {}
        for result in self.results:
            groups.setdefault((result.cols, result.method), []).append(result)
        return sorted((_summary(group) for group in groups.values()), key=lambda found: (found.cols, found.output_error))


def default_layers(n_layers: int) -> list[int]:
    """The first layer, the middle one and the last."""
    return sorted({0, n_layers // 2, n_layers - 1})


def compare_model(
    path: Path,
    text: str,
    held_out: str,
    *,
    layers: Iterable[int] | None = None,
    tensors: Iterable[str] = (),
    methods: Mapping[str, Method] = METHODS,
    tokens: int = CALIBRATION_TOKENS,
    on_result: Callable[[Result], None] = lambda result: None,
) -> Comparison:
    """All `methods` on the matrices of some layers of a checkpoint directory or a GGUF file.

    text, held_out: what the model reads for the methods, and what they are judged on. layers: by default `default_layers`. tensors: parts
    of tensor names, such as "ffn_down"; none: all linear layers. tokens: read of `text`; of `held_out` half as many.
    Raises GGPyError for layers the model does not have, names that match nothing, and texts that are too short.
    """
    results, left_out, names = [], {}, tuple(tensors)
    with Model(path) as model:
        chosen = sorted(set(default_layers(model.n_layers) if layers is None else layers))
        wrong = [layer for layer in chosen if not 0 <= layer < model.n_layers]
        if wrong or not chosen:
            raise GGPyError(f"layer {wrong[0] if wrong else 'none'}: the model has layers 0 to {model.n_layers - 1}")
        calibration, judged = model.chunks(text, tokens, "the text"), model.chunks(held_out, tokens // 2, "the held-out text")
        seen = []

        def visit(name: str, weights: Matrix, x: Matrix) -> None:
            seen.append(name)
            if names and not any(part in name for part in names):
                return
            for method, found in compare(weights, x[: calibration.size], x[calibration.size :], methods, name):
                if isinstance(found, str):
                    left_out[method, weights.shape[1]] = found
                else:
                    results.append(found)
                    on_result(found)

        model.read(np.concatenate([calibration, judged]), chosen, visit)
    if not results:
        listed = printable(", ".join(names), 80)
        raise GGPyError(f"no matrix was compared: {listed or 'none'} is in none of {printable(', '.join(seen), 300)}")
    return Comparison(str(path), tuple(chosen), calibration.size, judged.size, tuple(results), left_out)


def compare(
    weights: Matrix, activations: Matrix, held_out: Matrix, methods: Mapping[str, Method] = METHODS, matrix: str = ""
) -> Iterable[tuple[str, Result | str]]:
    """Every method on one matrix: its result, or why it does not fit. weights (rows, cols); activations, held_out (tokens, cols)."""
    for name, method in methods.items():
        part = weights
        if method.max_rows is not None and method.max_rows < len(weights):
            part = weights[np.linspace(0, len(weights) - 1, method.max_rows).astype(int)]
        start = time.perf_counter()
        try:
            found = method.quantize(part, activations)
        except DoesNotFit as reason:
            yield name, str(reason)
            continue
        seconds = time.perf_counter() - start
        wanted = held_out @ part.T
        yield (
            name,
            Result(
                method=name,
                matrix=matrix,
                rows=weights.shape[0],
                cols=weights.shape[1],
                bits=found.bits,
                output_error=_relative(found.apply(held_out) - wanted, wanted),
                weight_error=_relative(found.values - part, part),
                seconds=seconds,
                sampled=len(part) if len(part) < len(weights) else None,
            ),
        )


def _relative(errors: np.ndarray, values: np.ndarray) -> float:
    size = float(np.linalg.norm(values))
    return float(np.linalg.norm(errors)) / size if size else 0.0


def _summary(results: list[Result]) -> Summary:
    sizes = np.array([result.rows * result.cols for result in results], np.float64)
    first, n = results[0], len(results)
    return Summary(
        method=first.method,
        cols=first.cols,
        matrices=n,
        bits=float(np.average([result.bits for result in results], weights=sizes)),
        output_error=sum(result.output_error for result in results) / n,
        weight_error=sum(result.weight_error for result in results) / n,
        seconds=sum(result.seconds for result in results),
        sampled=first.sampled,
    )
