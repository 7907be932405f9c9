"""Modelfiles: Go templates give the text of the bundled Jinja templates, by Go's own text/template."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from dataprep.common.bundled import templates_folder
from dataprep.rendering import load_template, render
from tests.support.chats import BUNDLED, Chat, chat
from training.after.ollama import go_template, modelfile
from training.errors import ModelError

GO = shutil.which("go")
TRANSLATED = [name for name in BUNDLED if name != "qwen3"]  # its tools have no translation yet
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


def bundled(name: str) -> str:
    return (templates_folder() / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.mark.skipif(GO is None, reason="Go is not installed (Debian package golang)")
def test_go_templates_give_the_text_of_the_jinja_templates(tmp_path: Path) -> None:
    cases = [(name, messages) for name in TRANSLATED for messages in CHATS]
    requests = [{"template": go_template(bundled(name)), "messages": messages} for name, messages in cases]
    done = subprocess.run(
        [str(GO), "run", str(Path(__file__).with_name("render_gotmpl.go"))],
        input=json.dumps(requests), capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (name, messages), text in zip(cases, json.loads(done.stdout), strict=True):
        assert text == render(load_template(name), messages, add_generation_prompt=True), (name, messages)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_template_but_qwen3_has_a_go_template(name: str) -> None:
    assert (go_template(bundled(name)) is not None) == (name in TRANSLATED)


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
