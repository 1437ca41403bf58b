"""Converting with AWQ: an ordinary file of the same size, whose norms and matrices changed together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.cli.model_file import DEMO
from ggpy.converter import convert
from ggpy.evaluate.probabilities import kl_divergence, log_softmax
from ggpy.gguf import open_gguf

TEXT = "In the beginning God created the heaven and the earth. And the earth was without form, and void; {} was upon the face of the deep. "


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(TEXT.format(word) for word in ("darkness", "light", "the spirit", "water") * 12), encoding="utf-8")
    return path


def test_a_folded_file_is_as_near_to_its_source_and_certified(text: Path, tmp_path: Path):
    files = {}
    for method in ("imatrix", "awq"):
        report = convert(DEMO, tmp_path / f"{method}.gguf", "q4_0", calibrate=text, method=method, calibration_tokens=1024)
        assert report.certificate is not None and report.certificate.passed
        files[method] = report
    assert "scales kept in " in (files["awq"].imatrix or "") and " of 12 places" in (files["awq"].imatrix or "")
    with open_gguf(files["imatrix"].path) as plain, open_gguf(files["awq"].path) as folded:
        assert {n: (t.shape, t.format) for n, t in plain.tensors.items()} == {n: (t.shape, t.format) for n, t in folded.tensors.items()}
        changed = [n for n in plain.tensors if "norm" in n and plain.tensors[n].data.tobytes() != folded.tensors[n].data.tobytes()]
        assert changed and "output_norm.weight" not in changed
        norm, before = (file.tensors[changed[0]].dequantize() for file in (folded, plain))
        assert np.isfinite(norm).all() and np.ptp(norm / before) > 0.01
    convert(DEMO, tmp_path / "base.gguf", "f32")
    ids = ggpy.load(files["awq"].path).tokenize(text.read_text(encoding="utf-8")[:600])
    base, *others = (log_softmax(ggpy.load(path).logits(ids)) for path in (tmp_path / "base.gguf", *(r.path for r in files.values())))
    plain_kl, folded_kl = (kl_divergence(base, other).mean() for other in others)
    assert folded_kl < 1.3 * plain_kl  # a tiny model whose inputs differ little: not worse, within what such a short text can tell


def test_the_same_bytes_on_any_number_of_threads_and_from_a_file(text: Path, tmp_path: Path):
    convert(DEMO, tmp_path / "float.gguf", "f32")
    results = []
    for threads, source in ((1, DEMO), (2, tmp_path / "float.gguf")):
        out = tmp_path / f"{len(results)}.gguf"
        convert(source, out, "q4_0", calibrate=text, method="awq", threads=threads, calibration_tokens=512, verify="bytes")
        with open_gguf(out) as file:
            results.append({name: tensor.data.tobytes() for name, tensor in file.tensors.items()})
            assert file.metadata.string("ggpy.quantize.method") == "awq"
    assert results[0] == results[1]
