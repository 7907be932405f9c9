"""Templates that would take all time or memory, or crash the interpreter: each is refused in one short sentence."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from dataprep.common.errors import TemplateError
from dataprep.rendering import Renderer, isolation, load_template

HEADER = '{#- bos_token = "<s>"\neos_token = "</s>"\nspecial_tokens = ["<s>", "</s>"] -#}'
LOOPS = "{% for x in range(99999) %}{% for y in range(99999) %}"
END = "{% endfor %}{% endfor %}"
DOUBLING = "{% set n = namespace(t='a') %}{% for x in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}"

HOSTILE = {
    "nested loops": f"{LOOPS}{END}",
    "a recursive macro": "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
    "a recursive loop": "{% for x in [1] recursive %}{{ loop(range(90000)) if loop.depth < 4 }}{% endfor %}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "doubling a text": DOUBLING,
    "multiplying a text": "{{ 'a' * 99999999999 }}",
    "multiplying lists": "{{ ([[0] * 99999] * 99999) | string }}",
    "a power": "{{ 7 ** 300000000 }}",
    "a power as text": "{{ (7 ** 3000000) | string | length }}",
    "ljust": "{{ 'a'.ljust(30000000000) }}",
    "zfill": "{{ '1'.zfill(30000000000) }}",
    "formatting": "{{ '%30000000000d' % 1 }}",
    "str.format": "{{ '{:>30000000000}'.format('a') }}",
    "indent": "{{ ('a\n' * 9999999) | indent(99999) }}",
    "tojson": "{{ range(9999) | list | tojson(indent=9999999) }}",
    "batch": "{{ [1] | batch(9999999999, 'x') | list }}",
    "slice": "{{ [1] | slice(9999999999, 'x') | list }}",
    "urlize": "{{ ('www.a.b ' * 9999999) | urlize }}",
    "wordwrap": "{{ ('a ' * 99999999) | wordwrap(1) }}",
    "sum of lists": "{{ ([[0] * 9999] * 99999) | sum(start=[]) | length }}",
    "in inside of loops": f"{{% set l = range(99999) | list %}}{LOOPS}{{{{ -1 in l }}}}{END}",
    "sort inside of loops": f"{LOOPS}{{{{ range(99999) | sort | length }}}}{END}",
    "translate": "{{ ('a' * 9999999).translate({97: 'b' * 9999}) }}",
    "a list in itself": "{% set l = [] %}{% set n = namespace(l=l) %}{% for x in range(9999999) %}"
    "{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | tojson }}",
    "25 nested loops": "{% for x in [1] %}" * 25 + "{% endfor %}" * 25,
    "deep expressions": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a long refusal": "{{ raise_exception('x' * 1000000) }}",
    "a long answer": "{% for m in messages %}{{ m.content * 9999999 }}</s>{% endfor %}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_template_without_bounds_is_refused_in_one_short_sentence(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "CPU_SECONDS", 1)
    path = tmp_path / "hostile.jinja"
    path.write_text(HEADER + text)
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(TemplateError) as error:
        Renderer(load_template(path))
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert len(str(error.value)) < 600
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2  # of this process
    assert after.ru_maxrss - before.ru_maxrss < 300 << 10  # KiB
