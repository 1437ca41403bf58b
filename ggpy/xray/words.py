"""What an examination says in sentences: where the loss is, and what stands out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ggpy.errors import printable
from ggpy.xray.channels import Outlier
from ggpy.xray.record import TensorXray, Xray, decibels

_ENOUGH = 0.7  # of the loss: as many tensors are named as carry it
_NAMED = 12  # tensors named at most
_NOTABLE = 1.25  # times its share of the weights that a kind's share of the loss is worth a word
_CODABLE = 0.02  # of the bits spent
_CLIPPED = 1e-4  # of the weights


def sentences(found: Xray) -> list[str]:
    """The findings, the most important first, one sentence or two each."""
    said: list[str] = []
    said += _faults(found)
    if found.base is not None:
        said += _whole(found)
        said += _concentration(found)
        said += _kinds(found)
        said += _worst(found)
        said += _clipped(found)
        said += _lost(found)
    said += _outliers(found)
    said += _levels(found)
    said += _entropy(found)
    said += _uncompared(found)
    return said


def _faults(found: Xray) -> Iterable[str]:
    bad = [tensor for tensor in found.tensors if tensor.nonfinite]
    if bad:
        first = bad[0]
        where = f", first in row {first.bad[0]}, column {first.bad[1]}" if first.bad else ""
        yield f"{_count(len(bad), 'tensor')} with NaN or infinity: {_name(first)} has {first.nonfinite} such weights{where}."
    zero = [tensor for tensor in found.tensors if tensor.peak == 0 and tensor.n_values and not tensor.nonfinite and tensor.error is None]
    if zero:
        yield f"{_count(len(zero), 'tensor')} of nothing but zeros: {names(zero)}."


def _whole(found: Xray) -> Iterable[str]:
    error = found.relative_rmse
    compared = found.compared
    if error is None:
        return
    equal = [tensor for tensor in compared if tensor.error and tensor.error.equal]
    if len(equal) == len(compared):
        yield f"All {len(compared)} tensors have the base's values, to the bit."
        return
    spent = f"at {found.bits_per_weight:.3f} bits per weight"
    yield f"The weights differ from the base's by {percent(error)} ({shown_decibels(decibels(error))}) {spent}" + (
        f"; {len(equal)} of {len(compared)} tensors have the same values." if equal else "."
    )


def _concentration(found: Xray) -> Iterable[str]:
    ranked = [tensor for tensor in found.by_loss if tensor.error and tensor.error.share]
    if len(ranked) < 2:
        return
    share, several = 0.0, []
    for tensor in ranked:
        if share >= _ENOUGH or len(several) == _NAMED:
            break
        assert tensor.error and tensor.error.share
        several.append(tensor)
        share += tensor.error.share
    weights = sum(tensor.n_values for tensor in several) / sum(tensor.n_values for tensor in ranked)
    these = "This tensor carries" if len(several) == 1 else f"These {len(several)} tensors carry"
    yield f"{these} {percent(share)} of the loss with {percent(weights)} of the weights: {names(several)}."


def _kinds(found: Xray) -> Iterable[str]:
    for kind, tensors in by_kind(found.compared).items():
        share = sum(tensor.error.share or 0.0 for tensor in tensors if tensor.error)
        weights = sum(tensor.n_values for tensor in tensors) / max(1, sum(tensor.n_values for tensor in found.compared))
        if len(tensors) > 1 and share >= 0.1 and share >= _NOTABLE * weights:
            types = ", ".join(sorted({tensor.format for tensor in tensors}))
            yield f"{printable(kind, 64)} ({types}) carries {percent(share)} of the loss with {percent(weights)} of the weights."


def _worst(found: Xray) -> Iterable[str]:
    whole = found.relative_rmse or 0.0
    errors = [(tensor.error.relative_rmse, tensor) for tensor in found.compared if tensor.error and not tensor.error.equal]
    finite = [pair for pair in errors if math.isfinite(pair[0])]
    if not finite:
        return
    error, tensor = max(finite, key=lambda pair: pair[0])
    if error > 1.5 * whole:
        yield f"The largest error of a tensor is {_name(tensor)}'s, {percent(error)} as {tensor.format}."


def _clipped(found: Xray) -> Iterable[str]:
    counts = [(tensor.quants.clipped, tensor) for tensor in found.compared if tensor.quants and tensor.quants.clipped]
    total = sum(count for count, _ in counts)
    if counts and total > _CLIPPED * found.n_values:
        most, tensor = max(counts, key=lambda pair: pair[0] / pair[1].n_values)
        yield (
            f"{percent(total / found.n_values)} of the weights lie half a step or more beyond the range of their block and are clipped; "
            f"most of all in {_name(tensor)}, {percent(most / tensor.n_values)}."
        )


def _lost(found: Xray) -> Iterable[str]:
    lost = [tensor for tensor in found.compared if tensor.error and tensor.error.lost]
    if lost:
        n_blocks = sum(tensor.error.lost for tensor in lost if tensor.error)
        yield f"{_count(n_blocks, 'block')} of nothing but zeros, which the base has not: in {names(lost)}."


def _outliers(found: Xray) -> Iterable[str]:
    """Of each side, the channels that stand out most."""
    for side, noun in (("columns", "column"), ("rows", "row")):
        for what in ("magnitude", "error", "input"):
            all_of: list[tuple[Outlier, TensorXray]] = []
            n_outliers = 0
            for tensor in found.tensors:
                channels = getattr(tensor, side)
                if channels is None:
                    continue
                n_outliers += channels.n_outliers.get(what, 0)
                all_of += [(outlier, tensor) for outlier in channels.named(what)[:1]]
            if not all_of:
                continue
            all_of.sort(key=lambda pair: -pair[0].times)
            listed = ", ".join(f"{noun} {outlier.index} of {_name(tensor)} ({outlier.times:.3g} ×)" for outlier, tensor in all_of[:3])
            more = ", …" if len(all_of) > 3 else ""
            who = f"{_count(n_outliers, noun)} in {_count(len(all_of), 'tensor')} {_verb(n_outliers, what)}"
            yield f"{who} at least {found.factor:g} times the median one's: {listed}{more or '.'}"


def _verb(count: int, what: str) -> str:
    has = "has" if count == 1 else "have"
    return {"magnitude": f"{has} a magnitude", "error": f"{has} an error", "input": f"{'meets' if count == 1 else 'meet'} an input"}[what]


def _levels(found: Xray) -> Iterable[str]:
    """Levels that a format has and a tensor hardly uses. One that is never used is what encoders that keep to symmetry leave."""
    wasteful = [tensor for tensor in found.tensors if tensor.quants and len(tensor.quants.unused) > 1 and tensor.peak > 0]
    if wasteful:
        most = max(wasteful, key=lambda tensor: len(tensor.quants.unused) / len(tensor.quants.levels) if tensor.quants else 0)
        assert most.quants
        unused = f"{len(most.quants.unused)} of {len(most.quants.levels)} in {_name(most)}"
        use = "uses" if len(wasteful) == 1 else "use"
        yield f"{_count(len(wasteful), 'tensor')} never {use} two or more levels of the format: {unused}."


def _entropy(found: Xray) -> Iterable[str]:
    known = [tensor for tensor in found.tensors if tensor.quants and tensor.quants.entropy is not None]
    weights = sum(tensor.n_values for tensor in known)
    if not weights:
        return
    spent = sum(tensor.n_values * (tensor.quants.level_bits or 0.0) for tensor in known if tensor.quants) / weights
    carried = sum(tensor.n_values * (tensor.quants.entropy or 0.0) for tensor in known if tensor.quants) / weights
    if spent - carried > _CODABLE * spent:
        n_bytes = (spent - carried) * weights / 8
        yield (
            f"A quant takes {spent:.2f} bits and carries {carried:.2f} (entropy of quants taken one by one): {n_bytes / 2**20:.1f} MiB of "
            f"{sum(tensor.n_bytes for tensor in known) / 2**20:.1f} MiB."
        )


def _uncompared(found: Xray) -> Iterable[str]:
    if found.base is None:
        return
    groups: dict[str, list[TensorXray]] = {}
    for tensor in found.tensors:
        if tensor.why:
            groups.setdefault(tensor.why, []).append(tensor)
    for why, tensors in groups.items():
        yield f"Not compared, {printable(why, 100)}: {names(tensors)}."
    if found.missing:
        some = ", ".join(printable(name, 64) for name in found.missing[:5])
        yield f"Only in the base: {some}{', …' if len(found.missing) > 5 else ''}."
    unweighted = [tensor for tensor in found.compared if tensor.error and tensor.error.loss is None]
    if unweighted:
        yield f"Without a share of the loss, as nothing is known of their inputs: {names(unweighted)}."


def by_kind(tensors: Iterable[TensorXray]) -> dict[str, list[TensorXray]]:
    """Tensors by what they are, the kind with the largest share of the loss first; without a base that with the most weights."""
    groups: dict[str, list[TensorXray]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.kind, []).append(tensor)
    size = lambda group: (sum((t.error.share or 0.0) if t.error else 0.0 for t in group), sum(t.n_values for t in group))  # noqa: E731
    return dict(sorted(groups.items(), key=lambda item: size(item[1]), reverse=True))


def names(tensors: Sequence[TensorXray], limit: int = _NAMED) -> str:
    """Such as "ffn_down of layers 3, 7 and 12; token_embd"."""
    groups: dict[str, list[int]] = {}
    for tensor in tensors[:limit]:
        layers = groups.setdefault(tensor.kind, [])
        if tensor.layer is not None:
            layers.append(tensor.layer)
    parts = [printable(kind, 64) + (f" of {_layers(sorted(layers))}" if layers else "") for kind, layers in groups.items()]
    return "; ".join(parts) + (f"; and {len(tensors) - limit} more" if len(tensors) > limit else "")


def _layers(layers: list[int]) -> str:
    """Such as "layer 3", "layers 3, 5 to 9 and 12"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    shown = [text for run in runs for text in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    listed = f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
    return f"layer {listed}" if len(layers) == 1 else f"layers {listed}"


def percent(share: float) -> str:
    """Three digits of a percentage, such as "0.0123 %", "5.12 %", "71.0 %"; no more of a large one."""
    if not math.isfinite(share):
        return str(share)
    if share >= 0.9995:
        return f"{100 * share:.0f} %"
    if 0 < share < 1e-6:
        return f"{100 * share:.1e} %"
    digits = 2 if share == 0 else max(1, 2 - math.floor(math.log10(100 * share) + 1e-9))
    return f"{100 * share:.{digits}f} %"


def shown_decibels(value: float) -> str:
    return "∞ dB" if value == math.inf else f"{value:.1f} dB"


def _name(tensor: TensorXray) -> str:
    return printable(tensor.name.removesuffix(".weight"), 64)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", " ")
