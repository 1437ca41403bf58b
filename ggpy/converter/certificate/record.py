"""The certificate as a file's metadata keeps it: keys of a fixed size, reserved before the header is written and filled in at the end."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ggpy.converter.certificate.probe import TEXT_ID
from ggpy.gguf import GGUFWriter, Metadata, ValueType

PREFIX = "ggpy."
"""Keys that are about a file as it was written; a file made from it does not take them over."""
CHECKSUMS = "ggpy.tensor_crc32"
_KEY = "ggpy.certificate."


@dataclass(frozen=True)
class Certificate:
    """How a file's predictions on a short text compare with those of what it was made from.

    text: names the text and how it is read. tokens: whose predictions were compared. kl: mean KL(source || file) in nats per token;
    kl_limit: what its formats explain at the most. top1: share of tokens after which both find the same one most likely. nll, source_nll:
    mean negative log-likelihood of these tokens in nats, by the file and by the source. worst_layer: the layer whose own error is largest,
    and worst_layer_error, relative to what the layer adds. source: SHA-256 of the source's tensors (names, types, shapes, CRC-32), in
    hexadecimal. passed: whether everything was as its formats explain.
    """

    text: str
    tokens: int
    kl: float
    kl_limit: float
    top1: float
    nll: float
    source_nll: float
    worst_layer: int
    worst_layer_error: float
    source: str
    passed: bool

    def __str__(self) -> str:
        """One line for a summary."""
        return (
            f"KL {self.kl:.2g} nats from the source (expected below {self.kl_limit:.2g}), {self.top1:.1%} same first choice, over "
            f"{self.tokens} tokens; worst layer blk.{self.worst_layer}, {self.worst_layer_error:.2%} off by itself"
        )


_TYPES = {"str": ValueType.STRING, "int": ValueType.UINT32, "float": ValueType.FLOAT32, "bool": ValueType.BOOL}
_KINDS = {field.name: _TYPES[str(field.type)] for field in fields(Certificate)}
NOTHING = Certificate(TEXT_ID, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, "0" * 64, False)
"""What a file says that could not be certified: 0 tokens."""


def rounded(value: float, digits: int = 3) -> float:
    """To as many digits as do not depend on the order in which floats are added; 0 for what is less than float32 arithmetic leaves."""
    return 0.0 if abs(value) < 1e-6 else float(np.float32(f"{value:.{digits}g}"))


def reserve(writer: GGUFWriter, n_tensors: int, certificate: bool) -> None:
    """Declare the keys, with nothing in them yet."""
    writer.add(CHECKSUMS, np.zeros(n_tensors, np.uint32))
    if certificate:
        for name, kind in _KINDS.items():
            writer.add(_KEY + name, getattr(NOTHING, name), kind)


def fill_in(writer: GGUFWriter, checksums: list[int], certificate: Certificate | None) -> None:
    """Give the reserved keys their values."""
    values: dict[str, tuple[Any, ValueType | None]] = {CHECKSUMS: (np.array(checksums, np.uint32), None)}
    if certificate is not None:
        values |= {_KEY + name: (getattr(certificate, name), kind) for name, kind in _KINDS.items()}
    writer.amend(values)


def withdrawn(key: str, metadata: Metadata) -> tuple[Any, ValueType] | None:
    """What a certificate's key holds in a file whose model is not the certified one any more; None for any other key."""
    name = key.removeprefix(_KEY)
    if not key.startswith(_KEY) or name not in _KINDS or metadata.value_type(key) is not _KINDS[name]:
        return None
    return getattr(NOTHING, name), _KINDS[name]


def read_certificate(metadata: Metadata) -> Certificate | None:
    """The certificate in a file's metadata; None where it has none. Raises GGUFError for keys of another type."""
    if _KEY + "text" not in metadata:
        return None
    getters = {"str": metadata.string, "int": metadata.integer, "float": metadata.number, "bool": metadata.boolean}
    found = Certificate(**{field.name: getters[str(field.type)](_KEY + field.name) for field in fields(Certificate)})
    return found if found.tokens else None


def read_checksums(metadata: Metadata, n_tensors: int) -> list[int] | None:
    """CRC-32 of every tensor, in the order of the tensor table; None where the file has none, or of another number of tensors."""
    values = metadata.integers(CHECKSUMS, None)
    return values.tolist() if values is not None and len(values) == n_tensors else None
