"""Prompts rendered with a build's template."""

from __future__ import annotations

import pytest

from training.after.prompts import render
from training.errors import DataError


def test_contents_are_passed_as_parts_to_a_template_that_takes_only_those() -> None:
    template = (
        "{% for m in messages %}{% for part in m.content %}{{ part.text }}{{ eos_token }}{% endfor %}{% endfor %}"
    )
    tokens = {"eos_token": "</s>", "content_parts": True}
    assert render(template, [{"role": "user", "content": "Hi"}], tokens, answer=True) == "Hi</s>"


def test_a_conversation_that_the_template_refuses_is_an_error_with_its_reason() -> None:
    with pytest.raises(DataError, match="refuses this conversation \\(no thanks\\)"):
        render("{{ raise_exception('no thanks') }}", [{"role": "user", "content": "Hi"}], {}, answer=True)


def test_a_message_that_is_not_utf_8_is_one_sentence() -> None:
    with pytest.raises(DataError, match="holds bytes that are not UTF-8"):
        render("{{ messages[0].content }}", [{"role": "user", "content": "\udcff"}], {}, answer=True)
