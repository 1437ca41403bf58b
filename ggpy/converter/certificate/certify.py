"""A new file and its source, read through side by side: the certificate of a conversion."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ggpy.arch import ARCHS, Architecture, Config
from ggpy.converter.certificate.decoders import llama, mixtral, phi3, qwen2, qwen2_moe, qwen3, qwen3_moe
from ggpy.converter.certificate.gemma import gemma, gemma2, gemma3
from ggpy.converter.certificate.judge import judge
from ggpy.converter.certificate.measure import Measured, measure
from ggpy.converter.certificate.oracle import Oracle, Parameters
from ggpy.converter.certificate.probe import TEXT_ID, Probe, probe_for
from ggpy.converter.certificate.products import Products, Rows
from ggpy.converter.certificate.record import Certificate, rounded
from ggpy.converter.certificate.walk import HEAD, State, rows_of, walk
from ggpy.converter.checksums import joined_crc32
from ggpy.converter.files import RangeFile
from ggpy.converter.huggingface import HuggingFaceSource
from ggpy.converter.prequantized import QuantizedMatrix
from ggpy.converter.source import Source, SourceTensor
from ggpy.converter.stream import Workers
from ggpy.errors import ModelError, printable
from ggpy.gguf import GGUFFile, open_gguf

ORACLES: dict[str, Oracle] = {
    "LlamaForCausalLM": llama,
    "LLaMAForCausalLM": llama,
    "MistralForCausalLM": llama,
    "MixtralForCausalLM": mixtral,
    "Phi3ForCausalLM": phi3,
    "Qwen2ForCausalLM": qwen2,
    "Qwen2MoeForCausalLM": qwen2_moe,
    "Qwen3ForCausalLM": qwen3,
    "Qwen3MoeForCausalLM": qwen3_moe,
    "GemmaForCausalLM": gemma,
    "Gemma2ForCausalLM": gemma2,
    "Gemma3ForCausalLM": gemma3,
}
"""By the names that config.json's `architectures` holds."""

_CHECKED_VALUES = 1 << 20

OnLayer = Callable[[str, int], None]


def why_not(source: Source) -> str | None:
    """Why conversions of this source cannot be certified; None where they can."""
    if isinstance(source, HuggingFaceSource):
        names = source.config.strings("architectures", [])
        return None if any(name in ORACLES for name in names) else f"no oracle for {printable(', '.join(names), 80)} yet"
    return None if source.architecture in ARCHS else f"ggpy does not run architecture {printable(source.architecture, 40)} yet"


def source_layers(source: Source) -> int:
    """How often `certify` calls `on_layer`."""
    return source.facts.n_layers + 2


def certify(source: Source, path: Path, threads: int, on_layer: OnLayer = lambda name, n: None) -> tuple[Certificate, str | None]:
    """The certificate of the GGUF file at `path`, made from `source`, and in one line what is wrong where it has not passed.

    on_layer(name, 1) is called after each layer of either. Raises GGPyError where one of the two cannot be run.
    """
    with open_gguf(path) as gguf, Products(threads) as products:
        file = RangeFile(path)
        try:
            arch = ARCHS[gguf.metadata.string("general.architecture")]
            config = arch.config(gguf)
            config = config.for_context(config.context_length)
            probe = probe_for(gguf.metadata, config.n_vocab, config.context_length)
            states = _counted(_unscaled(source, _source_states(source, arch, config, probe, products)), on_layer)
            with np.errstate(all="ignore"):  # weights may be absurd; what is not finite shows in the figures
                measured = measure(states, arch, config, rows_of(gguf, file), probe, products)
        finally:
            file.close()
        if not np.isfinite(measured.source_nll):
            raise ModelError("the source's own predictions are not finite")
        digest = source_digest(source, threads)
        return _certificate(measured, gguf, config, probe, digest)


def _certificate(measured: Measured, gguf: GGUFFile, config: Config, probe: Probe, digest: str) -> tuple[Certificate, str | None]:
    verdict = judge(measured, gguf.tensors.values(), config.n_vocab)
    kl = float(measured.kl.mean())
    blocks = [layer for layer in measured.layers if layer.name.startswith("blk.")]
    worst = max(blocks, key=lambda layer: layer.error)
    certificate = Certificate(
        text=TEXT_ID,
        tokens=len(probe.scored),
        kl=rounded(kl),
        kl_limit=rounded(verdict.kl_limit),
        top1=rounded(float(measured.agreed.mean())),
        nll=rounded(measured.file_nll, 4),
        source_nll=rounded(measured.source_nll, 4),
        worst_layer=int(worst.name.removeprefix("blk.")),
        worst_layer_error=rounded(worst.error),
        source=digest,
        passed=verdict.fault is None,
    )
    fault = verdict.fault and f"{verdict.fault}; KL {kl:.3g} nats from the source, expected below {verdict.kl_limit:.2g}"
    return certificate, fault


def _unscaled(source: Source, states: Iterator[State]) -> Iterator[State]:
    """The states without the stages of tensors that have scales folded into them, whose columns are others in the file."""
    for state in states:
        for stage in [stage for stage in state.stages if f"{state.name}.{stage}.weight" in source.scaled]:
            del state.stages[stage]
        yield state


def _source_states(source: Source, arch: Architecture, config: Config, probe: Probe, products: Products) -> Iterator[State]:
    if isinstance(source, HuggingFaceSource):
        names = source.config.strings("architectures")
        oracle = next(ORACLES[name] for name in names if name in ORACLES)
        config_read = {**source.config, **({"tie_word_embeddings": False} if source.apart else {})}
        return oracle(Parameters(config_read, partial(_parameter, source), products), probe)
    tensors = {t.name: Rows(t.name, t.rows, t.columns, t.open()) for t in source.tensors if t.n_values}
    return iter(_walked(arch, config, tensors, probe, products))


def _walked(arch: Architecture, config: Config, tensors: dict[str, Rows], probe: Probe, products: Products) -> list[State]:
    """The states of a GGUF source. Its names are the new file's, so that what is computed inside a layer need not be kept."""
    states: list[State] = []
    logits = walk(arch, config, tensors, probe, products, lambda state: states.append(State(state.name, state.hidden.copy())))
    return [*states, State(HEAD, logits)]


def _parameter(source: HuggingFaceSource, name: str) -> Rows | None:
    tensor = source.weights.get(source.apart.get(name, name))
    if tensor is None:
        return None
    if isinstance(tensor, QuantizedMatrix):
        return Rows(name, *tensor.shape, source.adapted(name, tensor.open()))
    return Rows(name, tensor.rows, tensor.columns, source.adapted(name, tensor.read))


def _counted(states: Iterator[State], on_layer: OnLayer) -> Iterator[State]:
    for state in states:
        on_layer(state.name, 1)
        yield state


def source_digest(source: Source, threads: int) -> str:
    """SHA-256 of what was converted: name, type, shape and CRC-32 of every tensor as the source stores it, in the order of their names. How
    it is cut into files does not matter."""
    workers = Workers(threads)
    try:
        lines = [f"{t.name} {t.dtype} {list(t.shape)} {_checksum(t, workers):08x}\n" for t in sorted(source.tensors, key=lambda t: t.name)]
    finally:
        workers.close()
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _checksum(tensor: SourceTensor, workers: Workers) -> int:
    read, step = tensor.raw or tensor.open(), max(1, _CHECKED_VALUES // max(1, tensor.columns))

    def checked(start: int) -> tuple[int, int]:
        rows = np.ascontiguousarray(read(start, min(start + step, tensor.rows)))
        return rows.nbytes, zlib.crc32(rows.data)

    return joined_crc32(workers.in_order(partial(checked, start) for start in range(0, tensor.rows, step)))
