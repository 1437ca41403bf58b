"""What a conversion did, tensor by tensor, and what it cost."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ggpy.blocks import BLOCKS
from ggpy.converter.certificate.record import Certificate
from ggpy.converter.repacked import repacking_lines
from ggpy.errors import printable


@dataclass(frozen=True)
class TensorReport:
    """One tensor of the new file.

    origin, dtype: its name and type in the source. format: its block format. wanted: what the recipe asked for where it could not be had.
    relative_rmse: ‖decoded − source‖ / ‖source‖, None where it was not measured. method: by what a checkpoint's tensor was quantized.
    repacked: "exact" or "rounded" where its quants were taken as they are; worst_error: then the largest difference of a weight as a part
    of its block's largest magnitude, where it was measured.
    """

    name: str
    origin: str
    dtype: str
    format: str
    shape: tuple[int, ...]
    n_bytes: int
    wanted: str | None = None
    relative_rmse: float | None = None
    method: str | None = None
    repacked: str | None = None
    worst_error: float | None = None

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)

    @property
    def requantized(self) -> bool:
        """Whether its quantized weights were decoded and quantized again."""
        quantized = self.method is not None or (self.dtype in BLOCKS and BLOCKS[self.dtype].block_values > 1)
        return quantized and self.repacked is None and self.format != self.dtype and BLOCKS[self.format].block_values > 1

    @property
    def kind(self) -> str:
        """What the tensor is, the same in every layer: "attn_q", "token_embd"."""
        return re.sub(r"^blk\.\d+\.", "", self.name).removesuffix(".weight")


@dataclass(frozen=True)
class KindReport:
    """The tensors of one kind together. formats: each with the number of tensors that have it."""

    kind: str
    formats: dict[str, int]
    n_values: int
    n_bytes: int
    relative_rmse: float | None

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.n_bytes / self.n_values if self.n_values else 0.0


@dataclass(frozen=True)
class Report:
    """A finished conversion.

    path: the new file, of file_bytes. recipe: its type, such as "Q4_K_M". seconds: from start to durable file. verified: whether it was
    read back and found as meant. warnings: what was decided on the way, one line each. tokenizer: how the exported tokenizer was checked,
    if it was. imatrix: what the importance matrix knows of the model, if there was one. n_resumed: tensors that an interrupted conversion
    had written before. certificate: how the file's predictions compare with the source's; uncertified: in one line, why that is not known.
    merged: the adapters that were merged on the way, one line each.
    """

    path: Path
    recipe: str
    tensors: tuple[TensorReport, ...]
    file_bytes: int
    seconds: float
    verified: bool
    warnings: tuple[str, ...] = ()
    tokenizer: str | None = None
    imatrix: str | None = None
    n_resumed: int = 0
    certificate: Certificate | None = None
    uncertified: str | None = None
    merged: tuple[str, ...] = ()

    @property
    def n_values(self) -> int:
        return sum(tensor.n_values for tensor in self.tensors)

    @property
    def n_bytes(self) -> int:
        """Of all tensors together; metadata and padding are not counted."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.n_bytes / self.n_values if self.n_values else 0.0

    @property
    def measured(self) -> bool:
        """Whether the errors were measured."""
        return any(tensor.relative_rmse is not None for tensor in self.tensors)

    @property
    def requantized(self) -> tuple[str, ...]:
        """The quantized formats of the source that were decoded and quantized again."""
        return tuple(sorted({tensor.method or tensor.dtype for tensor in self.tensors if tensor.requantized}))

    @property
    def fallbacks(self) -> tuple[TensorReport, ...]:
        """Tensors that could not have the format their recipe asked for."""
        return tuple(tensor for tensor in self.tensors if tensor.wanted)

    def kinds(self) -> list[KindReport]:
        """The tensors by kind, the largest kind first."""
        groups: dict[str, list[TensorReport]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.kind, []).append(tensor)
        return sorted((_summarize(kind, group) for kind, group in groups.items()), key=lambda k: (-k.n_bytes, k.kind))

    def __str__(self) -> str:
        """The closing summary: what each kind of tensor takes and, where it was measured, how far it is from the source."""
        header = ("tensors", "types", "size", "bits/weight", *(("error",) if self.measured else ()))
        rows = [_kind_row(kind) for kind in self.kinds()]
        whole = ("all", "", size_in_words(self.n_bytes), f"{self.bits_per_weight:.3f}", *_percent(_pooled(self.tensors)))
        lines = table([header, *rows, whole], left=2)
        for (format, wanted), count in Counter((t.format, t.wanted) for t in self.fallbacks).items():
            subject = "1 tensor is" if count == 1 else f"{count} tensors are"
            lines.append(f"{subject} {format}, not {wanted}: rows or values do not allow it")
        lines += repacking_lines(self.tensors)
        if again := {t.dtype for t in self.tensors if t.requantized and not t.method}:
            lines.append(
                f"error: against the weights that the source's {', '.join(sorted(again))} stand for, whose own error comes on top of it"
            )
        lines += [*self.merged, *(line for line in (self.imatrix, self.tokenizer) if line)]
        if self.n_resumed:
            lines.append(f"{self.n_resumed} of {len(self.tensors)} tensors were there already, from a conversion that was interrupted")
        if self.certificate:
            lines.append(str(self.certificate))
        elif self.uncertified:
            lines.append(f"not certified: {self.uncertified}")
        verified = "read back and found as meant" if self.verified else "not read back"
        lines.append(f"{printable(self.path)}: {size_in_words(self.file_bytes)} in {self.seconds:.1f} s, {verified}")
        return "\n".join(lines)

    def error_table(self) -> str:
        """Every tensor's error, the largest first; empty where none was measured."""
        if not self.measured:
            return ""
        worst_first = sorted(self.tensors, key=lambda tensor: -(tensor.relative_rmse or 0.0))
        rows = [(printable(t.name, 64), t.dtype, t.format, *_percent(t.relative_rmse)) for t in worst_first]
        return "\n".join(table([("tensor", "from", "to", "error"), *rows], left=3))

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "path": str(self.path),
            "type": self.recipe,
            "file_bytes": self.file_bytes,
            "n_values": self.n_values,
            "bits_per_weight": self.bits_per_weight,
            "seconds": self.seconds,
            "verified": self.verified,
            "warnings": list(self.warnings),
            "tokenizer": self.tokenizer,
            "merged": list(self.merged),
            "imatrix": self.imatrix,
            "requantized": list(self.requantized),
            "n_resumed": self.n_resumed,
            "certificate": asdict(self.certificate) if self.certificate else None,
            "uncertified": self.uncertified,
            "kinds": [asdict(kind) | {"bits_per_weight": kind.bits_per_weight} for kind in self.kinds()],
            "tensors": [asdict(tensor) for tensor in self.tensors],
        }


def table(rows: list[tuple[str, ...]], left: int) -> list[str]:
    """Rows as lines with aligned columns, the first `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(row)).rstrip() for row in rows]


def _kind_row(kind: KindReport) -> tuple[str, ...]:
    formats = ", ".join(f"{count} {format}" for format, count in kind.formats.items())
    return kind.kind, formats, size_in_words(kind.n_bytes), f"{kind.bits_per_weight:.3f}", *_percent(kind.relative_rmse)


def _percent(error: float | None) -> tuple[str, ...]:
    return () if error is None else (f"{error:.3%}",)


def size_in_words(n_bytes: int) -> str:
    """A size as it is shown, such as "1.23 GiB"."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.2f} {unit}"
    return f"{n_bytes} B"


def _summarize(kind: str, tensors: list[TensorReport]) -> KindReport:
    formats: dict[str, int] = {}
    for tensor in tensors:
        formats[tensor.format] = formats.get(tensor.format, 0) + 1
    n_values, n_bytes = sum(t.n_values for t in tensors), sum(t.n_bytes for t in tensors)
    return KindReport(kind, formats, n_values, n_bytes, _pooled(tensors))


def _pooled(tensors: Iterable[TensorReport]) -> float | None:
    """Root mean square of the tensors' relative errors, weighted by their number of values; None unless all were measured."""
    total = count = 0.0
    for tensor in tensors:
        if tensor.relative_rmse is None:
            return None
        total += tensor.n_values * tensor.relative_rmse**2
        count += tensor.n_values
    return math.sqrt(total / count) if count else 0.0
