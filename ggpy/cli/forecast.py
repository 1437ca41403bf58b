"""What ggpy-convert says before it converts: --explain and --plan."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ggpy.converter.explain import LLAMA_8B, explain, recipe_table
from ggpy.converter.forecast import forecast
from ggpy.converter.options import Options
from ggpy.converter.pipeline import open_source
from ggpy.converter.recipes import find_recipe
from ggpy.converter.tensor_types import TensorInfo
from ggpy.errors import GGPyError, printable


def show_explanation(name: str, source: Path | None) -> None:
    """Five lines on one recipe, for a source's own tensors where there is one; or a table of all."""
    if name.lower() == "all":
        if source is not None:
            raise GGPyError(f"--explain all is a table for {LLAMA_8B}: name one type to explain it for a model")
        rows = [("type", "most weights", "bits/weight", "with imatrix"), *map(_row, recipe_table())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print(f"bits per weight on {LLAMA_8B}, norms included")
        for row in rows:
            print("  ".join(f"{cell:{'<' if i < 2 else '>'}{widths[i]}}" for i, cell in enumerate(row)))
        return
    recipe = find_recipe(name)
    if source is None:
        print("\n".join(explain(recipe)))
        return
    model = open_source(source)
    try:
        infos = [TensorInfo(t.name, t.shape, t.kept) for t in model.tensors]
        print("\n".join(explain(recipe, infos, model.facts, printable(model.name, 80))))
    finally:
        model.close()


def show_plan(source: Path, out: str | None, options: Options, context: int | None, *, as_json: bool) -> None:
    """Every tensor's type, the file's size and what running it takes."""
    found = forecast(source, Path(out) if out else None, options, context)
    if as_json:
        json.dump(found.to_json(), sys.stdout, indent=2, allow_nan=False)
        print()
    else:
        print(found)


def _row(row: tuple[str, str, float, float, bool]) -> tuple[str, ...]:
    name, format, plain, weighted, needed = row
    return name, format, "needs one" if needed else f"{plain:.3f}", f"{weighted:.3f}"
