"""`dataprep templates`: list, check, render."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App

from dataprep.cli.common import Json, Switch, app, print_json
from dataprep.common.errors import InputError

templates = App(name="templates", help="List the chat templates, check one, or render a conversation with one.")
app.command(templates)


@templates.default
def list_templates(*, as_json: Json = False) -> None:
    """List the templates that come with dataprep."""
    from rich.table import Table

    from dataprep.common.terminal import stdout_console
    from dataprep.rendering import list_templates as bundled
    from dataprep.rendering import load_template

    found = [load_template(name) for name in bundled()]
    if as_json:
        print_json([template.facts() for template in found])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("template", "an answer ends with", "special tokens"):
        table.add_column(column)
    for template in found:
        table.add_row(template.name, template.end_token, " ".join(template.special_tokens))
    stdout_console().print(table, markup=False)


@templates.command
def check(template: str, *, as_json: Json = False) -> None:
    """Check a template: is it sound, which control tokens it writes, is it rendered by columns or row by row, and why.

    Parameters
    ----------
    template
        A bundled name, a .jinja file, a tokenizer_config.json, or a folder that holds one.
    """
    from dataprep.common.terminal import stdout_console
    from dataprep.common.text import visible
    from dataprep.rendering import check_template, load_template

    found = check_template(load_template(template))
    if as_json:
        print_json(found.facts())
    else:
        stdout_console().print(visible(found.told()), soft_wrap=True, markup=False)
    if not found.sound:
        raise SystemExit(1)


@templates.command
def render(
    template: str,
    *,
    messages: Path,
    bos: str | None = None,
    eos: str | None = None,
    add_generation_prompt: Annotated[bool, Switch] = False,
) -> None:
    """Print exactly the text that a template gives for one conversation, and nothing else.

    Parameters
    ----------
    template
        A bundled name, a .jinja file, a tokenizer_config.json, or a folder that holds one.
    messages
        A JSON file: a list of {"role", "content"}, or an object with such a list under "messages".
    bos
        The begin token, instead of the template's own.
    eos
        The end token, instead of the template's own.
    add_generation_prompt
        End with what comes before an answer.
    """
    from dataprep.rendering import load_template
    from dataprep.rendering import render as rendered

    text = rendered(
        load_template(template),
        _read_messages(messages),
        add_generation_prompt=add_generation_prompt,
        bos_token=bos,
        eos_token=eos,
    )
    sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
    sys.stdout.flush()


def _read_messages(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as fault:
        raise InputError(f"{path} cannot be read: {fault.strerror}.") from None
    except ValueError as fault:
        raise InputError(f"{path} is no JSON: {fault}.") from None
    except RecursionError:
        raise InputError(f"{path} holds no conversation: it is nested too deeply.") from None
    listed = found.get("messages") if isinstance(found, dict) else found
    # A message of tool calls has no content: what a template makes of that is the template's.
    if not isinstance(listed, list) or not all(isinstance(message, dict) and "role" in message for message in listed):
        raise InputError(
            f'{path} holds no conversation: a list of {{"role": …, "content": …}} is needed, alone or under "messages".'
        )
    return listed
