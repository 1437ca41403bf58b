"""Tools are scripts that import their neighbours by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))


@pytest.fixture
def llama_bench(tmp_path: Path) -> Path:
    """A program that answers as llama-bench does: fixed speeds, half as fast with --repack 0."""
    if sys.platform == "win32":
        pytest.skip("the stand-in for llama-bench is a script with a #! line")
    script = tmp_path / "llama-bench"
    script.write_text(f"""#!{sys.executable}
import json, sys
value = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert value["-o"] == "json" and value["-r"] == "1"
rows = []
for threads in value["-t"].split(","):
    for depth in value["-d"].split(","):
        for n_prompt, n_gen in ((int(value["-p"]), 0), (0, int(value["-n"]))):
            speed = (100.0 if n_prompt else 10.0) / (2 if value.get("--repack") == "0" else 1)
            if n_prompt or n_gen:
                rows.append(dict(n_prompt=n_prompt, n_gen=n_gen, n_depth=int(depth), n_threads=int(threads), avg_ts=speed))
print(json.dumps(rows))
""")
    script.chmod(0o755)
    return script
