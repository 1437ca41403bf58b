"""What a conversation remembers, what it asks the model, and how it survives being cut off."""

from __future__ import annotations

import pytest

from ggpy.chat.session import Chat, Continuation
from ggpy.errors import ContextError, TemplateError
from tests.chat.fake_model import FakeModel, FakeTokenizer


def test_each_prompt_begins_with_the_one_before_and_its_answer():
    model = FakeModel(["Hi there", "Fine thanks"])
    chat = Chat(model, "Be brief.", temperature=0.5)
    assert chat.send("Hello") == "Hi there"
    assert chat.send("How are you?") == "Fine thanks"
    first, second = model.prompts
    assert first == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert second.startswith(first + "Hi there<|im_end|>\n<|im_start|>user\nHow are you?")
    assert model.settings == [{"temperature": 0.5}] * 2
    assert [m["role"] for m in chat.messages] == ["user", "assistant"] * 2
    assert chat.finish == "stop"


def test_a_message_cannot_end_its_turn():
    model = FakeModel(["no"])
    chat = Chat(model)
    chat.messages += [{"role": "user", "content": "a<|im_end|>b"}]
    ids = chat.prompt()
    assert ids.count(1) == 1 and ids.count(0) == 2
    assert model.tokenizer.spell(ids).count("<|im_end|>") == 2


def test_an_abandoned_answer_stays_as_far_as_it_came():
    model = FakeModel(["one two three", "four"])
    chat = Chat(model)
    steps = chat.stream("Count")
    assert next(steps).text + next(steps).text == "one two "
    steps.close()
    assert chat.messages[-1] == {"role": "assistant", "content": "one two "}
    assert model.closed == 1 and chat.finish is None
    assert chat.send("On") == "four" and "one two <|im_end|>" in model.prompts[-1]


def test_a_question_without_any_answer_is_forgotten():
    model = FakeModel(["never"], before_step=lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    chat = Chat(model)
    with pytest.raises(KeyboardInterrupt):
        chat.send("Hello?")
    assert chat.messages == []


def test_a_conversation_too_long_says_so_and_stays_usable():
    model = FakeModel(["ok", "fine"], context=120)
    chat = Chat(model)
    chat.send("short")
    before = [*chat.messages]
    with pytest.raises(ContextError, match="context of 120"):
        chat.send("long " * 50)
    assert chat.messages == before
    chat.reset()
    assert chat.messages == [] and chat.used == 0
    assert chat.send("again") == "fine"


def test_a_template_that_refuses_leaves_the_conversation_as_it_was():
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[0].content }}"
    chat = Chat(FakeModel(["yes"], tokenizer=FakeTokenizer(template)), "Be brief.")
    with pytest.raises(TemplateError, match="no system role"):
        chat.send("x")
    assert chat.messages == []
    chat.system = None
    assert chat.send("x") == "yes"


def test_variables_reach_the_template():
    model = FakeModel(["a"], tokenizer=FakeTokenizer("{{ enable_thinking }} {{ bos_token }} {{ eos_token }}"))
    Chat(model, variables={"enable_thinking": False}).send("x")
    assert model.prompts == ["False <s> <|im_end|>"]


def test_usage_counts_tokens_and_time():
    chat = Chat(FakeModel(["one two three"]))
    chat.send("Count")
    usage = chat.usage
    assert usage.generated_tokens == 4 and usage.prompt_tokens == len(chat.model.tokenizer.encode("user\nCount\nassistant\n")) + 3
    assert 0 < usage.first_seconds <= usage.seconds and (usage.tokens_per_second or 0) > 0
    assert chat.used == usage.prompt_tokens + 4


def test_no_template_or_a_broken_one_is_refused_at_once():
    with pytest.raises(TemplateError, match="no chat template"):
        Chat(FakeModel([], tokenizer=FakeTokenizer(None)))
    with pytest.raises(TemplateError, match="line 1"):
        Chat(FakeModel([], tokenizer=FakeTokenizer("{% if %}")))


def test_continuation_remembers_nothing():
    model = FakeModel(["one two", "three"])
    session = Continuation(model, max_tokens=5)
    assert "".join(step.text for step in session.stream("Once")) == "one two"
    assert "".join(step.text for step in session.stream("Then <|im_end|>")) == "three"
    assert model.prompts == ["<s>Once", "<s>Then <|im_end|>"]
    assert model.settings == [{"max_tokens": 5}] * 2
    assert session.used == session.usage.prompt_tokens + 2 and session.finish == "stop"
