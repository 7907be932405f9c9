"""`dataprep templates`: list and check chat templates, and render a conversation with one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App

from dataprep.cli.common import Json, Switch, app, print_json
from dataprep.common.command_line import HELP_FLAGS
from dataprep.common.errors import InputError
from dataprep.common.help_text import GroupedHelp

templates = App(
    name="templates",
    help="List or check chat templates, or render a conversation with one.",
    help_flags=HELP_FLAGS,
    help_formatter=GroupedHelp(),
    version_flags=(),
)
app.command(templates)


@templates.default
def list_templates(*, as_json: Json = False) -> None:
    """List the bundled templates."""
    from rich.table import Table

    from dataprep.common.terminal import stdout_console
    from dataprep.rendering import list_templates as template_names
    from dataprep.rendering import load_template

    bundled = [load_template(name) for name in template_names()]
    if as_json:
        print_json([template.to_manifest() for template in bundled])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("template", "end of an answer", "special tokens"):
        table.add_column(column)
    for template in bundled:
        table.add_row(template.name, template.end_token, " ".join(template.special_tokens))
    stdout_console().print(table, markup=False)


@templates.command
def check(template: str, *, template_date: str | None = None, as_json: Json = False) -> None:
    """Check whether a template can be used, list its tokens, and say whether it is rendered by columns or row by row.

    Parameters
    ----------
    template
        A bundled name, a .jinja file, a tokenizer_config.json, or a folder that contains one.
    template_date
        The date (YYYY-MM-DD) that the template writes where it asks for the current one.
    """
    from dataprep.common.terminal import stdout_console
    from dataprep.common.text import visible
    from dataprep.rendering import check_template, load_template

    result = check_template(load_template(template, template_date))
    if as_json:
        print_json(result.as_record())
    else:
        stdout_console().print(visible(result.describe()), soft_wrap=True, markup=False)
    if not result.usable:
        raise SystemExit(1)


@templates.command
def render(
    template: str,
    *,
    messages: Path,
    bos: str | None = None,
    eos: str | None = None,
    template_date: str | None = None,
    add_generation_prompt: Annotated[bool, Switch] = False,
) -> None:
    """Render one conversation and print exactly the resulting text.

    Parameters
    ----------
    template
        A bundled name, a .jinja file, a tokenizer_config.json, or a folder that contains one.
    messages
        A JSON file: a list of {"role", "content"}, or an object with such a list under "messages", and tools under "tools".
    bos
        The begin token; replaces the template's own.
    eos
        The end token; replaces the template's own.
    template_date
        The date (YYYY-MM-DD) that the template writes where it asks for the current one.
    add_generation_prompt
        Append the text that prompts a model for an answer.
    """
    from dataprep.rendering import load_template
    from dataprep.rendering import render as render_text

    conversation, tools = _read_conversation(messages)
    text = render_text(
        load_template(template, template_date),
        conversation,
        add_generation_prompt=add_generation_prompt,
        bos_token=bos,
        eos_token=eos,
        tools=tools,
    )
    sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
    sys.stdout.flush()


def _read_conversation(path: Path) -> tuple[list[dict[str, Any]], list[Any] | None]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None
    except RecursionError:
        raise InputError(f"{path} does not contain a conversation: it is nested too deeply.") from None
    messages = value.get("messages") if isinstance(value, dict) else value
    # A message with tool calls needs no content: the template decides how to render it.
    if not isinstance(messages, list) or not all(isinstance(item, dict) and "role" in item for item in messages):
        raise InputError(
            f'{path} does not contain a conversation: it must be a list of {{"role": …, "content": …}}, alone or under '
            '"messages".'
        )
    tools = value.get("tools") if isinstance(value, dict) else None
    if not (tools is None or isinstance(tools, list)):
        raise InputError(f'{path} has "tools" that are not a list: write them as JSON schemas in a list.')
    return messages, tools
