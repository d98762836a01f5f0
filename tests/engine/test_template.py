"""Claims of meshd.engine.template."""

from __future__ import annotations

import pytest

from meshd.engine.template import CHATML, ChatError, ChatTemplate

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
