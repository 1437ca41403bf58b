"""From a source and what its file must keep to the format of every tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BLOCKS
from ggpy.converter.forecast import forecast
from ggpy.converter.model_plan import plan_model
from ggpy.converter.options import Options
from ggpy.converter.pipeline import open_source
from ggpy.converter.progress import Progress
from ggpy.converter.recipes import RECIPES
from ggpy.converter.report import size_in_words
from ggpy.converter.source import Source
from ggpy.converter.tensor_types import Override, TensorInfo, fit_rows, plan
from ggpy.errors import GGPyError, ModelError, printable
from ggpy.gguf.table import align
from ggpy.picker.allocate import Infeasible, Knapsack, Option
from ggpy.picker.choice import Pick, Target
from ggpy.picker.front import Curve, Point
from ggpy.picker.model import Bench, Outline, matrices
from ggpy.picker.sensitivity import Measurements, measure, measurements
from ggpy.picker.speed import Speeds, measure_speeds, weights_read
from ggpy.picker.text import FEWER_PIECES, LARGE, PIECES, TEXT, cut
from ggpy.runtime.host import available_threads
from ggpy.tokenizer import load_tokenizer

DEFAULT_SIZE_OF = "Q4_K_M"
CHECKED = (0.5, 0.05, 0.005)  # sums of KL, at which all tensors are quantized at once to see what their sum is worth


def pick(src: Path, target: Target, options: Options | None = None, *, text: str | None = None) -> Pick:
    """Measure the model at `src` and find the block format of every matrix that keeps `target` best.

    options: those of the conversion that matter before it: imatrix, lora, threads, on_progress, overrides. text: what KL
    is measured on, a bundled one by default; other than what the file is judged on later. Its overrides keep tensors
    out of the choice. Without any target the file gets Q4_K_M's size.
    Raises GGPyError for a target that is out of reach, naming what is not, and what `ggpy.convert` raises for sources.
    """
    options = options or Options()
    forced = options.choices.overrides
    options = replace(options, type="F16", overrides=(), output_type=None, embedding_type=None, pure=False)
    source = open_source(src, options.lora)
    try:
        with _Picker(src, source, options, forced, text) as picker:
            return picker.pick(target)
    finally:
        source.close()


class _Picker:
    def __init__(self, src: Path, source: Source, options: Options, forced: Sequence[Override], text: str | None):
        self._src, self._source, self._options = src, source, options
        self._forced = forced
        self._threads = options.threads or available_threads()
        planned = plan_model(source, options)
        self._importance: dict[str, NDArray[np.float32]] = planned.importance
        self._tensors = {tensor.name: tensor for tensor in matrices(source)}
        if not self._tensors:
            raise ModelError(f"{printable(source.name)}: has no matrix whose type could be chosen")
        self._n_values = sum(tensor.n_values for tensor in source.tensors)
        self._text = TEXT.read_text(encoding="utf-8") if text is None else text

    def __enter__(self) -> _Picker:
        self._outline = Outline(self._source)
        return self

    def __exit__(self, *exception: object) -> None:
        self._outline.close()

    def pick(self, target: Target) -> Pick:
        count = FEWER_PIECES if self._n_values > LARGE else PIECES
        pieces = cut(self._text, load_tokenizer(self._outline.file.metadata), count)
        known = measurements(self._source, pieces, self._importance, self._threads)
        with contextlib.ExitStack() as stack:
            bench: list[Bench] = []

            def open_bench() -> Bench:
                if not bench:
                    bench.append(Bench(self._outline, pieces.ids, pieces.skip, self._threads, self._on_compile))
                    stack.callback(bench[0].close)
                return bench[0]

            self._sensitivities = measure(self._source, open_bench, known, self._importance, self._threads, self._options.on_progress)
            formats = sorted({f for s in self._sensitivities.values() for f in s.errors})
            self._sizes = self._measure_sizes()
            self._read = weights_read(self._outline)
            self._speeds: Speeds = measure_speeds(self._outline, formats, self._threads, self._options.on_progress, self._on_compile)
            self._knapsack = Knapsack([self._options_of(name) for name in self._sensitivities])
            self._curve = self._check(open_bench, known)
        chosen = self._choose(target)
        front = tuple(sorted({self._point("", f): None for f in self._front()}, key=lambda point: point.file_bytes))
        recipes = tuple(self._recipes())
        point = self._point("", chosen)
        nearest = min(recipes, key=lambda r: (abs(r.file_bytes - point.file_bytes), r.label), default=None)
        return Pick(
            self._source.name,
            chosen,
            nearest.label if nearest else DEFAULT_SIZE_OF,
            point,
            front,
            recipes,
            self._curve,
            pieces.scored,
            self._threads,
            self._sensitivities,
        )

    def _on_compile(self, kernel: tuple[str, str], done: int, total: int) -> None:
        if self._options.on_progress:
            self._options.on_progress(Progress("compile", kernel[0], done, total))

    def _measure_sizes(self) -> dict[str, int]:
        """Bytes of the file beside the matrices whose format is chosen."""
        whole = forecast(self._src, Path("out.gguf"), replace(self._options, on_progress=None, on_warning=None, strict=False))
        chosen = [t for t in whole.tensors if t.name in self._sensitivities]
        others = sum(t.n_bytes for t in whole.tensors) - sum(t.n_bytes for t in chosen)
        fixed = whole.file_bytes - sum(align(t.n_bytes, self._source.alignment) for t in chosen)
        return {"file": fixed, "tensors": others}

    def _bytes(self, name: str, format: str) -> int:
        tensor = self._tensors[name]
        return tensor.rows * BLOCKS[format].row_bytes(tensor.columns)

    def _options_of(self, name: str) -> list[Option]:
        sensitivity, read = self._sensitivities[name], self._read[name]
        per_weight = self._speeds.per_weight
        fastest = min(per_weight[f] for f in sensitivity.errors)
        return [
            Option(
                format,
                sensitivity.kl(format),
                align(self._bytes(name, format), self._source.alignment),
                read * (per_weight[format] - fastest),
            )
            for format in self._allowed(name)
        ]

    def _allowed(self, name: str) -> Sequence[str]:
        """The formats to choose from: all that were measured, or the one that an override says."""
        override = next((o for o in self._forced if o.pattern.search(name)), None)
        if override is None:
            return list(self._sensitivities[name].errors)
        format = fit_rows(override.format, self._tensors[name].columns)
        if format not in self._sensitivities[name].errors:
            known = ", ".join(self._sensitivities[name].errors)
            raise GGPyError(f"tensor {printable(name)} is to be {format}, which is not measured: with a target it may be {known}")
        return [format]

    @property
    def _least_seconds(self) -> float:
        """Of a token, if every matrix has its fastest format."""
        fastest = {name: min(s.errors, key=lambda f: self._speeds.per_weight[f]) for name, s in self._sensitivities.items()}
        return self._speeds.seconds(fastest, self._read)

    def _formats(self, chosen: NDArray[np.intp]) -> dict[str, str]:
        return {name: o.format for name, o in zip(self._sensitivities, self._knapsack.options(chosen), strict=True)}

    def _front(self) -> Iterator[dict[str, str]]:
        return (self._formats(chosen) for chosen in self._knapsack.front())

    def _sum(self, formats: Mapping[str, str]) -> float:
        return sum(s.kl(formats[name]) for name, s in self._sensitivities.items())

    def _point(self, label: str, formats: Mapping[str, str]) -> Point:
        n_bytes = {name: self._bytes(name, format) for name, format in formats.items()}
        return Point(
            label,
            self._sizes["file"] + sum(align(n, self._source.alignment) for n in n_bytes.values()),
            8 * (self._sizes["tensors"] + sum(n_bytes.values())) / self._n_values,
            self._curve(self._sum(formats)),
            1 / self._speeds.seconds(formats, self._read),
        )

    def _recipes(self) -> Iterator[Point]:
        """Those whose formats were all measured, the smallest first."""
        found = []
        infos = [TensorInfo(t.name, t.shape, t.kept) for t in self._source.tensors]
        choices = replace(self._options.choices, overrides=())
        for recipe in RECIPES.values():
            planned = {p.name: p.format for p in plan(infos, recipe, self._source.facts, choices)}
            formats = {name: planned[name] for name in self._sensitivities}
            needed = recipe.needs_importance and not self._importance
            if recipe.quantized and not needed and all(f in self._sensitivities[n].errors for n, f in formats.items()):
                found.append((self._point(recipe.name, formats), formats))
        seen: set[tuple[str, ...]] = set()
        for point, formats in sorted(found, key=lambda pair: pair[0].file_bytes):
            if tuple(formats.values()) not in seen:  # where rows do not allow super-blocks several recipes are the same
                seen.add(tuple(formats.values()))
                yield point

    def _check(self, open_bench: Callable[[], Bench], known: Measurements) -> Curve:
        """Quantize all tensors at once, to see what the sum of their KLs is worth."""
        front = list(self._front())
        sums = [self._sum(formats) for formats in front]
        pairs: list[tuple[float, float]] = []
        for wanted in CHECKED:
            at = int(np.argmin([abs(np.log(max(s, 1e-12) / wanted)) for s in sums]))
            key = f"check {sorted(front[at].items())}"
            if key not in known.values:
                known.put(key, {"measured": open_bench().divergence_of(front[at], self._importance, self._threads)})
                known.save()
            pair = sums[at], known.values[key]["measured"]
            if pair not in pairs:
                pairs.append(pair)
        return Curve(tuple(sorted(pairs)))

    def _choose(self, target: Target) -> dict[str, str]:
        """The formats; GGPyError where the target cannot be reached."""
        if target == Target():
            planned = plan(
                [TensorInfo(t.name, t.shape, t.kept) for t in self._source.tensors], RECIPES[DEFAULT_SIZE_OF], self._source.facts
            )
            formats = {p.name: p.format for p in planned}
            target = Target(file_bytes=self._point("", {name: formats[name] for name in self._sensitivities}).file_bytes)
        bounds: dict[str, float] = {}
        if target.file_bytes is not None:
            bounds["n_bytes"] = target.file_bytes - self._sizes["file"]
        if target.bits_per_weight is not None:
            most = target.bits_per_weight * self._n_values / 8 - self._sizes["tensors"]
            bounds["n_bytes"] = min(bounds.get("n_bytes", np.inf), most)
        if target.tokens_per_second is not None:
            bounds["seconds"] = 1 / target.tokens_per_second - self._least_seconds
        if target.kl is not None:
            bounds["kl"] = self._curve.inverse(target.kl)
        cost = "n_bytes" if target.kl is not None else "kl"
        size = bounds.pop("n_bytes", None) if target.kl is not None else None
        try:
            chosen = self._knapsack.minimise(cost, bounds)
        except Infeasible as error:
            raise GGPyError(self._impossible(error, target)) from None
        if size is not None and self._knapsack.total(chosen, "n_bytes") > size:
            raise GGPyError(self._impossible(Infeasible("n_bytes", self._knapsack.total(chosen, "n_bytes")), target))
        return self._formats(chosen)

    def _impossible(self, error: Infeasible, target: Target) -> str:
        others = len([value for value in asdict(target).values() if value is not None]) > 1
        beside = ", the other targets being kept" if others else ""
        name = printable(self._source.name)
        if error.cost == "seconds":
            best = 1 / (error.best + self._least_seconds)
            return f"{name}: {target.tokens_per_second:g} tokens per second are out of reach here: {best:.3g} at the most{beside}"
        if error.cost == "kl":
            return f"{name}: a KL divergence of {target.kl:g} is out of reach: {self._curve(error.best):.2g} at the least{beside}"
        n_bytes = error.best + self._sizes["file"]
        least = f"{int(n_bytes)} bytes ({size_in_words(int(n_bytes))}) at the least"
        if target.file_bytes is None:
            bits = 8 * (error.best + self._sizes["tensors"]) / self._n_values
            return f"{name}: {target.bits_per_weight:g} bits per weight are out of reach: {bits:.3f} at the least{beside}"
        return f"{name}: a file of {target.file_bytes} bytes is out of reach: {least}{beside}"
