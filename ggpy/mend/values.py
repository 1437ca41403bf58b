"""Metadata values as they are typed on a command line: `key=value`, or `key:type=value`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ggpy.errors import GGPyError, printable
from ggpy.gguf import Metadata, ValueType
from ggpy.gguf.types import FLOAT_TYPES, INTEGER_TYPES

_TYPES = {kind.name.lower(): kind for kind in ValueType if kind is not ValueType.ARRAY}
_ASSIGNMENT = re.compile(r"(?P<key>[^=]+?)(?::(?P<array>array:)?(?P<type>" + "|".join(_TYPES) + r"))?=(?P<value>.*)", re.DOTALL)

# What readers expect of the keys they know; the first pattern that matches counts.
_KNOWN = (
    (r"general\.(file_type|quantization_version|alignment)|tokenizer\.ggml\.\w*token_id", INTEGER_TYPES, "an integer, such as uint32"),
    (r"tokenizer\.ggml\.add_\w+", {ValueType.BOOL}, "bool"),
    (r"general\.(tags|languages|datasets)", {ValueType.ARRAY}, "array:string"),
    (r"general\.(architecture|type|name|basename|author|version|finetune|license|size_label|url)", {ValueType.STRING}, "string"),
    (r"tokenizer\.chat_template(\.\w+)?|tokenizer\.ggml\.(model|pre)", {ValueType.STRING}, "string"),
    (r"tokenizer\.ggml\.(tokens|merges|scores|token_type)|tokenizer\.chat_templates", {ValueType.ARRAY}, "an array"),
    (r"\w+\.(context_length|embedding_length|block_count|vocab_size|rope\.dimension_count)", INTEGER_TYPES, "an integer, such as uint32"),
    (r"\w+\.(rope\.freq_base|rope\.scaling\.factor|attention\.layer_norm\w*_epsilon)", FLOAT_TYPES, "a float, such as float32"),
)


@dataclass(frozen=True)
class Assignment:
    """One key and what it gets. type: of the value or, where `is_array`, of its elements; None where none was given."""

    key: str
    text: str
    type: ValueType | None = None
    is_array: bool = False


def parse_assignment(argument: str) -> Assignment:
    """`key=value`, `key:type=value` or `key:array:type=[…]`, the array in JSON. ValueError for anything else."""
    found = _ASSIGNMENT.fullmatch(argument)
    if found is None:
        raise ValueError(f"'{printable(argument, 80)}' is not key=value or key:type=value, with a type of {', '.join(_TYPES)}")
    kind = _TYPES[found["type"]] if found["type"] else None
    return Assignment(found["key"], found["value"], kind, found["array"] is not None)


def value_for(assignment: Assignment, metadata: Metadata) -> tuple[Any, ValueType]:
    """The value and its type (of the elements for a list) as `GGUFWriter.add` wants them. A key that exists keeps its type.

    Raises GGPyError for text that is no such value, for a new key without a type, and for types no reader expects of a key.
    """
    key, kind, is_array = assignment.key, assignment.type, assignment.is_array
    if kind is None:
        if key not in metadata:
            raise GGPyError(f"key '{printable(key, 80)}' is new: say its type, as in {printable(key, 80)}:{_guess(assignment.text)}=…")
        is_array = metadata.value_type(key) is ValueType.ARRAY
        kind = metadata.element_type(key) if is_array else metadata.value_type(key)
        assert kind is not None
    known = next((entry for entry in _KNOWN if re.fullmatch(entry[0], key)), None)
    if known is not None and (ValueType.ARRAY if is_array else kind) not in known[1]:
        found = f"array of {kind.name.lower()}" if is_array else kind.name.lower()
        raise GGPyError(f"key '{printable(key, 80)}' cannot be {found}: readers expect {known[2]}")
    if not is_array:
        return _scalar(key, assignment.text, kind), kind
    try:
        value = json.loads(assignment.text)
    except (ValueError, RecursionError):
        value = None
    if type(value) is not list or kind is ValueType.ARRAY:
        raise GGPyError(f"key '{printable(key, 80)}': '{printable(assignment.text, 60)}' is no JSON array of {kind.name.lower()}")
    return value, kind


def _scalar(key: str, text: str, kind: ValueType) -> Any:
    if kind is ValueType.STRING:
        return text
    try:
        if kind is ValueType.BOOL:
            return {"true": True, "false": False}[text.lower()]
        return float(text) if kind in FLOAT_TYPES else int(text, 0)
    except (ValueError, KeyError):
        expected = "true or false" if kind is ValueType.BOOL else f"a {kind.name.lower()}"
        raise GGPyError(f"key '{printable(key, 80)}': '{printable(text, 60)}' is not {expected}") from None


def _guess(text: str) -> str:
    if text.lower() in ("true", "false"):
        return "bool"
    if re.fullmatch(r"\d+", text):
        return "uint32"
    return "float32" if re.fullmatch(r"-?\d+\.\d*(e-?\d+)?", text) else "string"
