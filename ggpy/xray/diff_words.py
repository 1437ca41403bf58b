"""Two files side by side in sentences: which is nearer to the base, by how much, and where."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ggpy.errors import printable
from ggpy.xray.diff import Differences, TensorDifference
from ggpy.xray.record import decibels
from ggpy.xray.words import percent, shown_decibels

_A_BIT = 20 * math.log10(2)  # dB that one bit more per weight is worth, halving every step
_LITTLE = 0.005  # dB that count as no difference
_NAMED = 6


def diff_sentences(found: Differences) -> list[str]:
    """The findings, the most important first; keys that differ are not among them."""
    a, b = found.bits_per_weight
    said = [f"A has {a:.3f} bits per weight, B {b:.3f}; {found.n_equal} tensors are equal to the byte."]
    if found.base is not None:
        said += _better(found)
        said += _moved(found)
    else:
        said += _apart(found)
    said += _only(found)
    return said


def _better(found: Differences) -> Iterable[str]:
    gains = [tensor.gain for tensor in found.tensors if tensor.gain is not None]
    if not gains or found.base_errors is None or found.base is None:
        return
    nearer_a, nearer_b = sum(gain < -_LITTLE for gain in gains), sum(gain > _LITTLE for gain in gains)
    what = "outputs" if found.imatrix else "weights"
    a, b = found.base_errors
    yield (
        f"Against {printable(found.base.name, 80)}, A's {what} are off by {percent(a)} ({shown_decibels(decibels(a))}), "
        f"B's by {percent(b)} ({shown_decibels(decibels(b))})" + _verdict(found, decibels(b) - decibels(a) if a != b else 0.0)
    )
    yield (
        f"Of {len(gains)} {'tensor that differs' if len(gains) == 1 else 'tensors that differ'}, B is nearer to the base in {nearer_b}, "
        f"A in {nearer_a}."
    )


def _verdict(found: Differences, gain: float) -> str:
    """Who is better in all, and whether that is more than its bits are worth."""
    if abs(gain) <= _LITTLE or not math.isfinite(gain):
        return "." if gain else ": no difference."
    a, b = found.bits_per_weight
    better, more = ("B", b - a) if gain > 0 else ("A", a - b)
    if abs(more) < 0.0005:
        return f": {better} is better by {abs(gain):.2f} dB at the same size."
    size = f"{abs(more):.3f} bits per weight {'more' if more > 0 else 'less'}"
    worth = f", which alone would be {'worth' if more > 0 else 'a loss of'} {abs(more) * _A_BIT:.2f} dB"
    return f": {better} is better by {abs(gain):.2f} dB with {size}{worth}."


def _moved(found: Differences) -> Iterable[str]:
    """Where most was gained, and where lost."""
    for sign, what in ((1, "B gains most"), (-1, "B loses most")):
        several = sorted((t for t in found.tensors if t.moved * sign > 0 and math.isfinite(t.moved)), key=lambda t: -t.moved * sign)
        if several:
            listed = ", ".join(f"{_name(t)} ({_both(t)}, {shown_gain(t)})" for t in several[:_NAMED])
            yield f"{what} in {listed}{', …' if len(several) > _NAMED else '.'}"


def _apart(found: Differences) -> Iterable[str]:
    compared = [tensor for tensor in found.ranked if tensor.error is not None]
    if not compared:
        return
    listed = ", ".join(f"{_name(t)} ({_both(t)}, {percent(t.error.relative_rmse)})" for t in compared[:_NAMED] if t.error)
    yield f"B's weights are farthest from A's in {listed}{', …' if len(compared) > _NAMED else '.'}"


def _only(found: Differences) -> Iterable[str]:
    for side, in_a in (("A", True), ("B", False)):
        names = [t.name for t in found.tensors if (t.b if in_a else t.a) is None]
        if names:
            some = ", ".join(printable(name, 64) for name in names[:_NAMED])
            yield f"Only in {side}: {some}{', …' if len(names) > _NAMED else '.'}"


def shown_gain(tensor: TensorDifference) -> str:
    """Such as "B +3.20 dB", by which B is nearer to the base, or "A +0.41 dB"."""
    gain = tensor.gain
    if gain is None or gain != gain:
        return ""
    return "equal" if abs(gain) <= _LITTLE else f"{'B' if gain > 0 else 'A'} +{abs(gain):.2f} dB"


def _name(tensor: TensorDifference) -> str:
    return printable(tensor.name.removesuffix(".weight"), 64)


def _both(tensor: TensorDifference) -> str:
    """The types, once where both are the same."""
    a, b = ((side or "missing").split()[0] for side in (tensor.a, tensor.b))
    return a if a == b else f"{a} → {b}"
