"""What goes wrong between a model, its tokenizer and its chat template."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ggpy.chat.templates import render
from ggpy.errors import GGPyError, TemplateError, printable
from ggpy.gguf import GGUFFile
from ggpy.tokenizer import Tokenizer, TokenType, load_tokenizer
from ggpy.tokenizer.pretokenizers import PRE_TOKENIZERS
from ggpy.tokenizer.program import PRE_TOKENIZER_KEY

_ANSWER = "Doctor's answer"
_QUESTION = {"role": "user", "content": "How are you?"}


@dataclass(frozen=True)
class Finding:
    """kind: a word that names what was looked at. what: the finding, remedy: what to do, one line each. fault: False for what may well be
    meant."""

    kind: str
    what: str
    remedy: str
    fault: bool = True

    def __str__(self) -> str:
        return printable(f"{'fault' if self.fault else 'note'}: {self.what}; {self.remedy}", 2000)


def tokenizer_findings(gguf: GGUFFile) -> Iterator[Finding]:
    """Everything about the tokenizer and the chat template."""
    metadata, file = gguf.metadata, printable(gguf.path)
    if "tokenizer.ggml.model" not in metadata:
        if gguf.tensors:
            yield Finding(
                "tokenizer", "there is no tokenizer in the file", "convert it again, with tokenizer.json or tokenizer.model beside it"
            )
        return
    pre = metadata.get("tokenizer.ggml.pre")
    unsaid = pre is None or pre not in PRE_TOKENIZERS or (pre == "default" and PRE_TOKENIZER_KEY not in metadata)
    if metadata.get("tokenizer.ggml.model") == "gpt2" and unsaid:
        how = "is missing" if pre is None else f"is '{printable(pre, 40)}'"
        unknown = pre is not None and pre != "default"
        what = f"tokenizer.ggml.pre {how}: " + (
            "no reader knows it" if unknown else "text may be cut otherwise than the model was trained on"
        )
        yield Finding("pre", what, f"ggpy edit {file} --set tokenizer.ggml.pre:string=NAME, one of {', '.join(sorted(PRE_TOKENIZERS))}")
    try:
        tokenizer = load_tokenizer(metadata)
    except GGPyError as error:
        if pre is None or pre in PRE_TOKENIZERS:
            yield Finding("tokenizer", str(error), "convert it again")
        return
    yield from _template_findings(tokenizer, file)


def _template_findings(tokenizer: Tokenizer, file: str) -> Iterator[Finding]:
    template = tokenizer.chat_template
    if template is None:
        remedy = f"for a base model that is as it should be, else ggpy edit {file} --template chat_template.jinja"
        yield Finding("template", "there is no chat template", remedy, fault=False)
        return
    bos, eos = ("" if i is None else tokenizer.vocabulary[i] for i in (tokenizer.bos, tokenizer.eos))
    try:
        prompt = str(render(template, [_QUESTION], bos=bos, eos=eos))
    except TemplateError as error:
        remedy = f"ggpy edit {file} --template chat_template.jinja, with a template that works"
        yield Finding("template", f"the chat template is broken: {error}", remedy)
        return
    if bos and tokenizer.add_bos and prompt.startswith(bos):
        what = f"the chat template begins with '{printable(bos, 40)}', and add_bos_token is true: programs that do both write it twice"
        yield Finding("bos", what, f"ggpy edit {file} --set tokenizer.ggml.add_bos_token:bool=false", fault=False)
    try:
        turns = str(render(template, [_QUESTION, {"role": "assistant", "content": _ANSWER}, _QUESTION], bos=bos, eos=eos))
    except TemplateError:
        return  # of one question and no more
    yield from _end_of_turn(tokenizer, turns.partition(_ANSWER)[2], file)


def _end_of_turn(tokenizer: Tokenizer, rest: str, file: str) -> Iterator[Finding]:
    """`rest`: what the template writes behind an answer."""
    upto = rest.partition(_QUESTION["content"])[0]
    special = (TokenType.CONTROL, TokenType.USER_DEFINED)
    end = next((i for i in tokenizer.encode(upto, parse_special=True) if tokenizer.token_type(i) in special), None)
    if end is None or end in tokenizer.end_ids or end == tokenizer.bos:
        return
    ends = ", ".join(f"'{printable(tokenizer.vocabulary[i], 40)}'" for i in sorted(tokenizer.end_ids)) or "none"
    what = f"the chat template ends a turn with '{printable(tokenizer.vocabulary[end], 40)}', but the tokens that end an answer are {ends}"
    yield Finding("eot", what, f"ggpy edit {file} --set tokenizer.ggml.eot_token_id:uint32={end}")
