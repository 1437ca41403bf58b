"""What a new file must show before it gets its name: that it holds the bytes that were meant, and predicts what its source predicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ggpy.converter.certificate.certify import certify, source_layers, why_not
from ggpy.converter.certificate.record import Certificate, fill_in, reserve
from ggpy.converter.checksums import joined_crc32
from ggpy.converter.options import Options
from ggpy.converter.progress import Meter
from ggpy.converter.source import Source
from ggpy.converter.stream import Written
from ggpy.converter.tensor_types import PlannedTensor
from ggpy.converter.verify import verify_file
from ggpy.errors import GGPyError, printable
from ggpy.gguf import GGUFWriter


class Proof:
    """level: one of `VERIFY`. certificate: what was found; uncertified: in one line, why there is none. warnings: what was let pass."""

    def __init__(self, source: Source, target: Path, options: Options):
        self.level = options.level
        self._source, self._target, self._options = source, target, options
        self.certificate: Certificate | None = None
        self.uncertified = why_not(source) if self.level == "full" else None
        self.warnings: list[str] = []

    def reserve(self, writer: GGUFWriter) -> None:
        """Declare the keys that `complete` fills in."""
        reserve(writer, len(self._source.tensors), self._certifies)

    def complete(self, writer: GGUFWriter, planned: Mapping[str, PlannedTensor], written: Mapping[str, Written]) -> None:
        """Verify the written file, which still has its temporary name. Raises GGPyError where it is not what it should be."""
        options = self._options
        if self.level != "none":
            meter = Meter("verify", writer.file_size, options.on_progress)
            verify_file(writer.partial, self._target, planned, written, options.workers, meter)
        if self._certifies:
            self._certify(writer)
        checksums = [
            joined_crc32((piece.n_bytes, piece.checksum) for piece in written[tensor.name].pieces) for tensor in self._source.tensors
        ]
        fill_in(writer, checksums, self.certificate)

    @property
    def _certifies(self) -> bool:
        return self.level == "full" and self.uncertified is None

    def _certify(self, writer: GGUFWriter) -> None:
        meter = Meter("certify", source_layers(self._source), self._options.on_progress)
        try:
            self.certificate, fault = certify(self._source, writer.partial, self._options.workers, meter)
        except GGPyError as error:
            self.uncertified = str(error)
            return
        if fault is None:
            return
        if not self._options.allow_uncertified:
            raise GGPyError(f"{printable(self._target)}: not certified: {fault} (--allow-uncertified, allow_uncertified=True, keeps it)")
        self.warnings.append(f"not certified: {fault}")
