"""Modelfiles: Go templates give the text of the bundled Jinja templates, by Go's own text/template."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.bundled import templates_folder
from dataprep.rendering import load_template
from dataprep.rendering.template import render
from tests.support.chats import BUNDLED, Chat, chat
from training.after.ollama import go_template, modelfile
from training.errors import ModelError

GO = shutil.which("go")
CHATS: list[Chat] = [
    chat("hi"),
    chat("hi", system="Be brief."),
    chat("a", "b", "c"),
    chat("a", "b", "c", "d", "e", system="S\n"),
    chat(" padded ", "\n answer \n", "  \t\n"),
    chat("", system=""),
    chat("", "", "  ", system="  "),
    chat("é漢字 🙂 ", '{{ .X }} "q" <b>', "\r\n x", system=" ü "),
]


# Properties are sorted by name, as Ollama passes them; see the docstring of qwen3's cases below.
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'The weather <today> & tomorrow, as "text": a, b\\c\u2028d\b\f',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where, in {braces}: é漢字 🙂"},
                    "days": {"type": "array", "items": {"type": "integer"}},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                },
                "required": ["city", "unit"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]


def call(name: str, **arguments: object) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}}


def answer(content: str, *calls: dict[str, Any], reasoning: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {"role": "assistant", "content": content}
    return (
        fields
        | ({"tool_calls": list(calls)} if calls else {})
        | ({"reasoning_content": reasoning} if reasoning else {})
    )


def result(content: str) -> dict[str, Any]:
    return {"role": "tool", "content": content}


USER: dict[str, Any] = {"role": "user", "content": "What is the weather?"}
SYSTEM: dict[str, Any] = {"role": "system", "content": "Be brief.\n"}
ASKED = call("weather", city='"Oslo" <b> & 漢字', days=[1, 2.5], unit=None)
TOOL_CHATS: list[list[dict[str, Any]]] = [
    [USER],
    [SYSTEM, USER],
    [SYSTEM, USER, answer("", ASKED), result("cold: 1, <2>")],
    [USER, answer("I look.", ASKED, call("now")), result("cold"), result("12:00"), answer("Cold."), USER],
    [USER, answer("\n\n It is.", reasoning="\n\nthink\n twice \n"), USER],
    [USER, answer("\n", call("now"), reasoning="think"), result(""), USER, SYSTEM],
]


def bundled(name: str) -> str:
    return (templates_folder() / f"{name}.jinja").read_text(encoding="utf-8")


def rendered_by_go(requests: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """The texts that Go's text/template gives for templates with messages and tools."""
    done = subprocess.run(
        [str(GO), "run", str(Path(__file__).with_name("render_gotmpl.go"))],
        input=json.dumps(requests), capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    texts: list[str] = json.loads(done.stdout)
    return texts


@pytest.mark.skipif(GO is None, reason="Go is not installed (Debian package golang)")
def test_go_templates_give_the_text_of_the_jinja_templates(tmp_path: Path) -> None:
    """Tools, calls and reasoning are qwen3's.

    Ollama keeps tools and arguments as Go structures and maps. So properties and arguments are sorted by name, and keys
    that it does not know are dropped, before a template sees them: the cases are tools for which this changes nothing.
    """
    cases: list[tuple[str, Sequence[Any], list[dict[str, Any]] | None]] = [
        *((name, messages, None) for name in BUNDLED for messages in CHATS),
        *(("qwen3", messages, tools) for messages in TOOL_CHATS for tools in (TOOLS, None)),
    ]
    requests = [
        {"template": go_template(bundled(name)), "messages": messages, "tools": tools}
        for name, messages, tools in cases
    ]
    for (name, messages, tools), text in zip(cases, rendered_by_go(requests, tmp_path), strict=True):
        jinja = render(load_template(name), messages, tools=tools, add_generation_prompt=True)
        assert text == jinja, (name, messages)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_template_has_a_go_template(name: str) -> None:
    assert go_template(bundled(name)) is not None


def test_a_template_that_differs_from_the_bundled_one_has_no_go_template() -> None:
    assert go_template(bundled("chatml") + "{# changed #}") is None


def test_a_modelfile_names_the_gguf_the_template_the_stop_strings_and_the_system_text() -> None:
    text = modelfile("model-f16.gguf", "{{ .Prompt }}", ["<|im_end|>", "</s>"], "Be brief.")
    assert text == (
        'FROM ./model-f16.gguf\nTEMPLATE """{{ .Prompt }}"""\nPARAMETER stop "<|im_end|>"\nPARAMETER stop "</s>"\n'
        'SYSTEM """Be brief."""\n'
    )


def test_a_system_text_that_a_modelfile_cannot_quote_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot contain"):
        modelfile("model-f16.gguf", None, [], 'Say """ often.')
