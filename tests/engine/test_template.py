"""Claims of meshd.engine.template."""

from __future__ import annotations

import pytest

from meshd.engine.template import (
    CHATML,
    TEMPLATE_MAX_CHARS,
    ChatError,
    ChatTemplate,
    program_of,
)

JINJA = (
    "{{ bos_token }}{% for message in messages %}"
    "[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
USER = {"role": "user", "content": "hi"}


def knows_nothing(_template, _turns):
    """llama.cpp's renderer for a template it does not recognise."""
    return


def knows_all(template, turns):
    """A renderer that shows what it was given."""
    return f"{template!r} {list(turns)!r}"


def jinja(template: str = JINJA) -> ChatTemplate:
    return ChatTemplate(template, knows_nothing, {"bos_token": "<s>", "eos_token": "</s>"})


def test_a_known_template_is_rendered_by_llama_cpp():
    """It adds no system prompt of the template's own."""
    text = ChatTemplate(JINJA, knows_all, {}).render([USER])
    assert text == f"{JINJA.encode()!r} [(b'user', b'hi')]"


def test_a_model_without_a_template_speaks_chatml():
    """As llama.cpp itself assumes."""
    text = ChatTemplate(None, knows_all, {}).render([USER])
    assert text.startswith(repr(CHATML))


def test_an_unknown_template_is_run_as_what_it_is():
    """With the model's own special tokens."""
    assert jinja().render([USER]) == "<s>[user] hi\n[assistant]"


def test_a_developer_is_a_system():
    """Models were trained before that role was invented."""
    text = jinja().render([{"role": "developer", "content": "be brief"}, USER])
    assert text.startswith("<s>[system] be brief")


def test_parts_of_text_are_joined():
    """Content may be a list, or nothing at all."""
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}, "c"]}
    assert "[user] abc\n[x] \n" in jinja().render([parts, {"role": "x", "content": None}])


def test_a_nul_does_not_cut_a_message_short():
    """C strings end there, conversations do not."""
    text = ChatTemplate(None, knows_all, {}).render([{"role": "user", "content": "a\0b"}])
    assert "b'ab'" in text


@pytest.mark.parametrize(
    ("messages", "said", "param"),
    [
        ([], "messages is empty", "messages"),
        (["hi"], "messages[0] is not an object", "messages[0]"),
        ([{"content": "hi"}], "messages[0].role is missing", "messages[0].role"),
        ([USER, {"role": "user", "content": 5}], "neither text nor a list", "messages[1].content"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "holds a image_url: this model reads text only",
            "messages[0].content",
        ),
        ([{"role": "user", "content": [7]}], "holds a int", "messages[0].content"),
    ],
)
def test_a_wrong_message_is_named(messages, said, param):
    """The asker learns which one, and why."""
    with pytest.raises(ChatError) as caught:
        jinja().render(messages)
    assert said in str(caught.value)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{% for",
        "{{ messages.missing.deeper }}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_a_template_that_refuses_or_misbehaves_is_an_error_of_the_request(template):
    """A template comes out of a downloaded file: it runs in a sandbox and cannot crash us."""
    with pytest.raises(ChatError, match="chat template refuses"):
        jinja(template).render([USER])


def test_what_the_system_says_later_is_said_by_the_user_where_it_must_be():
    """Agents remind a model in the middle, and some templates take a system in front only."""
    strict = (
        "{% for turn in messages %}{% if turn.role == 'system' and not loop.first %}"
        "{{ raise_exception('in front only') }}{% endif %}"
        "[{{ turn.role }}]{{ turn.content }}{% endfor %}"
    )
    said = [("system", "a"), ("system", "b"), ("user", "c"), ("system", "d"), ("assistant", "e")]
    turns = [{"role": role, "content": text} for role, text in [*said, ("system", "f")]]
    assert jinja(strict).render(turns) == "[system]a\nb[user]c\nd[assistant]e[user]f"
    lenient = "{% for turn in messages %}[{{ turn.role }}]{% endfor %}"
    assert jinja(lenient).render(turns).count("[system]") == 4


TOOLS = [{"type": "function", "function": {"name": "clock"}}]
TOOLED = (
    "{% if tools %}{{ tools | tojson }} {% endif %}{% for message in messages %}"
    "{% if message.role == 'ping' %}{% break %}{% endif %}"
    "[{{ message.role }}] {{ message.content }}"
    "{% for call in message.tool_calls %}({{ call.function.arguments | tojson }}){% endfor %}"
    "{% endfor %}"
)


def test_tools_are_offered_as_the_template_says():
    """Also where llama.cpp knows the template: its own renderer knows no tools."""
    text = ChatTemplate(TOOLED, knows_all, {}).render([USER], TOOLS)
    assert text == '[{"type": "function", "function": {"name": "clock"}}] [user] hi'


def test_without_tools_a_known_template_stays_with_llama_cpp():
    """Nothing changes for those who do not use them."""
    assert ChatTemplate(TOOLED, knows_all, {}).render([USER]).endswith("[(b'user', b'hi')]")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"city": "Köln <1>"}', '({"city": "Köln <1>"})'),
        ("no json", '("no json")'),
        ('{"half a pair": "\\ud83d"}', '({"half a pair": "?"})'),
    ],
)
def test_earlier_calls_come_back_as_objects(arguments, shown):
    """A template prints them as JSON, which a text would be twice; nothing is escaped for HTML."""
    call = {"id": "a", "function": {"name": "f", "arguments": arguments}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": "a", "name": "f", "content": "7"})
    text = jinja(TOOLED).render(turns)
    assert text == f"[assistant] {shown}[tool] 7"


@pytest.mark.parametrize(
    ("template", "takes"),
    [
        (TOOLED, True),
        (JINJA, False),
        ("{% set tools = 1 %}", False),
        ("{{ tools", False),
        (None, False),
        ("{{ " + "(" * 5_000 + "tools" + ")" * 5_000 + " }}", False),
        ("{{ tools }}" + " " * TEMPLATE_MAX_CHARS, False),
        ("{{ 'a' * 10 ** 14 ~ tools }}", True),
    ],
)
def test_a_template_takes_tools_when_it_reads_them(template, takes):
    """Its words alone do not count, nor does a broken one; and the daemon, which asks this of every
    file, computes nothing for it."""
    assert ChatTemplate(template, knows_all, {}).takes_tools == takes


def test_tools_are_refused_where_there_is_no_place_for_them():
    """Dropping them would answer another question."""
    with pytest.raises(ChatError, match="no place for tools") as caught:
        jinja().render([USER], TOOLS)
    assert caught.value.param == "tools"


@pytest.mark.parametrize("call", ["f", {}, {"function": {"name": 7}}])
def test_an_earlier_call_without_a_name_is_refused(call):
    """With its place in the conversation."""
    with pytest.raises(ChatError, match=r"messages\[0\]\.tool_calls\[0\]"):
        jinja(TOOLED).render([{"role": "assistant", "tool_calls": [call]}])


def test_a_template_may_ask_for_the_date():
    """Some models were trained with it in front of them."""
    assert jinja("{{ strftime_now('%Y') }}").render([USER]).isdigit()


def test_a_template_may_say_how_json_is_written():
    """As in the library that models are published for."""
    template = "{{ messages[0] | tojson(separators=(',', ':'), sort_keys=true) }}"
    assert jinja(template).render([USER]) == '{"content":"hi","role":"user"}'


THINKER = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<no think>{% endif %}"
)


def test_a_switch_of_the_template_is_set():
    """Where the template names it; then it is run as a program."""
    template = ChatTemplate(THINKER, lambda *_: "by llama.cpp", {})
    turns = [{"role": "user", "content": "hi"}]
    assert template.render(turns, None, {"enable_thinking": False}) == "hi<no think>"
    assert template.render(turns, None, {"enable_thinking": True}) == "hi"


def test_a_switch_that_the_template_does_not_name_changes_nothing():
    """Clients send it to every model; nor can one take the place of the messages."""
    template = ChatTemplate(THINKER, lambda *_: "by llama.cpp", {})
    turns = [{"role": "user", "content": "hi"}]
    assert template.render(turns, None, {"reasoning": "low"}) == "by llama.cpp"
    assert template.render(turns, None, {"messages": [{"content": "other"}]}) == "hi"


def test_what_is_marked_for_training_is_rendered():
    """Templates say which part the assistant speaks; a prompt holds it like any other."""
    template = (
        "{% for m in messages %}{% generation %}<{{ m.role }}>{% endgeneration %}{% endfor %}"
    )
    assert jinja(template).render([USER, USER]) == "<user><user>"


MARKED = "{{ messages[0].content }}<|assistant|>{{ '<think>\\n' }}"


def test_a_template_that_marks_thoughts_is_run():
    """llama.cpp's own rendering would leave its mark out."""
    assert ChatTemplate(MARKED, lambda *_: "by llama.cpp", {}).render([USER]).endswith("<think>\n")


@pytest.mark.parametrize("wrong", ["{% set m.x = 1 %}", "{% for", "{{ 1 // 0 }}"])
def test_a_template_that_marks_thoughts_and_fails_is_left_to_llama_cpp(wrong):
    """Where that knows it; whatever the program raises."""
    template = f"{{% set m = messages[0] %}}{wrong}{MARKED}"
    assert ChatTemplate(template, lambda *_: "by llama.cpp", {}).render([USER]) == "by llama.cpp"
    with pytest.raises(ChatError, match="chat template refuses"):
        jinja(template).render([USER])


def test_a_template_is_made_ready_once():
    """It takes so long that streams would wait for it."""
    assert program_of(MARKED) is program_of(MARKED)
