"""Nothing in ggpy can run what a model brings along: no pickle, no evaluated text, no module named by data. Read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ggpy

ROOT = Path(ggpy.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
BANNED_IMPORTS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "torch", "yaml", "code", "runpy"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "execfile", "system", "popen", "load_module", "exec_module"}
BY_NAME = {"import_module"}
IMPORTERS = {  # whose names are their own: tables of ggpy's modules
    "__init__.py",
    "cli/main.py",
    "runtime/compiling.py",
}
SYS_PATH = ("__main__.py", "runtime/compiling.py")  # one takes from it, the other's helper gets the same


def faults(tree: ast.AST, name: str) -> list[str]:
    """What a module does that it must not, as `line: what`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{node.lineno}: imports {module}" for module in names if module.split(".")[0] in BANNED_IMPORTS]
        elif isinstance(node, ast.Call):
            function = node.func
            called = function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
            owner = function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
            if called in BANNED_CALLS and not (owner and called == "compile"):  # re.compile
                found.append(f"{node.lineno}: calls {called}")
            if called in BY_NAME and name not in IMPORTERS:
                found.append(f"{node.lineno}: imports a module by name")
            if called == "load" and owner in ("np", "numpy", "torch"):
                found.append(f"{node.lineno}: calls {owner}.load")
            if any(keyword.arg in ("allow_pickle", "trust_remote_code", "shell") for keyword in node.keywords):
                found.append(f"{node.lineno}: passes allow_pickle, trust_remote_code or shell")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path" and name not in SYS_PATH:
            found.append(f"{node.lineno}: touches sys.path")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_can_run_what_a_model_brings(module: Path):
    name = module.relative_to(ROOT).as_posix()
    assert faults(ast.parse(module.read_text(encoding="utf-8")), name) == []


BAD = [
    "import pickle",
    "from torch import load",
    "import os\nos.system('x')",
    "eval('1')",
    "compile('1', 'x', 'eval')",
    "import numpy as np\nnp.load('x')",
    "open_model('x', trust_remote_code=True)",
    "import sys\nsys.path.insert(0, 'x')",
    "__import__('x')",
    "from importlib import import_module\nimport_module(x)",
]


@pytest.mark.parametrize("text", BAD)
def test_the_check_finds_what_it_looks_for(text: str):
    assert len(faults(ast.parse(text), "converter/x.py")) == 1
