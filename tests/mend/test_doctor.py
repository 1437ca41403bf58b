"""Every ailment is found in a file that has it, and none in good files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.cli.doctor import main
from ggpy.gguf import GGUFWriter, open_gguf
from ggpy.mend.doctor import examine
from tests.converter.checkpoints import write_checkpoint

from .conftest import DEMO, Remake

TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}END{% endfor %}"


def kinds(path: Path, *, faults: bool = True) -> set[str]:
    return {finding.kind for finding in examine(path, 2).findings if finding.fault == faults}


def test_a_good_file(converted: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(converted)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("note: there is no chat template") and lines[-1].endswith("nothing wrong found, 29 tensors looked at")


METADATA: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"general.name": None}, "general.name is missing"),
    "no version": ({"general.quantization_version": None}, "--set general.quantization_version:uint32=2"),
    "no architecture": ({"general.architecture": None}, "no program can load it"),
    "label": ({"general.file_type": 7}, "is 7 (Q8_0), but the weights are"),
    "short context": ({"llama.context_length": 4}, "is 4, which no model was trained on"),
    "odd context": ({"llama.context_length": 511}, "an odd number"),
    "no context": ({"llama.context_length": None}, "context_length is missing"),
    "Llama 3.1": ({"general.name": "Meta Llama 3.1 8B"}, "has no rope_freqs.weight"),
    "broken template": ({"tokenizer.chat_template": "{% for %}"}, "the chat template is broken"),
    "failing template": ({"tokenizer.chat_template": "{{ messages[5].content }}"}, "the chat template is broken"),
    "double BOS": (
        {"tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}"},
        "--set tokenizer.ggml.add_bos_token:bool=false",
    ),
    "no tokenizer": ({"tokenizer.ggml.model": None}, "there is no tokenizer"),
    "scores": ({"tokenizer.ggml.scores": [1.0]}, "has 1 elements"),
}


@pytest.mark.parametrize("ailment", METADATA)
def test_metadata_that_is_wrong(remade: Remake, ailment: str):
    keys, line = METADATA[ailment]
    path = remade(keys)
    lines = str(examine(path, 1))
    assert line in lines and "\n\n" not in lines


def test_the_end_of_a_turn(remade: Remake, converted: Path):
    with open_gguf(converted) as file:
        tokens, types = file.metadata["tokenizer.ggml.tokens"], file.metadata["tokenizer.ggml.token_type"].copy()
    tokens[700], types[700] = "<|turn|>", 3
    keys = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    good, bad = (TURNS.replace("END", end) for end in ("{{ eos_token }}", "<|turn|>"))
    assert not kinds(remade(keys | {"tokenizer.chat_template": good}))
    path = remade(keys | {"tokenizer.chat_template": bad})
    (finding,) = (finding for finding in examine(path, 1).findings if finding.fault)
    assert finding.kind == "eot" and "'<|turn|>'" in finding.what and finding.remedy.endswith("eot_token_id:uint32=700")
    assert not kinds(remade(keys | {"tokenizer.chat_template": bad, "tokenizer.ggml.eot_token_id": 700}))


@pytest.mark.parametrize("pre", [None, "default", "no-such-one"])
def test_the_pre_tokenizer(tmp_path: Path, pre: str | None):
    from ggpy.converter import convert

    path = convert(write_checkpoint(tmp_path / "m"), tmp_path / "a.gguf", "q8_0", verify="none").path
    with open_gguf(path) as source, GGUFWriter(tmp_path / "b.gguf") as writer:
        for key in source.metadata:
            if key != "tokenizer.ggml.pre":
                writer.copy(source.metadata, key)
        if pre is not None:
            writer.add("tokenizer.ggml.pre", pre)
        for tensor in source.tensors.values():
            writer.add_tensor(tensor.name, tensor.shape, tensor.format)
        for tensor in source.tensors.values():
            writer.write_tensor(tensor.name, tensor.data)
    assert "pre" in kinds(tmp_path / "b.gguf")


def test_weights_that_are_no_numbers_and_nothing_but_zeros(remade: Remake, converted: Path, capsys: pytest.CaptureFixture[str]):
    with open_gguf(converted) as file:
        blocks = file.tensors["blk.1.attn_k.weight"].data.copy()
        zeros = bytes(file.tensors["blk.2.ffn_up.weight"].n_bytes)
    blocks[3, 0:2] = np.frombuffer(np.float16(np.inf).tobytes(), np.uint8)
    path = remade(data={"blk.1.attn_k.weight": blocks.tobytes(), "blk.2.ffn_up.weight": zeros})
    assert main([str(path), "--json"]) == 3
    found = {finding["kind"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert "blk.1.attn_k.weight has d = inf in row 3" in found["finite"]["what"]
    assert "1 tensors hold nothing but zeros: blk.2.ffn_up.weight" in found["zeros"]["what"]


def test_a_tail_that_is_missing(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = copied.read_bytes()
    for cut in (1, 1000, len(data) - 100):
        copied.write_bytes(data[:-cut])
        assert main([str(copied)]) == 3
        assert "cut short" in capsys.readouterr().out
    assert main([str(tmp_path / "nothing.gguf")]) == 1


@pytest.mark.real_model
def test_a_file_that_others_made(smollm2_gguf: Path):
    assert examine(smollm2_gguf, 2).findings == ()


def test_our_own_files_in_every_type(tmp_path: Path):
    from ggpy.converter import convert

    for recipe in ("f32", "bf16", "q8_0", "q4_0", "q5_k_m"):
        assert not kinds(convert(DEMO, tmp_path / f"{recipe}.gguf", recipe, verify="bytes").path), recipe
