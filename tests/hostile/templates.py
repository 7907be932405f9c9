"""Hostile chat templates: without bounds, with access to Python or to files, damaged, and put together at random."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence

from dataprep.common.bundled import templates_folder
from tests.hostile.builds import build_command
from tests.hostile.cases import Case, Sandbox
from tests.hostile.mutation import mutated
from tests.support.builds import GUANACO_TEXTS, guanaco_file

HEADER = '{#- bos_token = "<s>"\neos_token = "</s>"\nspecial_tokens = ["<s>", "</s>"] -#}'
LOOPS = "{% for x in range(99999) %}{% for y in range(99999) %}"
END = "{% endfor %}{% endfor %}"
DOUBLING = "{% set n = namespace(t='a') %}{% for x in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}"

# Each takes all time or memory, or crashes the interpreter, if nothing stops it.
ENDLESS = {
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

MESSAGE = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"

# Each tries to leave the sandbox; COMMAND is a shell command that leaves a trace.
ESCAPES = (
    "{{ lipsum.__globals__['os'].popen('COMMAND').read() }}",
    "{{ cycler.__init__.__globals__.os.system('COMMAND') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() | length }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ (messages | first)['__class__'] }}",
    "{{ messages | attr('__class__') }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ ('{0.__class__}' | format(messages)) }}",
    "{{ raise_exception.__globals__ }}",
    "{{ raise_exception.__code__.co_consts }}",
    "{{ strftime_now.__globals__['os'].system('COMMAND') if strftime_now }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment.globals }}",
    "{{ loop.__class__ }}{{ joiner.__init__.__globals__ }}",
    "{% include '/etc/hostname' %}",
    "{% import 'os' as os %}{{ os.system('COMMAND') }}",
    "{% from 'os' import system %}{{ system('COMMAND') }}",
    "{% extends '/etc/hostname' %}",
    "{% set x = messages.append({'role': 'user', 'content': 'x'}) %}",
    "{% set _ = messages[0].update({'content': 'changed'}) %}",
    "{% set _ = messages.clear() %}",
    "{% do messages.pop() %}",
    "{{ get_flashed_messages.__globals__ }}{{ config }}{{ request }}",
    "{{ open('/etc/hostname').read() }}{{ __import__('os').system('COMMAND') }}",
    "{{ dict.__base__.__subclasses__() }}{{ range.__class__.__call__ }}",
    "{{ strftime_now('%' * 100000) }}",
    "{{ strftime_now('%Y\\ud800') }}",
    "{{ raise_exception('\x1b[2J\x9b31m') }}",
    "{{ raise_exception(messages) }}",
    "{{ raise_exception }}",
)
# Parts of templates that are put together at random.
PARTS = (
    "{% for m in messages %}", "{% endfor %}", "{% if m.role == 'user' %}", "{% else %}", "{% endif %}", "{{ m.content }}",
    "{{ m['content'] | trim }}", "{{ m.content.strip() }}", "{{ bos_token }}", "{{ eos_token }}", "</s>", "<s>", "{{ m.role }}",
    "{% set n = namespace(a=0) %}", "{% set n.a = n.a + 1 %}", "{{ n.a }}", "{% if add_generation_prompt %}", "{{ loop.index0 }}",
    "{{ messages | length }}", "{{ messages | tojson }}", "{{ m.content[::-1] }}", "{{ m.content | upper }}", "{{ m.content | length }}",
    "{{ m.content.split('a') | join('b') }}", "{% generation %}", "{% endgeneration %}", "{% macro f(x) %}", "{% endmacro %}",
    "{{ f(m) }}", "{% break %}", "{% continue %}", "{{ tools }}", "{{- ''}}", "{# x #}", "{% raw %}", "{% endraw %}", "{{ 1 / 0 }}",
    "{{ undefined.x }}", "{{ m.content % 3 }}", "{{ m.content * 2 }}", "{{ messages[99].content }}", "{{ m | dictsort }}",
    "{{ raise_exception('no') }}", "{% filter upper %}", "{% endfilter %}", "{% call f(1) %}", "{% endcall %}", "{{ m.content | safe }}",
    "{{ m.content | e }}", "{{ m.content | random }}", "{{ m.content == 'x' }}", "{{ m.content in 'x' }}", "{{ 'é漢🙂\x00' }}", "\r\n",
)  # fmt: skip


def _endless(rng: random.Random) -> str:
    """One of `ENDLESS` with other numbers, sometimes beside a template that works."""
    text = ENDLESS[rng.choice(sorted(ENDLESS))]
    text = re.sub(r"\d{3,}", lambda number: str(max(1, int(int(number[0]) * rng.choice((0.1, 1, 10))))), text)
    return rng.choice((text, text + MESSAGE, MESSAGE.replace("{{ m.content }}", "{{ m.content }}" + text)))


def _escape(rng: random.Random, command: str) -> str:
    text = rng.choice(ESCAPES).replace("COMMAND", command)
    return rng.choice((text, text + MESSAGE, "{% if false %}" + text + "{% endif %}" + MESSAGE))


def _damaged(rng: random.Random) -> str:
    bundled = rng.choice(sorted(templates_folder().glob("*.jinja"))).read_bytes()
    return mutated(bundled, rng).decode(errors="replace")


def _random(rng: random.Random) -> str:
    return "".join(rng.choices(PARTS, k=rng.randrange(1, 25)))


KINDS = ("endless", "escape", "damaged", "random", "random")


def cases(sandbox: Sandbox, rng: random.Random, count: int, kinds: Sequence[str] = KINDS) -> Iterator[Case]:
    """Checks of hostile templates, and builds with them, of the kinds in turn."""
    for number in range(count):
        sandbox.prepare()
        kind = kinds[number % len(kinds)]
        text = {
            "endless": lambda: HEADER + _endless(rng),
            "escape": lambda: HEADER + _escape(rng, f"touch {sandbox.root}/outside/owned"),
            "damaged": lambda: _damaged(rng),
            "random": lambda: HEADER + _random(rng),
        }[kind]()
        file = sandbox.input / "template.jinja"
        file.write_text(text)
        if rng.random() < 0.2:
            file = sandbox.input / "tokenizer_config.json"
            file.write_text(json.dumps({"chat_template": text, "bos_token": "<s>", "eos_token": "</s>"}))
        if rng.random() < 0.6:
            yield Case.of(f"{kind} {number}", "templates", "check", file)
        else:
            rows = guanaco_file(sandbox.input, GUANACO_TEXTS)
            build = (*build_command(rows, sandbox), "--near-dup", "off")
            yield Case.of(f"{kind} {number}", *build, "--template", file)
