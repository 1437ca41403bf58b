"""Tools as they are used: a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run_tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`python tools/NAME.py ARGUMENTS`, its output captured as text."""
    command = [sys.executable, str(TOOLS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
