from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors

from ggpy.converter.vocabulary import Vocabulary, read_vocabulary
from ggpy.converter.vocabulary_proof import proof_texts, prove_tokenizer, special_texts
from ggpy.gguf import Metadata, ValueType, open_gguf
from ggpy.tokenizer import TokenType, load_tokenizer
from tests.converter.tokenizers_on_disk import byte_level_json, rewritten_as_merges, sentencepiece_model, write_tokenizer

N_SPM, N_BPE = 420, 401


def value(vocabulary: Vocabulary, key: str) -> Any:
    return vocabulary.metadata.get(f"tokenizer.ggml.{key}")


def kinds(vocabulary: Vocabulary) -> dict[str, TokenType]:
    types = value(vocabulary, "token_type").tolist()
    return {text: TokenType(kind) for text, kind in zip(value(vocabulary, "tokens"), types, strict=True)}


def test_sentencepiece(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_model=sentencepiece_model(), special_tokens_map_json={"unk_token": "<unk>"})
    vocabulary = read_vocabulary(folder, {"vocab_size": N_SPM, "bos_token_id": 1, "eos_token_id": [2, 5]})
    assert (vocabulary.source, vocabulary.n_tokens, vocabulary.warnings) == ("tokenizer.model", N_SPM, ())
    assert [value(vocabulary, key) for key in ("model", "pre", "merges")] == ["llama", "default", None]
    assert [value(vocabulary, f"{role}_token_id") for role in ("bos", "eos", "unknown", "eot", "padding")] == [1, 2, 0, 5, None]
    assert [value(vocabulary, f"add_{what}") for what in ("bos_token", "eos_token", "space_prefix")] == [True, False, True]
    types = value(vocabulary, "token_type")
    assert types[:3].tolist() == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    assert (types[3:259] == TokenType.BYTE).all()
    assert (types[259:] == TokenType.NORMAL).all()
    assert (types.dtype, value(vocabulary, "scores").dtype) == (np.int32, np.float32)
    proof = prove_tokenizer(vocabulary.metadata, folder)
    assert (proof.n_different, proof.skipped, proof.n_texts) == (0, 0, len(proof_texts()) + len(special_texts(["<s>", "</s>"])))


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc"])
def test_unigram(tmp_path: Path, rule: str, byte_fallback: bool) -> None:
    size = 340 if byte_fallback else 90
    model = sentencepiece_model(
        size, model_type="unigram", byte_fallback=byte_fallback, normalization_rule_name=rule, remove_extra_whitespaces=rule != "identity"
    )
    folder = write_tokenizer(tmp_path, tokenizer_model=model)
    vocabulary = read_vocabulary(folder, {"eos_token_id": 2})
    assert [value(vocabulary, key) for key in ("model", "unknown_token_id", "add_bos_token", "add_eos_token")] == ["t5", 0, False, True]
    assert value(vocabulary, "remove_extra_whitespaces") is (rule != "identity")
    assert (value(vocabulary, "precompiled_charsmap") is None) is (rule == "identity")
    assert any("llama.cpp reads the unknown token instead" in warning for warning in vocabulary.warnings) is byte_fallback
    proof = prove_tokenizer(vocabulary.metadata, folder)
    assert (proof.n_different, proof.skipped) == (0, 2)


def test_value_types_are_those_gguf_readers_expect(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_model=sentencepiece_model())
    metadata = Metadata.of(read_vocabulary(folder, {"bos_token_id": 1}).metadata)
    assert metadata.value_type("tokenizer.ggml.bos_token_id") is ValueType.UINT32
    assert metadata.value_type("tokenizer.ggml.add_bos_token") is ValueType.BOOL
    assert metadata.element_type("tokenizer.ggml.scores") is ValueType.FLOAT32
    assert metadata.element_type("tokenizer.ggml.token_type") is ValueType.INT32


def test_sentencepiece_with_user_defined_symbols_and_no_space_in_front(tmp_path: Path) -> None:
    model = sentencepiece_model(user_defined_symbols="<tool>,▁▁", control_symbols="<end>", add_dummy_prefix=False)
    folder = write_tokenizer(tmp_path, tokenizer_model=model)
    vocabulary = read_vocabulary(folder, {})
    assert kinds(vocabulary)["<tool>"] is kinds(vocabulary)["  "] is TokenType.USER_DEFINED
    assert kinds(vocabulary)["<end>"] is TokenType.CONTROL
    assert value(vocabulary, "add_space_prefix") is False
    assert prove_tokenizer(vocabulary.metadata, folder).n_different == 0


@pytest.mark.parametrize("metaspace", [False, True])
def test_sentencepiece_from_tokenizer_json_alone(tmp_path: Path, metaspace: bool) -> None:
    model = sentencepiece_model()
    folder = write_tokenizer(tmp_path / "json", tokenizer_json=rewritten_as_merges(model, metaspace=metaspace))
    vocabulary = read_vocabulary(folder, {"vocab_size": N_SPM, "bos_token_id": 1, "eos_token_id": 2})
    assert (vocabulary.source, value(vocabulary, "model"), vocabulary.warnings) == ("tokenizer.json", "llama", ())
    original = read_vocabulary(write_tokenizer(tmp_path / "model", tokenizer_model=model), {"bos_token_id": 1, "eos_token_id": 2})
    assert value(vocabulary, "tokens") == value(original, "tokens")
    assert kinds(vocabulary) == kinds(original)
    assert value(vocabulary, "add_space_prefix") is True
    proof = prove_tokenizer(vocabulary.metadata, folder)
    assert proof.n_different == 0
    assert (proof.skipped > 0) == metaspace
    theirs, ours = load_tokenizer(original.metadata), load_tokenizer(vocabulary.metadata)
    for text in proof_texts():
        assert ours.encode(text) == theirs.encode(text), text


def test_byte_level(tmp_path: Path) -> None:
    special = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "pad_token": "<|endoftext|>"}
    folder = write_tokenizer(tmp_path, tokenizer_json=byte_level_json(), tokenizer_config_json=special)
    vocabulary = read_vocabulary(folder, {"vocab_size": N_BPE, "bos_token_id": 0})
    assert (vocabulary.source, vocabulary.n_tokens, vocabulary.warnings) == ("tokenizer.json", N_BPE, ())
    assert [value(vocabulary, key) for key in ("model", "pre", "scores")] == ["gpt2", "gpt-2", None]
    assert [value(vocabulary, f"{role}_token_id") for role in ("bos", "eos", "padding", "unknown")] == [1, 2, 0, None]
    assert [value(vocabulary, f"add_{what}") for what in ("bos_token", "eos_token", "space_prefix")] == [False, False, False]
    assert kinds(vocabulary)["<|im_end|>"] is TokenType.CONTROL
    assert kinds(vocabulary)["<tool>"] is TokenType.USER_DEFINED
    assert kinds(vocabulary)["Ġthe"] is TokenType.NORMAL
    proof = prove_tokenizer(vocabulary.metadata, folder)
    n_texts = len(proof_texts()) + len(special_texts(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool>"]))
    assert str(proof) == f"tokenizer: {n_texts} texts give the same ids as tokenizer.json"


def test_merges_may_be_strings_or_pairs(tmp_path: Path) -> None:
    pairs = byte_level_json()
    merges = pairs["model"]["merges"]
    assert isinstance(merges[0], list)
    strings = pairs | {"model": pairs["model"] | {"merges": [" ".join(pair) for pair in merges]}}
    one, other = (
        read_vocabulary(write_tokenizer(tmp_path / name, tokenizer_json=content), {}) for name, content in (("a", pairs), ("b", strings))
    )
    assert value(one, "merges") == value(other, "merges") == [" ".join(pair) for pair in merges]


def test_rows_without_a_token_are_padded_and_tokens_without_a_row_left_out(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_json=byte_level_json())
    more = read_vocabulary(folder, {"vocab_size": N_BPE + 2})
    assert value(more, "tokens")[-3:] == ["<tool>", f"[PAD{N_BPE}]", f"[PAD{N_BPE + 1}]"]
    assert value(more, "token_type")[-2:].tolist() == [TokenType.UNUSED] * 2
    fewer = read_vocabulary(folder, {"text_config": {"vocab_size": N_BPE - 1}})
    assert fewer.n_tokens == N_BPE - 1
    assert "1 tokens have no row in the embedding and are left out: 400 '<tool>'" in fewer.warnings[0]


def test_sentencepiece_rows(tmp_path: Path) -> None:
    added = {"<extra>": N_SPM, "<far>": N_SPM + 50}
    decoder = {"added_tokens_decoder": {str(N_SPM + 1): {"content": "<|fin|>", "special": False}, "1": {"content": "<s>", "special": True}}}
    folder = write_tokenizer(tmp_path, tokenizer_model=sentencepiece_model(), added_tokens_json=added, tokenizer_config_json=decoder)
    vocabulary = read_vocabulary(folder, {"vocab_size": N_SPM + 3})
    assert value(vocabulary, "tokens")[-3:] == ["<extra>", "<|fin|>", f"[PAD{N_SPM + 2}]"]
    assert value(vocabulary, "token_type")[-3:].tolist() == [TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNUSED]
    assert value(vocabulary, "scores")[-3:].tolist() == [-1000.0, -1000.0, -10000.0]
    assert "470 '<far>'" in vocabulary.warnings[0]
    assert read_vocabulary(folder, {"vocab_size": N_SPM - 10}).n_tokens == N_SPM - 10


def test_space_marks_in_user_defined_tokens_are_spaces(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_model=sentencepiece_model(), added_tokens_json={"▁▁▁": N_SPM})
    vocabulary = read_vocabulary(folder, {"vocab_size": N_SPM + 1})
    assert value(vocabulary, "tokens")[-1] == "   "
    assert load_tokenizer(vocabulary.metadata).encode("   ") == [N_SPM]


def test_tokenizer_model_that_is_none_gives_way_to_tokenizer_json(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_model=b"IQ== 0\nIg== 1\n", tokenizer_json=byte_level_json())
    vocabulary = read_vocabulary(folder, {})
    assert vocabulary.source == "tokenizer.json"
    assert "tokenizer.model: no sentencepiece model" in vocabulary.warnings[0]
    assert prove_tokenizer(vocabulary.metadata, folder).n_different == 0


def test_tokenizer_json_that_cannot_be_loaded_is_not_needed_beside_tokenizer_model(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_model=sentencepiece_model(), tokenizer_json={"model": {"type": "Future"}})
    vocabulary = read_vocabulary(folder, {"bos_token_id": 1})
    assert (vocabulary.source, value(vocabulary, "add_bos_token")) == ("tokenizer.model", True)
    assert "tokenizer.model is taken alone" in vocabulary.warnings[0]
    assert prove_tokenizer(vocabulary.metadata, folder).n_different == 0


@pytest.mark.parametrize(
    ("single", "add_bos", "add_eos", "warned"),
    [
        ("<|im_start|> $A", True, False, False),
        ("<|im_start|> $A <|im_end|>", True, True, False),
        ("$A", False, False, False),
        ("<|endoftext|> $A", False, False, True),
        ("<|endoftext|> <|im_start|> $A", True, False, True),
    ],
)
def test_bos_and_eos_are_added_as_the_post_processor_does(tmp_path: Path, single: str, add_bos: bool, add_eos: bool, warned: bool) -> None:
    engine = Tokenizer.from_str(json.dumps(byte_level_json()))
    special = [("<|endoftext|>", 0), ("<|im_start|>", 1), ("<|im_end|>", 2)]
    engine.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_bos_token": not add_bos}
    folder = write_tokenizer(tmp_path, tokenizer_json=engine.to_str(), tokenizer_config_json=config)
    vocabulary = read_vocabulary(folder, {})
    assert value(vocabulary, "add_bos_token") is add_bos
    assert value(vocabulary, "add_eos_token") is add_eos
    assert any("it adds tokens [0" in warning for warning in vocabulary.warnings) is warned


def test_without_a_template_the_configuration_decides(tmp_path: Path) -> None:
    config = {"add_bos_token": True, "add_eos_token": True, "bos_token": "<|im_start|>"}
    folder = write_tokenizer(tmp_path, tokenizer_json=byte_level_json(), tokenizer_config_json=config)
    vocabulary = read_vocabulary(folder, {})
    assert (value(vocabulary, "add_bos_token"), value(vocabulary, "add_eos_token")) == (True, True)
    prefix = write_tokenizer(tmp_path / "spm", tokenizer_model=sentencepiece_model(), tokenizer_config_json={"add_prefix_space": False})
    assert value(read_vocabulary(prefix, {}), "add_space_prefix") is False


def test_further_ids_that_end_a_generation(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_json=byte_level_json(), generation_config_json={"eos_token_id": [1, 2, 10, 11]})
    vocabulary = read_vocabulary(folder, {"eos_token_id": 1})
    assert [value(vocabulary, f"{role}_token_id") for role in ("eos", "eot", "eom")] == [1, 10, 11]  # 2 is known by its name
    assert load_tokenizer(vocabulary.metadata).end_ids == {0, 1, 2, 10, 11}
    folder = write_tokenizer(tmp_path, generation_config_json={"eos_token_id": [1, 10, 11, 12]})
    assert "ends a generation too" in read_vocabulary(folder, {"eos_token_id": 1}).warnings[0]


def test_ids_out_of_range_are_left_out(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_json=byte_level_json())
    vocabulary = read_vocabulary(folder, {"bos_token_id": 5000, "eos_token_id": None, "pad_token_id": -1})
    assert value(vocabulary, "bos_token_id") is value(vocabulary, "padding_token_id") is None
    assert vocabulary.warnings == (f"{folder / 'config.json'}: bos_token_id is 5000, with 401 tokens; it is left out",)


def test_chat_templates(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_json=byte_level_json(), tokenizer_config_json={"chat_template": "in config"})
    assert read_vocabulary(folder, {}).metadata["tokenizer.chat_template"] == "in config"
    write_tokenizer(tmp_path, chat_template_jinja="in {{ file }}\n")
    vocabulary = read_vocabulary(folder, {})
    assert vocabulary.metadata["tokenizer.chat_template"] == "in {{ file }}\n"
    assert "differs from the one beside it" in vocabulary.warnings[0]
    (folder / "chat_template.jinja").unlink()
    several = [{"name": "default", "template": "a"}, {"name": "tool use", "template": "b"}]
    write_tokenizer(tmp_path, tokenizer_config_json={"chat_template": several})
    metadata = read_vocabulary(folder, {}).metadata
    assert metadata["tokenizer.chat_template"] == "a"
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]
    assert metadata["tokenizer.chat_template.tool_use"] == "b"
    write_tokenizer(tmp_path, tokenizer_config_json={}, chat_template_json={"chat_template": "old"})
    assert read_vocabulary(folder, {}).metadata["tokenizer.chat_template"] == "old"


def test_what_gguf_cannot_say_is_told(tmp_path: Path) -> None:
    engine = Tokenizer.from_str(json.dumps(byte_level_json(pre_tokenizers.ByteLevel(add_prefix_space=True))))
    engine.normalizer = normalizers.Sequence([normalizers.NFC()])
    vocabulary = read_vocabulary(write_tokenizer(tmp_path, tokenizer_json=engine.to_str()), {})
    assert any("text is normalized (NFC), which ggpy reads from the file" in warning for warning in vocabulary.warnings)
    assert any("a space is put before the text" in warning for warning in vocabulary.warnings)
    proof = prove_tokenizer(vocabulary.metadata, tmp_path)
    assert proof.n_different == 0
    assert proof.n_texts > proof.n_elsewhere > 300  # all that do not begin with white space


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("merging", [True, False])
def test_sentencepiece_that_normalizes_is_read_as_it_does(tmp_path: Path, merging: bool, prefix: bool) -> None:
    options = {"remove_extra_whitespaces": merging, "add_dummy_prefix": prefix}
    model = sentencepiece_model(normalization_rule_name="nmt_nfkc", **options)
    vocabulary = read_vocabulary(write_tokenizer(tmp_path / "spm", tokenizer_model=model), {})
    said = "ggpy reads from the file; llama.cpp reads text as it is"
    assert [f"('nmt_nfkc'), which {said}" in vocabulary.warnings[0], len(vocabulary.warnings)] == [True, 1 + merging]
    assert all(said in warning for warning in vocabulary.warnings)
    proof = prove_tokenizer(vocabulary.metadata, tmp_path / "spm")
    assert (proof.n_different, proof.skipped) == (0, 0) and proof.n_elsewhere > 20
    plain = sentencepiece_model()
    assert not any(
        key.startswith("ggpy.") for key in read_vocabulary(write_tokenizer(tmp_path / "plain", tokenizer_model=plain), {}).metadata
    )


UNKNOWN = {
    "letter": pre_tokenizers.Sequence(
        [pre_tokenizers.Split("e", "merged_with_previous"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "inverted": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\w+|[^\w\s]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "scripts": pre_tokenizers.Sequence(
        [
            pre_tokenizers.UnicodeScripts(),
            pre_tokenizers.Digits(),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_pre_tokenizer_is_written_whole_and_run(tmp_path: Path, name: str) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_json=byte_level_json(UNKNOWN[name]))
    vocabulary = read_vocabulary(folder, {})
    assert json.loads(vocabulary.metadata["ggpy.tokenizer.pre_tokenizer"]) == json.loads(UNKNOWN[name].__getstate__())
    proof = prove_tokenizer(vocabulary.metadata, folder)
    assert (proof.n_different, proof.n_texts) == (0, len(proof_texts()) + len(special_texts("abcd")))
    lines = list(proof.told_elsewhere())
    assert 0 < len(lines) <= min(proof.n_elsewhere, 5)
    assert f"llama.cpp reads {proof.n_elsewhere} of {proof.n_texts} texts otherwise" in lines[0]
    shown = proof.elsewhere[0]
    known = {key: value for key, value in vocabulary.metadata.items() if not key.startswith("ggpy.")}
    assert load_tokenizer(known).encode(shown.text, parse_special=True) == shown.written != shown.source


def test_merges_that_no_name_tells_are_written(tmp_path: Path) -> None:
    values = byte_level_json()
    values["model"]["ignore_merges"] = True
    folder = write_tokenizer(tmp_path, tokenizer_json=values)
    metadata = read_vocabulary(folder, {}).metadata
    assert {key: value for key, value in metadata.items() if key.startswith("ggpy.")} == {"ggpy.tokenizer.ignore_merges": True}
    assert prove_tokenizer(metadata, folder).n_different == 0


def test_known_pre_tokenizers_need_no_key_of_our_own(tmp_path: Path) -> None:
    metadata = read_vocabulary(write_tokenizer(tmp_path, tokenizer_json=byte_level_json()), {}).metadata
    assert not [key for key in metadata if key.startswith("ggpy.")]


def test_the_proof_finds_added_tokens_that_are_read_otherwise(tmp_path: Path) -> None:
    values = byte_level_json()
    folder = write_tokenizer(tmp_path, tokenizer_json=values)
    metadata = read_vocabulary(folder, {}).metadata
    for token in values["added_tokens"]:
        token["rstrip"] = True
    write_tokenizer(tmp_path, tokenizer_json=values)
    proof = prove_tokenizer(metadata, folder)
    assert proof.n_different == 4
    assert all(difference.text.startswith("x ") for difference in proof.differences)


def test_the_proof_covers_what_tokenizers_stumble_over() -> None:
    text = "".join(proof_texts())
    for what in (
        "  ",
        "\n\n",
        "\t\t",
        "\r\n",
        "1234567",
        "def f(self)",
        "'ll",
        "é",
        "e\u0301",
        "漢",
        "한",
        "ไ",
        "ع",
        "🚀",
        "\u200d",
        "\x00",
        "  x",
    ):
        assert what in text, what
    assert len(proof_texts()) > 300


def test_the_proof_finds_differences(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, tokenizer_json=byte_level_json())
    metadata = read_vocabulary(folder, {}).metadata | {"tokenizer.ggml.pre": "qwen2"}
    proof = prove_tokenizer(metadata, folder)
    assert 0 < proof.n_different < proof.n_texts
    assert len(proof.differences) == 5
    for difference in proof.differences:
        assert difference.source != difference.written
    assert str(proof).startswith(f"tokenizer: {proof.n_different} of {proof.n_texts} texts give other ids than tokenizer.json, first '")


def test_a_pattern_nobody_knows_is_written_as_the_nearest(tmp_path: Path) -> None:
    own = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"'s|'t| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    folder = write_tokenizer(tmp_path, tokenizer_json=byte_level_json(own))
    vocabulary = read_vocabulary(folder, {})
    assert value(vocabulary, "pre") == "gpt-2"
    assert "its pre-tokenizer is none of those that readers of GGUF know; the nearest, 'gpt-2', is written" in vocabulary.warnings[0]
    proof = prove_tokenizer(vocabulary.metadata, folder)
    assert proof.n_different == 0 < proof.n_elsewhere


@pytest.mark.real_model
def test_smollm2_is_written_as_llama_cpp_wrote_it(shared: Path, smollm2_gguf: Path) -> None:
    folder = shared / "models" / "SmolLM2-135M-Instruct"
    vocabulary = read_vocabulary(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    assert vocabulary.warnings == ()
    with open_gguf(smollm2_gguf) as file:
        theirs = {key: entry for key, entry in file.metadata.items() if key.startswith("tokenizer.")}
    ours = dict(vocabulary.metadata)
    assert ours.pop("tokenizer.ggml.add_eos_token") is False  # the file, which an older converter wrote, leaves it to the default
    assert {key: list(v) if isinstance(v, np.ndarray) else v for key, v in ours.items()} == {
        key: list(v) if isinstance(v, np.ndarray) else v for key, v in theirs.items()
    }
    proof = prove_tokenizer(vocabulary.metadata, folder)
    assert (proof.n_different, proof.n_texts) == (0, len(proof_texts()) + len(special_texts("abcdefghijklmnopq")))


def test_stories260k(shared: Path) -> None:
    folder = shared / "models" / "stories260K"
    vocabulary = read_vocabulary(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    assert (vocabulary.warnings, vocabulary.n_tokens) == ((), 512)
    tokenizer = load_tokenizer(vocabulary.metadata)
    cases = json.loads((shared / "reference" / "tokens-stories260k.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 344
    for case in cases:
        assert tokenizer.encode(case["text"]) == case["ids"], case["text"]
    assert prove_tokenizer(vocabulary.metadata, folder).n_different == 0
