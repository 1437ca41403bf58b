"""`ggpy-eval --task`: how many of a file's examples a model does rightly."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from ggpy.errors import GGPyError, printable

if TYPE_CHECKING:
    from ggpy.evaluate.tasks import TaskReport
    from ggpy.evaluate.tasks.report import Share

MAX_PREFIX = 1 << 20


def evaluate_task(args: argparse.Namespace) -> None:
    """Load what `args` names, have it do the task, print the figures on stdout and the progress on stderr."""
    import ggpy
    from ggpy.cli.model_file import find_model
    from ggpy.cli.status import Status
    from ggpy.evaluate import Store
    from ggpy.evaluate.tasks import read_task, run_task

    status = Status(args.prog)
    task = read_task(args.task, args.kind, args.labels or (), args.limit)
    prefix = ""
    if args.prefix:
        if args.prefix.stat().st_size > MAX_PREFIX:
            raise GGPyError(f"{printable(args.prefix)}: has {args.prefix.stat().st_size} bytes, expected at most {MAX_PREFIX}")
        prefix = args.prefix.read_bytes().decode("utf-8", "replace")
    path = find_model(args.model, status, args.threads)

    def show(done: int, total: int, accuracy: float) -> None:
        status.show(f"example {done} of {total}, {accuracy:.1%} right")

    with ggpy.load(
        path, threads=args.threads, context=args.ctx, on_compile=lambda kernel, *_: status.show(f"compiling {kernel[0]}")
    ) as model:
        store = None if args.no_cache else Store()
        found = run_task(model, task, prefix=prefix, max_tokens=args.max_tokens, chat=args.chat, store=store, on_example=show)
    status.clear()
    print(json.dumps(as_json(found)) if args.json else as_text(found, args.worst))


def as_json(found: TaskReport) -> dict[str, object]:
    """One object; an accuracy's errors stand beside it."""
    figures = dataclasses.asdict(found)
    for name in ("accuracy", "normalised"):
        share = figures.pop(name)
        if share:
            figures |= {name: share["value"], f"{name}_error": share["error"], f"{name}_interval": share["interval"]}
    for label, report in zip(figures["labels"], found.labels, strict=True):
        label["f1"] = report.f1
    return figures


def as_text(found: TaskReport, worst: int) -> str:
    """The figures, a line each, and the first of what was wrong."""
    known = f", {found.known_examples} of them answered in an earlier run" if found.known_examples else ""
    lines = [f"accuracy         {_share(found.accuracy)}"]
    if found.normalised:
        lines.append(f"normalised       {_share(found.normalised)}, by likelihood per character")
    lines.append(f"examples         {found.examples} ({found.kind}){known}, {found.seconds:.1f} s")
    if found.labels:
        lines.append(f"macro F1         {found.macro_f1:.4f}")
        lines += [
            f"  {printable(label.label, 40)}: {label.examples} examples, given {label.given} times, recall {label.recall:.1%}, "
            f"precision {label.precision:.1%}"
            for label in found.labels
        ]
    wrong = [one for one in found.outcomes if not one.is_right][:worst]
    if wrong:
        lines += ["", "wrong (the first)"]
        lines += [f"  line {one.line}: '{printable(one.said, 80)}', expected '{printable(one.expected, 80)}'" for one in wrong]
    return "\n".join(lines)


def _share(share: Share) -> str:
    return f"{share.value:.2%} ± {share.error:.2%} (95 %: {share.interval[0]:.2%} to {share.interval[1]:.2%})"
