"""A converted file that was damaged or changed is told from one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggpy.cli.verify import main
from ggpy.converter import convert
from ggpy.errors import GGPyError
from ggpy.gguf import open_gguf
from ggpy.mend.verify import verify

from .conftest import DEMO, Remake


def test_a_file_as_it_was_converted(converted: Path, capsys: pytest.CaptureFixture[str]):
    found = verify(converted, 2)
    assert found.checked == found.tensors == 29 and found.certificate is not None and found.nll == pytest.approx(found.certificate.nll)
    assert main([str(converted), "--source", str(DEMO)]) == 0
    shown = capsys.readouterr().out
    assert "29 tensors, all finite" in shown and "against the source once more: KL" in shown


def test_what_it_is_made_from_is_told(converted: Path, tmp_path: Path, copied: Path):
    again = convert(converted, tmp_path / "q8.gguf", "q8_0").path
    assert verify(again, 1, source=converted).repeated is not None
    with pytest.raises(GGPyError, match="not those the file was made from"):
        verify(again, 1, source=DEMO)


def test_a_flipped_bit(copied: Path):
    with open_gguf(copied) as file:
        at = file.tensors["blk.1.ffn_up.weight"].offset + 5000
    data = bytearray(copied.read_bytes())
    data[at] ^= 4
    copied.write_bytes(data)
    with pytest.raises(GGPyError, match=r"blk\.1\.ffn_up\.weight has CRC-32 .* but was written with"):
        verify(copied, 2)


def test_a_changed_key(remade: Remake):
    with pytest.raises(GGPyError, match="nats per token, but gave"):
        verify(remade({"llama.rope.freq_base": 500.0}), 1)


def test_a_file_without_a_certificate(tmp_path: Path, remade: Remake, converted: Path):
    plain = convert(DEMO, tmp_path / "plain.gguf", "q8_0", verify="bytes").path
    found = verify(plain, 1)
    assert found.certificate is None and found.checked == found.tensors and "no certificate is kept" in str(found)
    assert verify(remade({"ggpy.tensor_crc32": None}), 1).checked == 0
