"""A converted file must still be what its certificate says: the same bytes, finite scales, the same predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggpy.arch import ARCHS
from ggpy.converter.certificate.certify import certify, source_digest
from ggpy.converter.certificate.measure import negative_log_likelihood
from ggpy.converter.certificate.probe import TEXT_ID, probe_for
from ggpy.converter.certificate.products import Products, Rows
from ggpy.converter.certificate.record import Certificate, read_certificate, read_checksums, rounded
from ggpy.converter.certificate.walk import walk
from ggpy.converter.pipeline import open_source
from ggpy.converter.requantize import GGUFSource
from ggpy.errors import GGPyError, ModelError, printable
from ggpy.gguf import Metadata, open_gguf
from ggpy.mend.scan import scan

_TOLERANCE = 2e-3  # of figures that are kept with three or four digits, and computed again on another machine

OnProgress = Callable[[str, int], None]


@dataclass(frozen=True)
class Verification:
    """What was found of a file that is as it should be. checked: tensors whose checksum was kept, and is right. certificate: the stored
    one; nll: what the text gives now; repeated: the certificate made again from the source, where it was given."""

    path: Path
    tensors: int
    checked: int
    certificate: Certificate | None
    nll: float | None
    repeated: Certificate | None = None

    def __str__(self) -> str:
        digests = (
            f"{self.checked} tensors have the checksums they were written with" if self.checked else "no checksums are kept in the file"
        )
        lines = [f"{printable(self.path)}: {self.tensors} tensors, all finite; {digests}"]
        if self.certificate and self.nll is not None:
            lines.append(f"the text of the certificate gives {self.nll:.4g} nats per token again; as converted: {self.certificate}")
        elif self.nll is None and self.certificate is None:
            lines.append("no certificate is kept in the file: convert with --verify full, or compare with its source by --source")
        if self.repeated:
            lines.append(f"against the source once more: {self.repeated}")
        return "\n".join(lines)


def verify(path: Path, threads: int, source: Path | None = None, on_progress: OnProgress = lambda what, n: None) -> Verification:
    """Check the GGUF file at `path`; with `source`, what it was made from, make its certificate again.

    Raises GGPyError for the first thing that is not as it should be.
    """
    file = GGUFSource(path)
    try:
        metadata = _metadata(path)
        kept, certificate = read_checksums(metadata, len(file.tensors)), read_certificate(metadata)
        for i, tensor in enumerate(scan(file, threads, on_progress)):
            if tensor.fault:
                raise GGPyError(f"{printable(path)}: tensor {printable(tensor.name)} {tensor.fault}, expected finite numbers: damaged?")
            if kept is not None and kept[i] != tensor.checksum:
                raise GGPyError(
                    f"{printable(path)}: tensor {printable(tensor.name)} has CRC-32 {tensor.checksum:08x}, but was written with "
                    f"{kept[i]:08x}: damaged, or changed since"
                )
        nll = None if certificate is None else _nll(path, file, certificate, threads)
        n_tensors = len(file.tensors)
    finally:
        file.close()
    repeated = _repeat(path, source, certificate, threads, on_progress) if source is not None else None
    return Verification(path, n_tensors, n_tensors if kept is not None else 0, certificate, nll, repeated)


def _metadata(path: Path) -> Metadata:
    with open_gguf(path) as gguf:
        return gguf.metadata


def _nll(path: Path, file: GGUFSource, certificate: Certificate, threads: int) -> float | None:
    """The mean negative log-likelihood of the certificate's text; None where it was made with another text."""
    if certificate.text != TEXT_ID:
        return None
    with open_gguf(path) as gguf, Products(threads) as products:
        arch = ARCHS.get(file.architecture)
        if arch is None:
            raise ModelError(f"{printable(path)}: ggpy does not run architecture {printable(file.architecture, 40)}")
        config = arch.config(gguf)
        config = config.for_context(config.context_length)
        probe = probe_for(gguf.metadata, config.n_vocab, config.context_length)
        tensors = {t.name: Rows(t.name, t.rows, t.columns, t.open()) for t in file.tensors if t.n_values}
        logits = walk(arch, config, tensors, probe, products, lambda state: None)
        nll = rounded(negative_log_likelihood(logits[: len(probe.scored)], probe.ids[probe.scored]), 4)
    if not abs(nll - certificate.nll) <= _TOLERANCE * max(1.0, abs(certificate.nll)):
        raise GGPyError(
            f"{printable(path)}: the text of its certificate gives {nll:.4g} nats per token, but gave {certificate.nll:.4g} when it was "
            "converted: metadata changed since?"
        )
    return nll


def _repeat(path: Path, source: Path, kept: Certificate | None, threads: int, on_progress: OnProgress) -> Certificate:
    opened = open_source(source)
    try:
        found = source_digest(opened, threads)
        if kept is not None and kept.source != found:
            digests = f"SHA-256 {found[:16]}…, expected {kept.source[:16]}…"
            raise GGPyError(f"{printable(source)}: its tensors are not those the file was made from ({digests})")
        made, fault = certify(opened, path, threads, on_progress)
    finally:
        opened.close()
    if fault is not None:
        raise GGPyError(f"{printable(path)}: not certified: {fault}")
    if kept is not None and not np.isclose(made.kl, kept.kl, rtol=0.05, atol=1e-5):
        raise GGPyError(f"{printable(path)}: KL {made.kl:.3g} nats from the source, but its certificate says {kept.kl:.3g}")
    return made
