"""How much every tensor matters: KL divergence of the model's predictions when that tensor alone is quantized.

KL ≈ a · e: e, the relative error of a tensor's outputs in a format, is cheap to measure for every format; a, what such an error costs, is
measured once per tensor, by quantizing it to four bits in the running model. Over four decades of KL, a stays what it is (see
docs/design/2026-11-picker.md). Of small changes the KLs of several tensors add up.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import ggpy
from ggpy.cache import cache_directory, read_entry, write_entry
from ggpy.converter.certificate.certify import source_digest
from ggpy.converter.progress import Meter, OnProgress
from ggpy.converter.source import Source
from ggpy.picker.formats import candidates, importance_of, output_errors, probe_format, rounded
from ggpy.picker.model import Bench, matrices
from ggpy.picker.text import Pieces

_SAVE_SECONDS = 10.0
_SMALLEST_KL = 1e-12  # that a float32 forward pass tells from none


@dataclass(frozen=True)
class Sensitivity:
    """Of one tensor. errors: relative squared error of its outputs, by block format. probe: the format it was changed to, and probe_kl what
    that did to the predictions: mean KL divergence in nats."""

    name: str
    errors: Mapping[str, float]
    probe: str
    probe_kl: float

    def kl(self, format: str) -> float:
        """Expected KL divergence if this tensor alone has that format."""
        error = self.errors[self.probe]
        return max(self.probe_kl, _SMALLEST_KL) * self.errors[format] / error if error else 0.0


class Measurements:
    """What is known of a model on a text, kept in the user's cache directory: an interrupted measurement goes on where it stopped."""

    def __init__(self, key: str):
        self._key = key
        self._path = cache_directory() / "picker" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
        entry = read_entry(self._path, key)
        self.values: dict[str, dict] = json.loads(entry[1]) if entry else {}
        self._saved = time.monotonic()

    def put(self, name: str, value: dict) -> None:
        """Keep it; on disk within seconds, or when `save` is called."""
        self.values[name] = value
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        write_entry(self._path, self._key, json.dumps(self.values).encode())
        self._saved = time.monotonic()


def measurements(source: Source, pieces: Pieces, importance: Mapping[str, NDArray[np.float32]], threads: int) -> Measurements:
    """Those of this source on these pieces of text with this importance."""
    digest = hashlib.sha256(json.dumps([pieces.ids, pieces.skip]).encode())
    for name in sorted(importance):
        digest.update(name.encode() + np.ascontiguousarray(importance[name]).tobytes())
    return Measurements(f"sensitivity 1, ggpy {ggpy.__version__}, {source_digest(source, threads)}, {digest.hexdigest()}")


def measure(
    source: Source,
    open_bench: Callable[[], Bench],
    known: Measurements,
    importance: Mapping[str, NDArray[np.float32]],
    threads: int,
    on_progress: OnProgress | None = None,
) -> dict[str, Sensitivity]:
    """The sensitivity of every matrix that the model's forward pass reads, by name, in that order; what `known` has is not measured again,
    and a bench is opened only for what it has not."""
    tensors = {tensor.name: tensor for tensor in matrices(source)}
    if "tensors" in known.values and all(name in known.values for name in known.values["tensors"]["order"]):
        return {name: _sensitivity(name, known.values[name]) for name in known.values["tensors"]["order"]}
    bench = open_bench()
    known.put("tensors", {"order": bench.tensors})
    missing = [name for name in bench.tensors if name not in known.values]
    meter = Meter("measure", sum(tensors[name].n_values for name in missing), on_progress)
    errors, sampled = {}, Meter("sample", len(missing), on_progress)
    for name in missing:  # before anything is changed, as what comes later runs on changed inputs
        inputs = bench.inputs(name)
        errors[name] = output_errors(bench.values[name], inputs, candidates(tensors[name]), importance_of(name, importance), threads)
        sampled(name, 1)
    try:
        for name in reversed(missing):  # from the last on: what comes before the changed tensor is as it was
            probe = probe_format(tensors[name])
            with bench.changed(name, rounded(bench.values[name], probe, importance_of(name, importance), threads)):
                kl = bench.divergence(name)
            known.put(name, {"errors": errors[name], "probe": probe, "probe_kl": kl})
            meter(name, tensors[name].n_values)
    finally:
        known.save()
    return {name: _sensitivity(name, known.values[name]) for name in bench.tensors}


def _sensitivity(name: str, value: dict) -> Sensitivity:
    return Sensitivity(name, value["errors"], value["probe"], value["probe_kl"])
