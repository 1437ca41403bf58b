"""ggpy-inspect as a user meets it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.cli.inspect import main
from ggpy.converter.imatrix import Collected, ImportanceMatrix, write_imatrix
from ggpy.gguf import GGUFWriter, ValueType

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "formats" / "gguf"


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ggpy", "inspect", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8", cwd=ROOT, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    with GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        writer.add("general.name", "Tiny \x1b[31mmodel\u202e")
        writer.add("llama.context_length", 2048)
        writer.add("llama.rope.freq_base", 10000.0)
        writer.add("odd.nan", float("nan"))
        writer.add("odd.list", [float("inf"), 0.5])
        writer.add("odd.flags", [True, False])
        writer.add("odd.empty", [], ValueType.STRING)
        writer.add("odd.nested", [[1, 2], ["x"]])
        writer.add("tokenizer.ggml.tokens", [f"<{i}>" for i in range(1000)])
        tensors = {
            "token_embd.weight": ((64, 256), "Q8_0"),
            "blk.0.attn_norm.weight": ((256,), "F32"),
            "blk.0.attn_q.weight": ((256, 256), "Q4_K"),
            "blk.0.ffn_down.weight": ((256, 512), "Q6_K"),
            "rope_freqs.weight": ((16,), "F32"),
        }
        for name, (shape, kind) in tensors.items():
            writer.add_tensor(name, shape, BLOCKS[kind])
        for name, (shape, kind) in tensors.items():
            rows = int(np.prod(shape[:-1]))
            writer.write_tensor(name, np.zeros((rows, BLOCKS[kind].row_bytes(shape[-1])), np.uint8))
    return path


def test_page(model: Path):
    done = run(model, "--tensors")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == f"""\
{model}
  llama, Tiny \\x1b[31mmodel\\u202e, 213.26 K parameters, context 2048
  {size(model)}, 6.11 bits per weight, 5 tensors, GGUF v3

metadata: 10 keys
  general.architecture   string        llama
  general.name           string        Tiny \\x1b[31mmodel\\u202e
  llama.context_length   uint32        2048
  llama.rope.freq_base   float32       10000
  odd.nan                float32       nan
  odd.list               float32[2]    inf, 0.5
  odd.flags              bool[2]       true, false
  odd.empty              string[0]
  odd.nested             array[2]      [2 elements], [1 elements]
  tokenizer.ggml.tokens  string[1000]  <0>, <1>, <2>, <3>, <4>, <5>, <6>, <7>, …

  type  tensors  parameters        size  bits/weight  of the size
  Q6_K        1    131.07 K  105.00 KiB         6.56        66.0%
  Q4_K        1     65.54 K   36.00 KiB         4.50        22.6%
  Q8_0        1     16.38 K   17.00 KiB         8.50        10.7%
  F32         2         272    1.06 KiB        32.00         0.7%

  part             tensors  parameters        size  bits/weight  of the size
  feed-forward           1    131.07 K  105.00 KiB         6.56        66.0%
  attention              1     65.54 K   36.00 KiB         4.50        22.6%
  token embedding        1     16.38 K   17.00 KiB         8.50        10.7%
  norms                  1         256    1.00 KiB        32.00         0.6%
  other                  1          16        64 B        32.00         0.0%

  tensor                  shape      type        size  offset
"""
        + "".join(tensor_lines(model))
    )


def size(path: Path) -> str:
    return f"{path.stat().st_size / 1024:.2f} KiB"


def tensor_lines(path: Path) -> list[str]:
    data = json.loads(run(path, "--json").stdout)
    sizes = {17408: "17.00 KiB", 1024: "1.00 KiB", 36864: "36.00 KiB", 107520: "105.00 KiB", 64: "64 B"}
    rows = [(t["name"], " × ".join(map(str, t["shape"])), t["type"], sizes[t["bytes"]], t["offset"]) for t in data["tensors"]]
    return [f"  {name:<22}  {shape:<9}  {kind:<4}  {n:>10}  {offset:>6}\n" for name, shape, kind, n, offset in rows]


def test_json_is_complete(model: Path):
    done = run(model, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert data["file_size"] == model.stat().st_size
    assert (data["architecture"], data["context_length"], data["version"], data["alignment"]) == ("llama", 2048, 3, 32)
    assert data["parameters"] == 64 * 256 + 256 + 256 * 256 + 256 * 512 + 16 == sum(t["parameters"] for t in data["types"])
    assert data["tensor_bytes"] == sum(t["bytes"] for t in data["parts"]) == sum(t["bytes"] for t in data["tensors"])
    assert data["bits_per_weight"] == 8 * data["tensor_bytes"] / data["parameters"]
    assert data["metadata"]["general.name"] == {"type": "string", "value": "Tiny \x1b[31mmodel\u202e"}
    assert data["metadata"]["odd.nan"] == {"type": "float32", "value": "nan"}
    assert data["metadata"]["odd.list"]["value"] == ["inf", 0.5]
    assert data["metadata"]["odd.nested"]["value"] == [[1, 2], ["x"]]
    assert data["metadata"]["tokenizer.ggml.tokens"] == {"type": "array of string", "value": [f"<{i}>" for i in range(1000)]}
    assert data["tensors"][2]["name"] == "blk.0.attn_q.weight" and data["tensors"][2]["shape"] == [256, 256]
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["small_v2", "empty_v3", "value_types", "texts", "shapes", "alignment_1"])
@pytest.mark.parametrize("options", [[], ["--tensors"], ["--json"]])
def test_good_files(name: str, options: list[str], capsys: pytest.CaptureFixture):
    assert main([str(FILES / "good" / f"{name}.gguf"), *options]) == 0
    out, err = capsys.readouterr()
    assert err == "" and name in out
    assert not any(ord(c) < 32 and c != "\n" for c in out)


def test_bad_files_are_one_line_and_code_1(capsys: pytest.CaptureFixture):
    for path in sorted((FILES / "bad").glob("*.gguf")):
        if path.name.startswith("split_"):
            continue
        assert main([str(path)]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith(f"ggpy-inspect: error: {path}: "), path.name
        assert err.rstrip("\n").isprintable()


def test_a_part_of_a_split_model_is_shown(capsys: pytest.CaptureFixture):
    assert main([str(FILES / "bad" / "split_2_of_3.gguf")]) == 0
    assert "part 2 of 3" in capsys.readouterr().out


def test_errors_of_a_process(tmp_path: Path):
    for path, fault in (
        (tmp_path / "absent.gguf", "No such file"),
        (tmp_path, "a directory"),
        (FILES / "bad" / "content_html.gguf", "a web page"),
    ):
        done = run(path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"ggpy-inspect: error: {path}: {fault}") and done.stderr.count("\n") == 1
    done = run(tmp_path / "absent.gguf", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr and done.stderr.splitlines()[-1].startswith("ggpy-inspect: error: ")
    for arguments in ((), ("a.gguf", "b.gguf"), ("a.gguf", "--nonsense")):
        done = run(*arguments)
        assert done.returncode == 2 and done.stderr.startswith("usage: ggpy-inspect ") and "Traceback" not in done.stderr


def test_inspecting_never_writes(model: Path):
    def state() -> list:
        return sorted((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in model.parent.iterdir())

    before = state()
    for options in ([], ["--tensors"], ["--json"]):
        assert run(model, *options).returncode == 0
    assert state() == before


def test_heavy_modules_stay_out(model: Path):
    script = (
        "import sys; from ggpy.cli.inspect import main; main(sys.argv[1:])\n"
        "heavy = {'numba', 'llvmlite', 'rich', 'torch', 'transformers', 'tokenizers', 'sentencepiece', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script, model], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_stops_early(model: Path):
    with subprocess.Popen(
        [sys.executable, "-m", "ggpy", "inspect", model, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_cannot_be_written(model: Path):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "ggpy", "inspect", model]
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "ggpy-inspect: error: No space left on device\n")


def test_a_terminal_that_knows_only_ascii(model: Path):
    done = run(model, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "\\u2026" in done.stdout


def test_an_importance_matrix_is_called_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    entries = {f"blk.{i}.attn_q.weight": Collected(np.ones((1, 32), np.float32), np.array([9])) for i in range(3)}
    write_imatrix(ImportanceMatrix(entries, ("text.txt",), 7, 512), tmp_path / "imatrix.gguf")
    assert main([str(tmp_path / "imatrix.gguf")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1] == "  importance matrix of 3 tensors, from 7 chunks of 512 tokens, of text.txt"
    assert "bits/weight" not in out and "parameters" not in out
