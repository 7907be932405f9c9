"""Modelfiles for Ollama: which GGUF to load, the chat template in Go's syntax, where answers stop, and the system text.

Ollama renders messages with Go's text/template, so it cannot use a build's Jinja template. `training/after/ollama/`
holds a Go template for each bundled template; a test renders both and compares the texts. Format: Ollama's Modelfile
reference.
"""

from __future__ import annotations

from pathlib import Path

from dataprep.common.bundled import templates_folder
from training.errors import ModelError

_TEMPLATES = Path(__file__).with_name("ollama")


def go_template(source: str) -> str | None:
    """The Go template that gives the text of the Jinja template `source`; None if `source` is no bundled template."""
    for file in sorted(_TEMPLATES.glob("*.gotmpl")):
        bundled = templates_folder() / f"{file.stem}.jinja"
        if bundled.read_text(encoding="utf-8") == source:
            return file.read_text(encoding="utf-8").removesuffix("\n")
    return None


def modelfile(gguf: str, template: str | None, stop: list[str], system: str | None) -> str:
    """The text of a Modelfile.

    Args:
        gguf: path of the GGUF file, relative to the Modelfile.
        template: Go template; None writes none, and Ollama then guesses one from the GGUF's Jinja template.
        stop: strings that end an answer.
        system: system text for requests that have none.

    Raises:
        ModelError: the system text holds three double quotes, which a Modelfile cannot quote.
    """
    if system is not None and '"""' in system:
        raise ModelError(
            'The system text holds """, which a Modelfile cannot contain: set the system text in each request.'
        )
    lines = [f"FROM ./{gguf}"]
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    lines += [f'PARAMETER stop "{token}"' for token in stop]
    if system is not None:
        lines.append(f'SYSTEM """{system}"""')
    return "\n".join(lines) + "\n"
