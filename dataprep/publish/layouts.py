"""The four layouts in which a build's rows are exported, and their columns.

| layout | columns | read by |
|---|---|---|
| text | `text` | trl, notebooks around mlabonne/guanaco-llama2-1k |
| messages | `messages` (role, content, …), `tools`, and the origin of a row | trl, transformers, axolotl, dataprep |
| sharegpt | `conversations` (from, value, …), `tools`, and the origin of a row | LLaMA-Factory, axolotl, dataprep |
| full | all columns of a build | training on spans, dataprep |

Fields beyond the text of a message are in the files only where the build has any such value, under the names that the
readers expect:

* messages: `reasoning_content`, `tool_calls`, `name`, `tool_call_id` and `tools` as trl and transformers name them; tool
  calls and tools are objects. `train: false` marks an answer that is context only (axolotl: `message_field_training:
  train`).
* sharegpt: a turn that calls tools is from `function_call` and its value is the calls as JSON, a result is from
  `observation`, reasoning stands in `<think>` before the answer, and `tools` is JSON text, as LLaMA-Factory reads them;
  `train`, `name` and `tool_call_id` as above.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import polars as pl
import pyarrow as pa

from dataprep.common.errors import DamagedBuild, StoreError
from dataprep.common.jsonfile import InvalidJson, parse_json
from dataprep.contract import SHARD_SCHEMA, Build
from dataprep.store.shards import JSON_COLUMNS
from dataprep.tables import ASSISTANT, REQUIRED_FIELDS, SYSTEM, TOOL, USER

Layout = Literal["text", "messages", "sharegpt", "full"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_ORIGIN = ("id", "tree_id", "source", "lang", "message_ids")
_TRAIN = "train"  # the name of a message's `trained` in other programs
_SHAREGPT_ROLES = {USER: "human", ASSISTANT: "gpt", SYSTEM: "system", TOOL: "observation"}
_FUNCTION_CALL = "function_call"
_SHAREGPT_EXTRA = ("name", "tool_call_id", "trained")  # fields of a message that are fields of a turn


def schema_of(build: Build) -> pa.Schema:
    """Return the schema of a build's rows: `SHARD_SCHEMA` with the fields that the build has."""
    return next((table.schema for table in build.splits.values()), SHARD_SCHEMA)


def layout_schema(build_schema: pa.Schema, layout: Layout) -> pa.Schema:
    """Return the columns that rows of `build_schema` have in a layout; JSON is plain text in them."""
    if layout == "full":
        return build_schema
    if layout == "text":
        return pa.schema([build_schema.field("text")])
    message = build_schema.field("messages").type.value_type
    tools = [build_schema.field("tools")] if "tools" in build_schema.names else []
    if layout == "messages":
        turn = pa.struct([field.with_name(_TRAIN) if field.name == "trained" else field for field in message])
        turns = pa.field("messages", pa.list_(turn))
    else:
        extra = [message.field(name) for name in _SHAREGPT_EXTRA if message.get_field_index(name) >= 0]
        extra = [field.with_name(_TRAIN) if field.name == "trained" else field for field in extra]
        turn = pa.struct([("from", pa.string()), ("value", pa.string()), *extra])
        turns = pa.field("conversations", pa.list_(turn))
    return pa.schema([*map(build_schema.field, _ORIGIN), turns, *tools])


def json_columns(layout: Layout) -> tuple[str, ...]:
    """Return the names of columns and fields that a layout has as objects; a build has them as JSON text."""
    return () if layout == "sharegpt" else JSON_COLUMNS


def sorted_rows(table: pa.Table, layout: Layout) -> pl.DataFrame:
    """Return the rows of a split with the columns of `layout_schema`, sorted by id.

    Sorted rows change little from one version to the next, so a store that knows most chunks of a file (the Hub's)
    needs only the others.

    Raises:
        StoreError: the layout cannot express a message.
    """
    schema = layout_schema(table.schema, layout)
    frame = pl.DataFrame(table.select(sorted({"id", *_build_columns(schema)}))).sort("id")
    if layout == "messages":
        frame = frame.with_columns(_with_train_name(frame["messages"]))
    elif layout == "sharegpt":
        frame = frame.with_columns(_sharegpt_turns(frame["messages"], schema))
        if "tools" in frame.columns:
            frame = frame.with_columns(pl.Series("tools", map(_bare_functions, frame["tools"]), pl.String))
    return frame.select(schema.names)


def _build_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of a build that the columns of a layout are made from."""
    return ["messages" if name == "conversations" else name for name in schema.names]


def _field_names(messages: pl.Series) -> list[str]:
    return [field.name for field in messages.dtype.inner.fields]  # type: ignore[attr-defined]


def _with_train_name(messages: pl.Series) -> pl.Series:
    names = _field_names(messages)
    if "trained" not in names:
        return messages
    renamed = [_TRAIN if name == "trained" else name for name in names]
    return (
        messages.to_frame().select(pl.col("messages").list.eval(pl.element().struct.rename_fields(renamed))).to_series()
    )


def _sharegpt_turns(messages: pl.Series, schema: pa.Schema) -> pl.Series:
    if set(_field_names(messages)) == set(REQUIRED_FIELDS):
        turn = pl.element().struct
        turns = pl.struct(
            turn.field("role").replace(_SHAREGPT_ROLES).alias("from"), turn.field("content").alias("value")
        )
        return messages.to_frame().select(pl.col("messages").list.eval(turns).alias("conversations")).to_series()
    turn_names = [field.name for field in schema.field("conversations").type.value_type]
    turn_type = pl.Struct({name: pl.Boolean() if name == _TRAIN else pl.String() for name in turn_names})
    rows = [[_sharegpt_turn(message) for message in row] for row in messages]
    return pl.Series("conversations", rows, pl.List(turn_type))


def _sharegpt_turn(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as a turn.

    Raises:
        StoreError: an answer has both text and tool calls.
    """
    calls, value = message.get("tool_calls"), message["content"]
    if calls and value:
        raise StoreError(
            f"The answer {value[:60]!r} has both text and tool calls, which the layout sharegpt cannot express: "
            "use --layout messages, which LLaMA-Factory reads with `formatting: openai`."
        )
    if calls:
        functions = _functions(calls)
        value = _json(functions[0] if len(functions) == 1 else functions)
    if message.get("reasoning_content"):
        value = f"<think>\n{message['reasoning_content']}\n</think>\n\n{value}"
    extra = {name: message[name] for name in _SHAREGPT_EXTRA if name in message}
    if "trained" in extra:
        extra[_TRAIN] = extra.pop("trained")
    sender = _FUNCTION_CALL if calls else _SHAREGPT_ROLES.get(message["role"], message["role"])
    return {"from": sender, "value": value, **extra}


def _bare_functions(tools: str | None) -> str | None:
    """Return tools as LLaMA-Factory documents them: functions without `{"type": "function", "function": …}`."""
    return None if tools is None else _json(_functions(tools))


def _functions(text: str) -> list[Any]:
    """Return the `function` of each entry of a JSON list of tools or of calls."""
    entries = decoded_json(text)
    entries = entries if isinstance(entries, list) else [entries]
    return [entry.get("function", entry) if isinstance(entry, dict) else entry for entry in entries]


def decoded_json(text: str) -> Any:
    """Return the value of a build's JSON text.

    Raises:
        DamagedBuild: it is no JSON.
    """
    try:
        return parse_json(text)
    except InvalidJson as fault:
        raise DamagedBuild(
            f"The build has tools or tool calls of which one {fault}: rebuild it with --force."
        ) from None


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def filled_splits(build: Build) -> dict[str, pa.Table]:
    """Return the splits that have rows: `datasets` refuses a file without any."""
    return {split: table for split, table in build.splits.items() if table.num_rows}


def dataset_info(build: Build, layout: Layout, files: Mapping[str, int]) -> dict[str, Any]:
    """Return the `dataset_info` of a data set card, as the Hub and `datasets` read it.

    Args:
        build: the build.
        layout: the layout of the files.
        files: bytes of each data file.
    """
    schema, decoded = layout_schema(schema_of(build), layout), json_columns(layout)
    splits = [
        {"name": split, "num_examples": table.num_rows, "num_bytes": table.select(_build_columns(schema)).nbytes}
        for split, table in filled_splits(build).items()
    ]
    return {
        "features": [_feature(field, decoded) for field in schema],
        "splits": splits,
        "download_size": sum(files.values()),
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _feature(field: pa.Field, decoded: tuple[str, ...]) -> dict[str, Any]:
    """Return a column as `Features.to_yaml` writes it; those named in `decoded` are JSON."""
    if field.name in decoded:
        return {"name": field.name, "dtype": "json"}
    if pa.types.is_list(field.type):
        values = field.type.value_type
        inner = [_feature(part, decoded) for part in values] if pa.types.is_struct(values) else str(values)
        return {"name": field.name, "list": inner}
    return {"name": field.name, "dtype": str(field.type)}
