"""What a checkpoint says of special tokens beside their texts: roles, whether BOS and EOS are added, the chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.vocabulary_files import MAX_TEMPLATE_BYTES, MAX_TOKEN_ID, TokenizerFiles, guarded
from ggpy.errors import CheckpointError, printable
from ggpy.tokenizer.special import END_OF_GENERATION, ROLE_NAMES
from ggpy.tokenizer.token_table import SPECIAL_ID_KEYS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

_ROLES = ("bos", "eos", "unk", "sep", "pad", "mask")
_CODE_LLAMA_END_OF_TURN = "▁<EOT>"  # which no reader knows by its name


def special_ids(files: TokenizerFiles, config: HFConfig, texts: list[str], warnings: list[str]) -> dict[str, int]:
    """Role -> id, from the tokens' texts in tokenizer_config.json or special_tokens_map.json, else from the ids in config.json.

    Further ids that end a generation (Llama 3 has three) become end of turn and end of message where their names do not tell anyway.
    """
    by_text = {text: i for i, text in enumerate(texts)}
    found: dict[str, int] = {}
    for role in _ROLES:
        text = _token_text(files.config, role) or _token_text(files.special_map, role)
        candidates = [by_text[text]] if text in by_text else [*_ids(config, role), *_ids(files.generation, role)]
        inside = [i for i in candidates if i < len(texts)]
        if inside:
            found[role] = inside[0]
        elif candidates:
            warnings.append(f"{config.where}: {role}_token_id is {candidates[0]}, with {len(texts)} tokens; it is left out")
    if _CODE_LLAMA_END_OF_TURN in by_text:
        found["eot"] = by_text[_CODE_LLAMA_END_OF_TURN]
    _add_ends(found, [*_ids(config, "eos"), *_ids(files.generation, "eos")], texts, warnings)
    return found


def _add_ends(found: dict[str, int], ends: list[int], texts: list[str], warnings: list[str]) -> None:
    named = {*END_OF_GENERATION, *ROLE_NAMES["eot"]}
    for i in dict.fromkeys(ends):
        if i >= len(texts) or i in found.values() or texts[i] in named:
            continue
        role = next((role for role in ("eot", "eom") if role not in found), None)
        if role is None:
            warnings.append(f"token {i} '{printable(texts[i], 40)}' ends a generation too, which GGUF has no further key for")
        else:
            found[role] = i


def special_keys(found: dict[str, int]) -> dict[str, int]:
    """The metadata keys of the roles."""
    return {f"tokenizer.ggml.{SPECIAL_ID_KEYS[role][0]}": i for role, i in found.items()}


def added_ends(files: TokenizerFiles, engine: Engine | None, found: dict[str, int], model: str, warnings: list[str]) -> tuple[bool, bool]:
    """Whether (BOS, EOS) are added to a text.

    What the post-processor of tokenizer.json does decides; without one that adds anything, add_bos_token and add_eos_token of
    tokenizer_config.json; without these, BPE models of sentencepiece start with BOS, unigram models end with EOS.
    """
    if files.json is not None and engine is not None and _has_template(files.json):
        lead, tail = _around(engine, files.json.where)
        for ids, role in ((lead, "bos"), (tail, "eos")):
            if ids and ids != [found.get(role)]:
                warnings.append(f"{files.json.where}: it adds tokens {ids} to a text, where GGUF can only say one {role.upper()}")
        return lead[-1:] == [found.get("bos")], tail[:1] == [found.get("eos")]
    add_bos = files.config.boolean("add_bos_token", model == "llama" and "bos" in found)
    return add_bos, files.config.boolean("add_eos_token", model == "t5" and "eos" in found)


def _around(engine: Engine, where: str) -> tuple[list[int], list[int]]:
    """The ids that are put in front of a text and behind it."""
    plain, whole = (guarded(lambda s=s: engine.encode("a", add_special_tokens=s).ids, where) for s in (False, True))
    at = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
    return whole[:at], whole[at + len(plain) :]


def chat_templates(files: TokenizerFiles, warnings: list[str]) -> dict[str, Any]:
    """The metadata keys of the chat template, or of several: chat_template.jinja goes before tokenizer_config.json."""
    configured = files.config.get("chat_template")
    if files.template is not None:
        if isinstance(configured, str) and configured != files.template:
            warnings.append(f"{files.folder}: the chat template of tokenizer_config.json differs from the one beside it, which is taken")
        return {"tokenizer.chat_template": files.template}
    if configured is None:
        return {}
    if isinstance(configured, str):
        return {"tokenizer.chat_template": _bounded(configured, files.config)}
    if not isinstance(configured, list) or not all(isinstance(entry, dict) for entry in configured):
        raise files.config.refuse("chat_template", "a string, or a list of objects with name and template")
    return _named_templates([HFConfig(entry, f"{files.config.where}: chat_template") for entry in configured], files.config)


def _named_templates(entries: list[HFConfig], config: HFConfig) -> dict[str, Any]:
    named = {}
    for entry in entries:
        name = "".join(c if c.isascii() and c.isalnum() else "_" for c in entry.string("name"))
        named[name] = _bounded(entry.string("template"), config)
    default = named.pop("default", None)
    keys: dict[str, Any] = {} if default is None else {"tokenizer.chat_template": default}
    if named:
        keys["tokenizer.chat_templates"] = sorted(named)
    return keys | {f"tokenizer.chat_template.{name}": template for name, template in sorted(named.items())}


def _bounded(template: str, config: HFConfig) -> str:
    if len(template) > MAX_TEMPLATE_BYTES:
        raise CheckpointError(f"{config.where}: chat_template has {len(template)} characters, more than the {MAX_TEMPLATE_BYTES} allowed")
    return template


def _token_text(config: HFConfig, role: str) -> str | None:
    """The text of a token, written as a string or as an object with `content`."""
    value = config.get(f"{role}_token")
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _ids(config: HFConfig, role: str) -> list[int]:
    """The ids at `{role}_token_id`, which may be one number or a list; also below `text_config`."""
    key = f"{role}_token_id"
    value = config.get(key, config.section("text_config").get(key) if "text_config" in config else None)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [i for i in values if type(i) is int and 0 <= i <= MAX_TOKEN_ID]


def _has_template(json: HFConfig) -> bool:
    processor = json.section("post_processor")
    parts = [processor, *(part for part in processor.get("processors", []) if isinstance(part, dict))]
    return any(part.get("type") in ("TemplateProcessing", "RobertaProcessing", "BertProcessing") for part in parts)
