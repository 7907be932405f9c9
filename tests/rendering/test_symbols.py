"""Templates that look into their contents in every way we know of are found out, and rendered right all the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings

from dataprep.common.errors import TemplateError
from dataprep.rendering import Renderer, Template, check_template, render, renderer
from dataprep.rendering.layout import Kind, Slot
from dataprep.rendering.rows import Rendered, render_row
from dataprep.rendering.symbols import LooksInside, Rope
from tests.support.chats import Chat, chat, chats, frame, template

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


def way(body: str) -> str | None:
    found = check_template(template(body))
    assert found.sound, found.problems
    return found.way


def check_rows(body: str, found: list[Chat]) -> None:
    """By whatever way: Jinja's text, answers trained up to their end, and only the template's own tokens."""
    by = Renderer(template(body))
    rows = [row for batch in by.batches(frame(found)) for row in renderer.rendered_rows(batch)]
    for messages, row in zip(found, rows, strict=True):
        assert row.text == render(by.template, messages)
        assert row == render_row(by.template, messages)
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        assert len(row.spans) == len(answers)
        assert all(row.text[start:end].endswith("</s>") for start, end in row.spans)
        inserted = sum(message["content"].count("a") for message in messages) if "'<s>')" in body else 0
        assert len(row.controls) == 1 + len(messages) + inserted
        assert all(row.text[start:end] in ("<s>", "</s>") for start, end in row.controls)


@pytest.mark.parametrize("body", BY_COLUMNS.values(), ids=BY_COLUMNS)
def test_goes_by_columns(body: str) -> None:
    assert way(body) == "by columns"
    check_rows(body, CHATS)


@pytest.mark.parametrize("body", ROW_BY_ROW.values(), ids=ROW_BY_ROW)
def test_is_found_out(body: str) -> None:
    assert way(body) == "row by row"
    check_rows(body, CHATS)


@settings(max_examples=60, deadline=None)
@given(messages=chats())
def test_both_ways_agree(messages: Chat) -> None:
    """The same format, once as it is and once with a look inside that changes nothing."""
    for name in ("strip of a sum", "stripped macro", "strip twice", "empty or not"):
        body = BY_COLUMNS[name]
        plain, looking = Renderer(template(body)), Renderer(template("{% if 'x' in c %}{% endif %}" + body))
        [by_columns], [by_row] = (
            [row for batch in by.batches(frame([messages])) for row in renderer.rendered_rows(batch)]
            for by in (plain, looking)
        )
        assert by_columns == by_row


def test_text_of_unknown_hands_is_refused_rather_than_guessed() -> None:
    """`tojson` of a whole message: whose `</s>` is that?"""
    by = Renderer(
        template("<|{{ m.role }}|>{{ c }}</s>{% if m.role == 'user' and '!' in c %}{{ m | tojson }}{% endif %}")
    )
    told = by.refusals(frame([chat("fine", "b"), chat("fine!", "b"), chat("typed </s>!", "b")]))
    assert told["row"].to_list() == [102]
    assert "hides who wrote the '</s>'" in told["detail"][0]


def test_a_contents_own_message_in_a_refusal() -> None:
    by = Renderer(
        template("{% if c == 'bad' %}{{ raise_exception('found ' ~ c) }}{% endif %}<|{{ m.role }}|>{{ c }}</s>")
    )
    told = by.refusals(frame([chat("good", "b"), chat("bad", "b")]))
    assert told.rows() == [(101, "The template test refuses this conversation: found bad.")]


def test_ropes_answer_nothing_else() -> None:
    rope = Rope(["a", Slot(0)])
    for look in (
        str,
        repr,
        len,
        hash,
        iter,
        list,
        lambda r: r == "a",
        lambda r: "a" in r,
        lambda r: f"{r}",
        lambda r: r * 2,
    ):
        with pytest.raises(LooksInside):
            look(rope)
    assert rope and not Rope([Slot(0, Kind.EMPTY)]) and Rope([Slot(0, Kind.BLANK)])
    assert not Rope([" ", Slot(0, Kind.BLANK)]).strip()
    assert not isinstance(rope, str)


def generating(answer: str) -> Template:
    """A template with `{% generation %}` tags somewhere in `answer`."""
    return template("{% if m.role == 'assistant' %}" + answer + "{% else %}<|{{ m.role }}|>{{ c }}</s>{% endif %}")


def test_generation_blocks_begin_where_they_stand_and_end_with_the_end_token() -> None:
    for word in ("c", "c[:]"):  # by columns, and row by row
        by = Renderer(generating("<|assistant|>{% generation %} {{ " + word + " }} </s>.{% endgeneration %}"))
        [batch] = by.batches(frame([chat("a", "b", "c", " d", "e", "")]))
        [row] = renderer.rendered_rows(batch)
        assert isinstance(row, Rendered)
        assert [row.text[start:end] for start, end in row.spans] == [" b </s>", "  d </s>", "  </s>"]


@pytest.mark.parametrize("word", ["c", "c[:]"])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            "{% if loop.last %}{% generation %}{{ WORD }}</s>{% endgeneration %}{% else %}{{ c }}</s>{% endif %}",
            "writes 1 {% generation %} blocks for 2 answers",
        ),
        (
            "{% generation %}{{ WORD }}{% endgeneration %}</s>",
            "does not write the end token '</s>' after an answer inside of its {% generation %} block but ''",
        ),
        ("{{ WORD }}{% generation %}</s>{% endgeneration %}", "writes the answer of message 2 outside of its"),
        (
            "{% generation %}{{ WORD }}</s>{% endgeneration %}{% generation %}!{% endgeneration %}",
            "writes 2 {% generation %} blocks for 1 answers",
        ),
        (
            "{% generation %}{% generation %}{{ WORD }}</s>{% endgeneration %}{% endgeneration %}",
            "blocks inside or apart from each other",
        ),
    ],
)
def test_generation_blocks_that_break_the_contract_are_refused(answer: str, told: str, word: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(told)):
        Renderer(generating(answer.replace("WORD", word)))


def test_a_conversation_whose_answer_has_no_block_is_refused() -> None:
    answer = "{% if not loop.first %}{% generation %}{{ c }}</s>{% endgeneration %}{% else %}{{ c }}</s>{% endif %}"
    led = [{"role": "assistant", "content": "hello"}, *chat("a", "b")]
    told = Renderer(generating(answer)).refusals(frame([chat("a", "b"), led]))
    assert told["row"].to_list() == [101] and "1 {% generation %} blocks for 2 answers" in told["detail"][0]
