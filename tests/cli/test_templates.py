"""`dataprep templates`: list, check and render."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataprep.cli import templates
from dataprep.common.errors import InputError
from tests.support.chats import chat
from tests.support.commands import dataprep


def test_a_message_with_tool_calls_needs_no_content(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    body = "{% for m in messages %}<{{ m.role }}>{{ m.tool_calls[0].name if m.tool_calls else m.content }}{% endfor %}"
    (tmp_path / "tools.jinja").write_text(body)
    messages = [*chat("a"), {"role": "assistant", "tool_calls": [{"name": "f"}]}]
    (tmp_path / "chat.json").write_text(json.dumps(messages))
    templates.render(str(tmp_path / "tools.jinja"), messages=tmp_path / "chat.json")
    assert capsysbinary.readouterr().out == b"<user>a<assistant>f"


def test_tools_and_the_date_are_passed_to_the_template(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "tools.jinja").write_text("{{ strftime_now('%d.%m.') }}{{ tools[0].function.name }}")
    conversation = {"messages": chat("a"), "tools": [{"type": "function", "function": {"name": "f"}}]}
    (tmp_path / "chat.json").write_text(json.dumps(conversation))
    templates.render(str(tmp_path / "tools.jinja"), messages=tmp_path / "chat.json", template_date="2026-01-31")
    assert capsysbinary.readouterr().out == b"31.01.f"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{", "is not valid JSON"),
        ('[{"content": "a"}]', "does not contain a conversation"),
    ],
    ids=["deep", "cut off", "without roles"],
)
def test_a_file_without_a_conversation_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "chat.json").write_text(text)
    with pytest.raises(InputError, match=message):
        templates.render("llama2", messages=tmp_path / "chat.json")


def test_the_bundled_templates_are_listed() -> None:
    templates = json.loads(dataprep("templates", "--json").stdout)
    bundled = {"llama2", "chatml", "llama3", "mistral", "zephyr", "vicuna", "alpaca", "gemma"}
    assert bundled <= {template["name"] for template in templates}
    assert "llama2" in dataprep("templates").stdout


def test_a_template_is_checked() -> None:
    done = dataprep("templates", "check", "llama2")
    assert done.returncode == 0
    assert "rendered: by columns" in done.stdout


def test_a_conversation_is_rendered_with_the_given_tokens(tmp_path: Path) -> None:
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps([{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yes"}]))
    render = ("templates", "render", "llama2", "--messages", chat)
    assert dataprep(*render).stdout == "<s>[INST] Hi [/INST] Yes </s>"
    assert dataprep(*render, "--bos", "<b>", "--eos", "<e>").stdout == "<b>[INST] Hi [/INST] Yes <e>"
