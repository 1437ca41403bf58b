"""What the comparisons with llama.cpp share: programs run in turns, figures as medians of rounds, tables in Markdown."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def run_text(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a command prints on stdout. SystemExit with its last line of stderr when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    except OSError as error:
        raise SystemExit(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise SystemExit(f"{shlex.join(command)} failed ({done.returncode}): {said}")
    return done.stdout


def run_json(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """The JSON that a command prints. SystemExit when it fails or prints anything else."""
    text = run_text(command, environment)
    try:
        return json.loads(text)
    except ValueError:
        raise SystemExit(f"{shlex.join(command)} printed no JSON: {text[:200]!r}") from None


def ggpy_environment(settings: Sequence[str] = ()) -> dict[str, str]:
    """The environment for this checkout's ggpy, with settings such as NUMBA_CPU_NAME=haswell."""
    own = {name: value for name, _, value in (setting.partition("=") for setting in settings)}
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    return os.environ | {"PYTHONPATH": path} | own


def ggpy_command(verb: str, *arguments: object) -> list[str]:
    """The command line of a ggpy command of this checkout."""
    return [sys.executable, "-m", "ggpy", verb, *map(str, arguments)]


def in_turn(names: Sequence[str], turn: int) -> list[str]:
    """The order of a round: each begins another one, so that nobody always runs after the same neighbour."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]


def round_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """The ratio of each round."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def spread(values: Sequence[float], digits: int) -> str:
    """Median, smallest and largest, as `1.42 [1.30–1.42]`; a single value alone."""
    median = f"{statistics.median(values):.{digits}f}"
    return median if len(values) == 1 else f"{median} [{min(values):.{digits}f}–{max(values):.{digits}f}]"


def digits(value: float) -> int:
    """Decimals that leave three significant digits."""
    return 0 if value >= 100 else 1 if value >= 10 else 2


def markdown(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
