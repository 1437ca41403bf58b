"""What type a checkpoint is converted to that is given to a command in place of a GGUF file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggpy.cli import model_file
from ggpy.cli.status import Status


@pytest.mark.parametrize(
    ("config", "suffix", "type"),
    [
        ('{"quantization_config": {"quant_method": "gptq"}}', "", "keep"),
        ('{"quantization_config": {"quant_method": "gptq"}}', ":q8_0", "q8_0"),
        ('{"compression_config": {"format": "pack-quantized"}}', "", "keep"),
        ('{"quantization_config": null}', "", "q4_k_m"),
        ('{"architectures": []}', "", "q4_k_m"),
        ("[1]", "", "q4_k_m"),
        ("[" * 100_000, "", "q4_k_m"),
        ("no JSON", "", "q4_k_m"),
    ],
)
def test_weights_that_are_quantized_already_stay_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, suffix: str, type: str):
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    asked: list[str] = []
    monkeypatch.setattr(model_file, "convert_once", lambda source, type, status, threads: asked.append(type))
    monkeypatch.setattr(model_file, "_hub_file", lambda *_: None)
    monkeypatch.setattr("ggpy.converter.hub.find_source", lambda name: tmp_path)
    model_file.find_model(str(tmp_path) if not suffix else f"{tmp_path}{suffix}", Status("ggpy-run"))
    assert asked == [type]
