"""Choosing types for the bundled checkpoint, from measuring to a file that keeps what was asked of it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggpy
from ggpy.cli import convert as convert_command
from ggpy.cli import pick as pick_command
from ggpy.converter import convert
from ggpy.converter.imatrix import Collected, ImportanceMatrix, write_imatrix
from ggpy.converter.options import Options
from ggpy.converter.pipeline import open_source
from ggpy.errors import GGPyError
from ggpy.evaluate import evaluate
from ggpy.picker import sensitivity, speed
from ggpy.picker.choice import Pick, Target
from ggpy.picker.page import page
from ggpy.picker.pick import pick

PAGE = Path(__file__).resolve().parents[2] / "docs" / "picker.md"
DEMO = Path(ggpy.__file__).parent / "demo"
STORY = """One day, a boy named Tim went to the park with his mom. He saw a big dog with a red ball. The dog ran to Tim and barked. Tim was
not scared. He said, "Hello, dog! Do you want to play?" The dog wagged its tail. Tim threw the ball, and the dog ran after it. They played
all day. When the sun went down, Tim's mom said it was time to go home. Tim said goodbye to the dog. He was happy that he had a new friend.
Once upon a time there was a little bird who could not fly. She was sad. Her friend the frog said, "Try again, I will help you." The bird
jumped from a low branch and flapped her wings. She fell into the soft grass and laughed. Then she tried again and again until she flew."""


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """What is measured here is kept here, and speeds are measured in a moment."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for module in (sensitivity, speed):
            patch.setattr(module, "cache_directory", lambda: folder)
        patch.setattr(speed, "ROUNDS", 1)
        patch.setattr(speed, "_ROUND_SECONDS", 0.005)
        yield folder


@pytest.fixture(scope="module")
def picked(own_cache: Path) -> Pick:
    return find(Target())


def find(target: Target, source: Path = DEMO, text: str | None = None, **options: Any) -> Pick:
    return pick(source, target, Options(threads=1, **options), text=text)


def divergence(base: ggpy.Model, path: Path) -> float:
    with ggpy.load(path, threads=2) as model:
        found = evaluate(model, STORY, base=base, context=64).comparison
    assert found is not None
    return found.kl_mean


def test_at_q4_k_ms_size_the_file_is_nearer_to_its_source_on_another_text(picked: Pick, tmp_path: Path):
    plain = convert(DEMO, tmp_path / "plain.gguf", "q4_k_m", verify="none")
    own = convert(DEMO, tmp_path / "own.gguf", picked.recipe, overrides=picked.overrides, verify="none")
    assert own.file_bytes <= convert(DEMO, tmp_path / "full.gguf", "q4_k_m", verify="none").file_bytes
    base = convert(DEMO, tmp_path / "base.gguf", "f32", verify="none").path
    with ggpy.load(base, threads=2) as model:
        assert divergence(model, own.path) < 0.85 * divergence(model, plain.path)


def test_the_file_has_the_bytes_and_bits_that_were_foretold(picked: Pick, tmp_path: Path):
    report = convert(DEMO, tmp_path / "own.gguf", picked.recipe, overrides=picked.overrides)
    assert report.file_bytes == picked.chosen.file_bytes
    assert report.bits_per_weight == pytest.approx(picked.chosen.bits_per_weight)
    assert {t.name: t.format for t in report.tensors if t.name in picked.formats} == picked.formats


def test_kl_of_single_tensors_adds_up(picked: Pick):
    assert len(picked.curve.measured) == 3
    for total, measured in picked.curve.measured:
        assert measured == pytest.approx(total, rel=0.35)


def test_better_formats_cost_less_in_every_tensor(picked: Pick):
    for found in picked.sensitivities.values():
        assert found.kl("Q8_0") < 0.02 * found.kl("Q4_0") and found.kl("Q6_K") < found.kl("Q4_K") < found.kl("Q3_K") < found.kl("Q2_K")


def test_what_was_measured_is_not_measured_again(picked: Pick, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ggpy.picker.pick.Bench", None)
    again = find(Target())
    assert again.formats == picked.formats and again.chosen == picked.chosen


def test_an_interrupted_measurement_goes_on_where_it_stopped(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    class Stopped(Exception):
        pass

    def stop_after(count: int):
        def on_progress(progress):
            nonlocal count
            if progress.stage == "measure":
                seen.append(progress.what)
                count -= 1
                if not count:
                    raise Stopped

        return on_progress

    seen: list[str] = []
    other = "A different text, so that nothing is known of it. " * 4
    with pytest.raises(Stopped):
        find(Target(), text=other, on_progress=stop_after(5))
    assert len(seen) == 5
    resumed = find(Target(), text=other, on_progress=stop_after(-1))
    assert sorted(seen) == sorted(resumed.formats)  # each once


def test_targets_are_kept_alone_and_together(picked: Pick):
    size = 1_200_000
    small = find(Target(file_bytes=size))
    assert 0.99 * size < small.chosen.file_bytes <= size
    bits = find(Target(bits_per_weight=5.0)).chosen
    assert 4.95 < bits.bits_per_weight <= 5.0
    good = find(Target(kl=0.01)).chosen
    assert 0.009 < good.kl <= 0.01
    fast = find(Target(tokens_per_second=small.chosen.tokens_per_second, file_bytes=size)).chosen
    assert fast.file_bytes <= size and fast.tokens_per_second >= small.chosen.tokens_per_second * (1 - 1e-9)
    assert fast.kl >= small.chosen.kl * (1 - 1e-9)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target(file_bytes=1000), "a file of 1000 bytes is out of reach: 67"),
        (Target(bits_per_weight=1.0), "1 bits per weight are out of reach: 2.6"),
        (Target(tokens_per_second=1e9), "1e+09 tokens per second are out of reach here: "),
        (Target(kl=0.001, file_bytes=1_000_000), "a file of 1000000 bytes is out of reach: 1"),
    ],
)
def test_an_impossible_target_is_told_with_what_is_possible(target: Target, said: str):
    with pytest.raises(GGPyError) as caught:
        find(target)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_override_keeps_tensors_out_of_the_choice():
    kept = find(Target(bits_per_weight=5.0), overrides=(("attn_v", "q8_0"),))
    assert {format for name, format in kept.formats.items() if "attn_v" in name} == {"Q8_0"}
    assert kept.chosen.bits_per_weight <= 5.0
    with pytest.raises(GGPyError, match=r"tensor blk\.0\.attn_v\.weight is to be TQ1_0, which is not measured"):
        find(Target(bits_per_weight=5.0), overrides=(("attn_v", "tq1_0"),))


def test_an_importance_matrix_is_measured_with_and_counted(picked: Pick, tmp_path: Path):
    rng, path = np.random.default_rng(0), tmp_path / "imatrix.gguf"
    shapes = {t.name: t.shape for t in open_source(DEMO).tensors if t.name in picked.formats and t.name != "token_embd.weight"}
    seen = {name: Collected(rng.lognormal(0, 1, (1, shape[-1])).astype(np.float32), np.array([64])) for name, shape in shapes.items()}
    write_imatrix(ImportanceMatrix(seen, ("text.txt",), 1, 64), path)
    weighted = find(Target(), imatrix=path)
    name = next(iter(shapes))
    assert weighted.sensitivities[name].errors["Q4_K"] != picked.sensitivities[name].errors["Q4_K"]
    assert weighted.sensitivities["token_embd.weight"].errors == picked.sensitivities["token_embd.weight"].errors
    report = convert(DEMO, tmp_path / "own.gguf", weighted.recipe, overrides=weighted.overrides, imatrix=path)
    assert report.file_bytes == weighted.chosen.file_bytes


def test_a_quantized_file_can_be_a_source_and_keep_its_types(tmp_path: Path):
    source = convert(DEMO, tmp_path / "q8_0.gguf", "q8_0", verify="none").path
    found = find(Target(kl=1e-5), source)
    assert set(found.formats.values()) == {"Q8_0"} and found.chosen.kl < 1e-6


def test_the_choice_is_shown_as_a_chart_a_page_and_json(picked: Pick, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    text = str(picked)
    assert "◆" in text and "Q4_K_M" in text and text.splitlines()[-1] == picked.advice
    html = page(picked)
    assert html.startswith("<!DOCTYPE html>") and "http" not in html and html.count("<circle") == len(picked.recipes)
    assert all(format in html for format in picked.formats.values())
    shown = tmp_path / "front.html"
    assert pick_command.main([str(DEMO), "--target-bpw", "4.75", "--json", "--threads", "1", "--front", str(shown)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["picked"]["bits_per_weight"] <= 4.75 and len(found["formats"]) == len(picked.formats) and shown.is_file()
    assert pick_command.main([str(DEMO), "--front", str(shown)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_ggpy_convert_takes_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    target = tmp_path / "out.gguf"
    assert convert_command.main([str(DEMO), "-o", str(target), "--target-size", "1.2M", "--no-verify", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "◆" in out and str(target) in out and 1_180_000 < target.stat().st_size <= 1_200_000
    assert convert_command.main([str(DEMO), "--target-size", "1.2M", "-t", "q8_0"]) == 1
    assert "--type says what a target is to find" in capsys.readouterr().err
    assert convert_command.main([str(DEMO), "--front", "x.html"]) == 1
    assert "--target-size" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convert_command.main([str(DEMO), "--target-size", "large"])
    assert "is not a size such as 3.5G" in capsys.readouterr().err


def test_the_page_shows_commands_and_a_program_that_work(picked: Pick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = PAGE.read_text(encoding="utf-8")
    commands = {"ggpy-convert": convert_command, "ggpy-pick": pick_command}
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    assert len(lines) == 6
    for program, *arguments in (shlex.split(line, comments=True) for line in lines):
        commands[program].build_parser().parse_args(arguments)
    (tmp_path / "hf-checkpoint").symlink_to(DEMO, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(compile(program, PAGE.name, "exec"), {})
    assert Path("picked.gguf").is_file()
