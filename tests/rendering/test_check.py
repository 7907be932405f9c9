"""`check_template`: templates that cannot be used, and warnings about those that can."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dataprep.common.errors import TemplateError
from dataprep.rendering import Renderer, check_template, load_template

HEADER = '{#- bos_token = "<s>"\neos_token = "</s>"\nspecial_tokens = ["<s>", "</s>"] -#}'
LOOP = "{% for m in messages %}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + LOOP + "{{ m.content }}\n{% endfor %}", "never learn to stop"),
        (LOOP + "{{ m.content }}[END]{% endfor %}", "none is known: state them in the template's header"),
        (HEADER + LOOP + "{{ m.role }}</s>{% endfor %}", "does not write the assistant's answer"),
        (HEADER + "{{ ''.__class__.__mro__ }}", "leave its sandbox"),
        (HEADER + "{{ messages.append(1) }}", "leave its sandbox"),
        (HEADER + "{% set ns = namespace(_x=1) %}", "leave its sandbox"),
        (HEADER + "{% for x in range(999999999) %}{% endfor %}", "Range too big"),
        (HEADER + "{{ strftime_now('%Y') }}", "asks for the current date ('strftime_now' is undefined"),
        (HEADER + "{{ raise_exception('not today') }}", "refuses this conversation: not today."),
        (HEADER + "{{ 1 / 0 }}", "fails on this conversation"),
        (
            HEADER
            + LOOP
            + "<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}",
            "does not write its generation prompt before an answer",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "unusable.jinja"
    path.write_text(text)
    template = load_template(path)
    with pytest.raises(TemplateError, match=re.escape(message)):
        Renderer(template)
    check = check_template(template)
    assert not check.usable
    assert message in check.problems[0]
    assert check.rendering is None
    assert "not usable" in check.describe()
    assert json.dumps(check.as_record())


def test_a_header_before_each_answer_and_unlisted_tokens_are_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "weak.jinja"
    path.write_text(HEADER + LOOP + "<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}")
    warnings = "\n".join(check_template(load_template(path)).warnings)
    assert "'<|assistant|>' before each answer is trained" in warnings
    assert "contents may contain <|assistant|> <|user|>" in warnings


def test_a_refused_system_message_and_a_date_are_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "weak.jinja"
    path.write_text(
        HEADER + LOOP + "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ strftime_now('%Y') if strftime_now is defined else 2024 }}{{ m.content }}</s>{% endfor %}"
    )
    template = load_template(path)
    warnings = check_template(template).warnings
    assert "conversations with a system message are dropped" in "\n".join(warnings)
    assert "it writes the current date in transformers" in "\n".join(warnings)
    assert Renderer(template).warnings() == list(warnings)
