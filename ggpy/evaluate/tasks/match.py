"""Whether what a model said is one of the expected answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from ggpy.errors import GGPyError

PATTERN_SECONDS = 5.0
_SEARCH = "import json, re, sys; text, patterns = json.load(sys.stdin); sys.exit(not any(re.search(p, text) for p in patterns))"


def is_match(said: str, answers: Sequence[str], match: str, place: str) -> bool:
    """Whether `said` matches any of the answers: "exact" (but for white space around it), "contains", or "regex" (found anywhere in it).

    place: file and line, for the GGPyError about a pattern that takes more than PATTERN_SECONDS: some patterns take years on some texts,
    so they are searched for in a process that can be ended.
    """
    if match == "exact":
        return said.strip() in {answer.strip() for answer in answers}
    if match == "contains":
        return any(answer in said for answer in answers)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SEARCH],
            input=json.dumps([said, list(answers)]).encode(),
            timeout=PATTERN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GGPyError(f"{place}: the pattern takes more than {PATTERN_SECONDS:g} seconds on what the model said") from None
    return done.returncode == 0
