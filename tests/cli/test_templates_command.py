"""`dataprep templates`: list, check and render."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.commands import dataprep


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
