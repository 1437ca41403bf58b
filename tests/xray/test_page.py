"""The page is one file of bounded size, well formed, without scripts or anything from elsewhere, whatever a file calls its tensors."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ggpy.cli.xray import main
from ggpy.xray import Xray, xray
from ggpy.xray.page import LISTED, page
from ggpy.xray.svg import ticks

from .conftest import DEMO, Make

VOID = {"meta", "br"}
DRAWN = {"rect", "path"}
ELSEWHERE = re.compile(r"https?:|\bsrc=|\bhref=|url\(|@import|<script|<link|<iframe|<object|javascript:|\bon\w+=", re.IGNORECASE)


class Checked(HTMLParser):
    """Every element closed in its order; `text` is what is shown."""

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.elements: dict[str, int] = {}
        self.text = ""
        self.pictures: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]):
        self.elements[tag] = self.elements.get(tag, 0) + 1
        if tag == "svg":
            self.pictures.append(dict(attrs))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]):
        assert tag in DRAWN
        self.elements[tag] = self.elements.get(tag, 0) + 1

    def handle_endtag(self, tag: str):
        assert self.stack.pop() == tag

    def handle_data(self, data: str):
        self.text += data


@pytest.fixture(scope="module")
def examined(converted: Path) -> Xray:
    return xray(converted, DEMO)


def test_the_page_stands_alone(examined: Xray):
    made = page(examined)
    checked = Checked(made)
    assert not ELSEWHERE.search(made)
    assert checked.elements["svg"] >= 15 and all(picture["role"] == "img" for picture in checked.pictures)
    assert len(re.findall(r"<svg[^>]*><title>[^<]+</title>", made)) == checked.elements["svg"]
    assert "nan" not in re.sub(r"<title>.*?</title>|<style>.*?</style>", "", made).lower().replace("nan or infinity", "")
    for tensor in examined.tensors:
        assert f">{tensor.name}<" in made


def test_a_map_has_a_square_for_every_tensor_with_an_error(examined: Xray):
    made = page(examined)
    section = made[made.index("Where: relative error") :]
    picture = section[: section.index("</svg>")]
    in_layers = [t for t in examined.compared if t.layer is not None and t.error and t.error.relative_rmse > 0]
    assert len(re.findall(r"<rect[^>]*><title>", picture)) == len(in_layers)


def test_without_a_base(converted: Path):
    found = xray(converted)
    checked = Checked(page(found))
    assert "outlier channels" in checked.text and "Share of the loss" not in checked.text and checked.elements["svg"] >= 10


@pytest.mark.parametrize(
    "name", ["</title></style><script>alert(1)</script>", "\"onload='x' ]]> &lt; \x00\x1b[2J\u202e", "blk.7.<b>weight"]
)
def test_hostile_names(name: str, examined: Xray):
    tensors = tuple(replace(tensor, name=f"{name}{i}", format=tensor.format) for i, tensor in enumerate(examined.tensors))
    found = replace(examined, tensors=tensors, name=name, architecture=name, path=Path("a<b>.gguf"), missing=(name,))
    made = page(found)
    checked = Checked(made)
    assert "script" not in checked.elements and checked.elements["b"] == 1
    assert not re.search(r"[\x00-\x08\x1b\u202e]", made)


def test_the_size_is_bounded(examined: Xray):
    matrices = [tensor for tensor in examined.tensors if len(tensor.shape) > 1]
    many = tuple(replace(matrices[i % len(matrices)], name=f"blk.{i // 20}.kind_{i % 20}.weight") for i in range(6000))
    made = page(replace(examined, tensors=many))
    assert len(made) < 3_000_000 and f"and {6000 - LISTED} more" in made


def test_the_command_writes_it(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "x.html"
    out.write_text("old", encoding="utf-8")
    assert main([str(converted), "--html", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main([str(converted), "--html", str(tmp_path / "no" / "x.html")]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_numbers_that_are_none(make: Make):
    weights = np.ones((4, 64), np.float32)
    broken = weights.copy()
    broken[1, 1] = np.inf
    file = make("q.gguf", {"blk.0.a": ("F32", broken), "blk.1.a": ("Q4_0", weights * 0)})
    Checked(page(xray(file, make("b.gguf", {"blk.0.a": ("F32", weights), "blk.1.a": ("F32", weights)}))))
    Checked(page(xray(file)))


@pytest.mark.parametrize(("low", "high"), [(0.01, 1.0), (0.04, 0.08), (1e-6, 1e3), (3.1, 3.3)])
def test_ticks_are_round_and_inside(low: float, high: float):
    found = ticks(low, high)
    assert 1 <= len(found) <= 8 and all(low <= tick <= high for tick in found) and found == sorted(found)
