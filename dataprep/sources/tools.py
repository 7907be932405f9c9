"""Normalise tools and tool calls to the JSON text that chat templates get.

Tools become a list of `{"type": "function", "function": {…}}`, calls a list of `{"type": "function", "id": …,
"function": {"name": …, "arguments": {…}}}`, as transformers passes them to a template.
"""

from __future__ import annotations

import json
from typing import Any

from dataprep.sources.coercion import CoercionError, excerpt_json, has_value, to_json_text
from dataprep.sources.rows import FieldCounts


def normalise_tools(text: str, counts: FieldCounts) -> str | None:
    """Return the tools in a JSON text in their normal form; None if there are none.

    Raises:
        CoercionError: it is not a list of tools.
    """
    tools = _decode_list(text, "tools")
    return to_json_text([_tool(tool, counts) for tool in tools]) if tools else None


def normalise_tool_calls(text: str, counts: FieldCounts) -> str | None:
    """Return the calls in a JSON text (a list, or one call) in their normal form; None if there are none.

    Raises:
        CoercionError: it holds anything but calls.
    """
    calls = _decode_list(text, "tool calls")
    return to_json_text([_call(call, counts) for call in calls]) if calls else None


def _decode_list(text: str, what: str) -> list[Any]:
    """Decode a list, or one object as a list of one; blank text is an empty list."""
    if not text.strip():
        return []
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise CoercionError(f"has {what} that are not JSON: {excerpt_json(text)}") from None
    if value is None:
        return []
    if isinstance(value, dict):
        return [value] if value else []
    if not isinstance(value, list):
        raise CoercionError(f"has {what} that are not a list: {excerpt_json(value)}")
    return value


def _object(item: Any, what: str) -> dict[str, Any]:
    """An item of a list of objects, or of a list of JSON texts with one object each.

    Raises:
        CoercionError: it is neither.
    """
    if isinstance(item, str):
        decoded = _decode_list(item, f"{what}s")
        item = decoded[0] if len(decoded) == 1 else None
    if not isinstance(item, dict):
        raise CoercionError(f"has a {what} that is not an object: {excerpt_json(item)}")
    return item


def _tool(tool: Any, counts: FieldCounts) -> dict[str, Any]:
    """Wrap the definition of a function, which data sets store with and without `{"type": "function"}` around it."""
    tool = _object(tool, "tool")
    function = tool.get("function")
    if not isinstance(function, dict):
        if not isinstance(tool.get("name"), str):
            raise CoercionError(f"has a tool without a name: {excerpt_json(tool)}")
        return {"type": "function", "function": tool}
    _count_unused(tool, ("type", "function"), "tools", counts)
    return {"type": "function", "function": function}


def _call(call: Any, counts: FieldCounts) -> dict[str, Any]:
    call = _object(call, "tool call")
    function = call.get("function")
    if isinstance(function, dict):
        _count_unused(call, ("type", "id", "index", "function"), "messages.tool_calls", counts)
    else:
        function = {name: value for name, value in call.items() if name not in ("type", "id", "index")}
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise CoercionError(f"has a tool call without the name of a function: {excerpt_json(call)}")
    _count_unused(function, ("name", "arguments"), "messages.tool_calls", counts)
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) and call["id"] else {}
    return {
        "type": "function",
        **identity,
        "function": {"name": name, "arguments": _arguments(function.get("arguments"))},
    }


def _arguments(value: Any) -> Any:
    """Return arguments as an object: OpenAI writes them as JSON text. Text that is not JSON stays as it is."""
    if isinstance(value, str):
        try:
            decoded = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError):
            return value
        return decoded if isinstance(decoded, dict) else value
    return {} if value is None else value


def _count_unused(value: dict[str, Any], known: tuple[str, ...], path: str, counts: FieldCounts) -> None:
    for name, part in value.items():
        if name not in known and has_value(part):
            counts.unused[f"{path}.{name}"] += 1
