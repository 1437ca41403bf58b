"""Editing changes what was asked for, nothing else, and nothing that would break the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggpy.cli.edit import main
from ggpy.converter.certificate.record import read_certificate
from ggpy.errors import GGPyError
from ggpy.gguf import ValueType, open_gguf
from ggpy.mend.edit import Changes, edit
from ggpy.mend.values import parse_assignment


def changes(*assignments: str, delete: tuple[str, ...] = (), rename: dict[str, str] | None = None) -> Changes:
    return Changes([parse_assignment(text) for text in assignments], delete, rename or {})


def test_a_value_of_the_same_size_is_written_in_place(copied: Path):
    size, inode = copied.stat().st_size, copied.stat().st_ino
    done = edit(copied, changes("llama.context_length=1024"))
    assert done.in_place and (copied.stat().st_size, copied.stat().st_ino) == (size, inode)
    with open_gguf(copied) as file:
        assert file.metadata["llama.context_length"] == 1024 and file.metadata.value_type("llama.context_length") is ValueType.UINT32


def test_a_longer_head_becomes_a_new_file_with_the_same_data(converted: Path, copied: Path):
    done = edit(copied, changes("general.description:string=" + "long " * 100, 'general.tags:array:string=["a", "ä"]'))
    assert not done.in_place and [path.name for path in copied.parent.iterdir()] == ["demo.gguf"]
    with open_gguf(converted) as a, open_gguf(copied) as b:
        assert b.metadata["general.tags"] == ["a", "ä"] and b.metadata["general.description"].startswith("long long")
        assert [*b.metadata][: len(a.metadata)] == [*a.metadata] and all(a.metadata.raw(key) == b.metadata.raw(key) for key in a.metadata)
        assert all(np.array_equal(a.tensors[name].data, b.tensors[name].data) for name in a.tensors)
        assert read_certificate(b.metadata) is not None


def test_another_output_leaves_the_input_as_it_is(copied: Path, tmp_path: Path):
    before, out = copied.read_bytes(), tmp_path / "out.gguf"
    edit(copied, changes("general.name=Other", delete=("general.file_type",)), out)
    assert copied.read_bytes() == before
    with open_gguf(out) as file:
        assert file.metadata["general.name"] == "Other" and "general.file_type" not in file.metadata
    with pytest.raises(GGPyError, match="exists already"):
        edit(copied, changes("general.name=Third"), out)
    edit(copied, changes("general.name=Third"), out, force=True)
    with pytest.raises(GGPyError, match="is the input"):
        edit(copied, changes("general.name=Fourth"), copied, force=True)


def test_the_certificate_goes_when_the_model_changes(copied: Path):
    edit(copied, changes("general.name=Renamed"))
    with open_gguf(copied) as file:
        assert read_certificate(file.metadata) is not None
    done = edit(copied, changes("llama.rope.freq_base=20000"))
    with open_gguf(copied) as file:
        assert read_certificate(file.metadata) is None and "ggpy.tensor_crc32" in file.metadata
    assert any("certificate" in line for line in done.said)


def test_keys_and_tensors_are_renamed(copied: Path):
    edit(copied, changes("extra.text:string=x"))
    edit(copied, changes(rename={"extra.text": "other.text"}))
    with open_gguf(copied) as file:
        assert file.metadata["other.text"] == "x" and "extra.text" not in file.metadata
    with pytest.raises(GGPyError, match=r"would not work any more: tensor output_norm\.weight is missing"):
        edit(copied, changes(rename={"output_norm.weight": "norm.weight"}))


def test_a_template_is_put_in(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", encoding="utf-8")
    assert main([str(copied), "--template", str(template)]) == 0
    with open_gguf(copied) as file:
        assert file.metadata["tokenizer.chat_template"].startswith("{% for m")
    template.write_text("{% for m in %}", encoding="utf-8")
    assert main([str(copied), "--template", str(template)]) == 1 and "chat template, line 1" in capsys.readouterr().err


REFUSED = {
    "llama.block_count=77": "would not work any more: key 'llama.block_count' is 77",
    "llama.context_length=many": "'many' is not a uint32",
    "llama.context_length=-1": "does not fit uint32",
    "llama.context_length:string=512": "cannot be string: readers expect an integer",
    "tokenizer.ggml.add_bos_token:uint32=1": "cannot be uint32: readers expect bool",
    "tokenizer.ggml.bos_token_id=768": "bos_token_id is 768, with 768 tokens",
    'tokenizer.ggml.tokens=["a", "b"]': "would not work any more",
    "tokenizer.ggml.scores=[1.5]": "has 1 elements; expected 768",
    "tokenizer.ggml.scores=7": "is no JSON array of float32",
    "tokenizer.chat_template:string={{ x": "chat template, line 1",
    "general.alignment:uint32=64": "says where the data lies",
    "general.architecture=novel": "would not work any more",
    "new.key=5": "is new: say its type, as in new.key:uint32=",
}


@pytest.mark.parametrize("assignment", REFUSED)
def test_what_would_break_the_file_is_refused(copied: Path, assignment: str, capsys: pytest.CaptureFixture[str]):
    before = copied.read_bytes()
    assert main([str(copied), "--set", assignment]) == 1
    assert REFUSED[assignment] in capsys.readouterr().err.splitlines()[-1]
    assert copied.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "nothing to change"),
        (["--set", "x"], "is not key=value"),
        (["--delete", "no.such"], "has no such key"),
        (["--delete", "llama.block_count"], "would not work any more"),
        (["--rename", "a"], "is not OLD=NEW"),
        (["--rename", "a=b"], "no such key or tensor"),
        (["--rename", "general.name=general.architecture"], "there is a 'general.architecture' already"),
        (["--set", "general.name=a", "--set", "general.name=b"], "changed twice"),
        (["--set", "general.name=a", "--delete", "general.name"], "changed twice"),
    ],
)
def test_senseless_changes(copied: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]):
    assert main([str(copied), *arguments]) == 1
    assert line in capsys.readouterr().err
