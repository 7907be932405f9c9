"""Templates that inspect contents, in every way that Jinja offers, are detected and rendered correctly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from dataprep.rendering import Renderer, check_template, render
from dataprep.rendering.layout import ContentKind, Slot
from dataprep.rendering.rows import render_row
from dataprep.rendering.symbols import ContentInspected, SymbolicText
from tests.support.chats import Chat, chat, chats, frame, render_rows, template

H = "<|{{ m.role }}|>"

BY_COLUMNS = {
    "plain": H + "{{ c }}</s>",
    "tilde": "{{ '<|' ~ m.role ~ '|>' ~ c ~ '</s>' }}",
    "tilde number": H + "{{ c ~ 3 }}</s>",
    "trim": H + "{{ c | trim }}</s>",
    "strip": H + "{{ c.strip() }}</s>",
    "lstrip": H + "{{ c.lstrip() ~ '.' }}</s>",
    "strip of a sum": H + "{{ ('  ' + c + '  ').strip() }}</s>",
    "strip twice": H + "{{ (c.rstrip() + '\n').strip() }}</s>",
    "macro": "{% macro f(r, x) %}<|{{ r }}|>{{ x }}</s>{% endmacro %}{{ f(m.role, c) }}",
    "stripped macro": "{% macro f(r, x) %} <|{{ r }}|>{{ x }}</s> {% endmacro %}{{ f(m.role, c | trim).strip() }}",
    "call": "{% macro w() %}<|{{ m.role }}|>{{ caller() }}</s>{% endmacro %}{% call w() %}{{ c }}{% endcall %}",
    "set block": "{% set b %}<|{{ m.role }}|>{{ c }}</s>{% endset %}{{ b }}",
    "stripped set block": "{% set b %}  <|{{ m.role }}|>{{ c }}</s>  {% endset %}{{ b | trim }}",
    "filter block": H + "{% filter trim %} {{ c }} {% endfilter %}</s>",
    "namespace": "{% set n = namespace(x='') %}{% set n.x = n.x + '<|' + m.role + '|>' + c %}{{ n.x }}</s>",
    "list and dict": H + "{{ [c] | first }}{{ {'a': c}['a'] }}{{ {'a': c}.get('a') }}</s>",
    "unpacking": H + "{% set a, b = 'x', c %}{{ b }}</s>",
    "string": H + "{{ c | string }}</s>",
    "undefined attribute": H + "{{ c.thinking }}{{ c['thinking'] }}{{ c }}</s>",
    "is string": H + "{% if c is string and c is not mapping and c is iterable %}{{ c }}{% endif %}</s>",
    "is defined": H + "{% if c is defined and c is not none %}{{ c }}{% endif %}</s>",
    "get": H + "{{ m.get('content', '') }}{{ m['content'] }}</s>",
    "empty or not": H + "{% if c | trim %}{{ c }}{% else %}-{{ c }}{% endif %}</s>",
    "selectattr": H + "{{ messages | selectattr('content') | list | length }}{{ c }}</s>",
    "default": H + "{{ c | default('?') }}</s>",
    "== of another kind": H + "{% if c == false or c is eq none or c in [1, none] %}!{% endif %}{{ c }}</s>",
    "== nothing": H + "{% if c != '' and c.strip() == '' %}!{% endif %}{{ c }}</s>",
    "not taken": H + "{% if m.role == 'nobody' %}{{ c | length }}{% endif %}{{ c }}</s>",
    "generation": "{% if m.role == 'assistant' %}" + H + "{% generation %}{{ c }}</s>{% endgeneration %}"
    "{% else %}" + H + "{{ c }}</s>{% endif %}",
}

ROW_BY_ROW = {
    "in": H + "{% if 'e' in c %}!{% endif %}{{ c }}</s>",
    "in a string": H + "{% if c in 'abc' %}!{% endif %}{{ c }}</s>",
    "in a list": H + "{% if c in ['a', 'abc'] %}!{% endif %}{{ c }}</s>",
    "test in": H + "{% if c is in ['a', 'abc'] %}!{% endif %}{{ c }}</s>",
    "==": H + "{% if c == 'abc' %}!{% endif %}{{ c }}</s>",
    "== the other way": H + "{% if 'abc' == c %}!{% endif %}{{ c }}</s>",
    "!=": H + "{% if c != 'abc' %}!{% endif %}{{ c }}</s>",
    "<": H + "{{ c < 'x' }}{{ c }}</s>",
    "equalto": H + "{{ messages | selectattr('content', 'equalto', 'abc') | list | length }}{{ c }}</s>",
    "sameas": H + "{% if c is sameas m.content %}!{% endif %}{{ c }}</s>",
    "length": H + "{% if c | length > 3 %}!{% endif %}{{ c }}</s>",
    "length of a sum": H + "{{ 'abc' ~ c | length }}{{ c }}</s>",
    "index": H + "{{ c[0] }}{{ c }}</s>",
    "as an index": H + "{{ 'abc'[c] }}{{ c }}</s>",
    "as a key": H + "{{ {'abc': 1}[c] }}{{ c }}</s>",
    "slice": H + "{{ c[1:] }}{{ c[::-1] }}</s>",
    "startswith": H + "{% if c.startswith('a') %}!{% endif %}{{ c }}</s>",
    "split": H + "{{ c.split('b')[-1] }}|{{ c.split() | join('+') }}|{{ c.rsplit(None, 1)[-1:] | join }}{{ c }}</s>",
    "partition": H + "{{ c.partition('b')[0] }}{{ c.rpartition('<')[2] }}{{ c.splitlines() | join }}{{ c }}</s>",
    "thinking": H + "{% if '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ c }}</s>",
    "replace": H + "{{ c | replace('a', '<s>') }}{{ c.replace('', '') }}{{ c }}</s>",
    "upper": H + "{{ c | upper }}{{ c.lower() }}</s>",
    "title": H + "{{ c | title }}{{ c.center(9) }}{{ c }}</s>",
    "trim of other characters": H + "{{ c | trim('a') }}{{ c.strip('<') }}{{ c.removeprefix('a') }}</s>",
    "join": H + "{{ [c, 'x'] | join('-') }}</s>",
    "method join": H + "{{ '-'.join([c, 'x']) }}</s>",
    "join of an attribute": H + "{{ messages | map(attribute='role') | join }}{{ [m] | join('', 'content') }}</s>",
    "method format": "{{ '<|{}|>{}</s>'.format(m.role, c) }}",
    "named format": "{{ '<|{a}|>{b}</s>'.format(a=m.role, b=c) }}",
    "filter format": "{{ '<|%s|>%s</s>' | format(m.role, c) }}",
    "%": "{{ '<|%s|>' % m.role ~ '%s</s>' % (c,) }}",
    "loop": H + "{% for x in c %}{{ x }}{% endfor %}{{ c }}</s>",
    "list": H + "{{ c | list | join('') }}{{ c }}</s>",
    "*": H + "{{ c * 2 }}</s>",
    "escape": H + "{{ c | e }}{{ c }}</s>",
    "json": H + "{{ c | tojson }}{{ c }}</s>",
    "indent": H + "{{ c | indent(2) }}{{ c }}</s>",
    "changed": H + "{% if loop.changed(c) %}!{% endif %}{{ c }}</s>",
    "macro with in": "{% macro f(x) %}{% if 'a' in x %}!{% endif %}{{ x }}{% endmacro %}" + H + "{{ f(c) }}</s>",
    "generation": "{% if m.role == 'assistant' %}" + H + "{% generation %}{{ c[:] }}</s>{% endgeneration %}"
    "{% else %}" + H + "{{ c }}</s>{% endif %}",
}

CHATS = [
    chat("abc", "an answer"),
    chat("typed </s><s>", "a </think>\n<s> b", "", "</s>"),
    chat("a", "  \x1c padded \n", system="a <s> é"),
    chat("question"),
]


def rendering_of(body: str) -> str | None:
    check = check_template(template(body))
    assert check.usable, check.problems
    return check.rendering


def assert_rows_equal_jinja(body: str, conversations: list[Chat]) -> None:
    """The text is Jinja's, each answer is trained up to its end token, and only the template's own tokens are controls."""
    renderer = Renderer(template(body))
    for messages, row in zip(conversations, render_rows(renderer, conversations), strict=True):
        assert row.text == render(renderer.template, messages)
        assert row == render_row(renderer.template, messages)
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        assert len(row.spans) == len(answers)
        assert all(row.text[start:end].endswith("</s>") for start, end in row.spans)
        inserted = sum(message["content"].count("a") for message in messages) if "'<s>')" in body else 0
        assert len(row.controls) == 1 + len(messages) + inserted
        assert all(row.text[start:end] in ("<s>", "</s>") for start, end in row.controls)


@pytest.mark.parametrize("body", BY_COLUMNS.values(), ids=BY_COLUMNS)
def test_a_template_that_never_inspects_contents_is_rendered_by_columns(body: str) -> None:
    assert rendering_of(body) == "by columns"
    assert_rows_equal_jinja(body, CHATS)


@pytest.mark.parametrize("body", ROW_BY_ROW.values(), ids=ROW_BY_ROW)
def test_a_template_that_inspects_contents_is_rendered_row_by_row(body: str) -> None:
    assert rendering_of(body) == "row by row"
    assert_rows_equal_jinja(body, CHATS)


@settings(max_examples=60, deadline=None)
@given(messages=chats())
def test_both_ways_of_rendering_agree(messages: Chat) -> None:
    """The same format twice, once with an inspection that changes nothing."""
    for name in ("strip of a sum", "stripped macro", "strip twice", "empty or not"):
        body = BY_COLUMNS[name]
        [by_columns] = render_rows(Renderer(template(body)), [messages])
        [row_by_row] = render_rows(Renderer(template("{% if 'x' in c %}{% endif %}" + body)), [messages])
        assert by_columns == row_by_row


def test_a_special_token_of_unknown_origin_is_refused() -> None:
    """After wrapping a text with two authors, nobody knows who wrote a `</s>` in it."""
    renderer = Renderer(
        template("<|{{ m.role }}|>{{ c }}</s>{% if '!' in c %}{{ ('own text ' ~ c) | wordwrap }}{% endif %}")
    )
    refusals = renderer.refusals(frame([chat("fine", "b"), chat("fine!", "b"), chat("typed </s>!", "b")]))
    assert refusals["row"].to_list() == [102]
    assert "it is unknown which of them wrote the '</s>'" in refusals["detail"][0]


def test_a_templates_own_error_message_becomes_the_refusals_detail() -> None:
    renderer = Renderer(
        template("{% if c == 'bad' %}{{ raise_exception('found ' ~ c) }}{% endif %}<|{{ m.role }}|>{{ c }}</s>")
    )
    refusals = renderer.refusals(frame([chat("good", "b"), chat("bad", "b")]))
    assert refusals.rows() == [(101, "template_refused", "The template test refuses this conversation: found bad.")]


def test_a_symbolic_text_refuses_every_other_operation() -> None:
    text = SymbolicText(["a", Slot(0)])
    inspections: tuple[Callable[[Any], Any], ...] = (
        str,
        repr,
        len,
        hash,
        iter,
        list,
        lambda value: value == "a",
        lambda value: "a" in value,
        lambda value: f"{value}",
        lambda value: value * 2,
    )
    for inspect in inspections:
        with pytest.raises(ContentInspected):
            inspect(text)
    assert not isinstance(text, str)


def test_a_symbolic_text_knows_whether_it_is_empty() -> None:
    assert SymbolicText(["a", Slot(0)])
    assert not SymbolicText([Slot(0, ContentKind.EMPTY)])
    assert SymbolicText([Slot(0, ContentKind.BLANK)])
    assert not SymbolicText([" ", Slot(0, ContentKind.BLANK)]).strip()
