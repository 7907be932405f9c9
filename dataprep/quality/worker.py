"""Great Expectations in a process of its own: it is loaded while the other stages work, and leaves the memory free.

Run by `gate.Gate` as a script that imports nothing of dataprep. It reads from stdin one line of JSON, the expectations
(list of {name, says, severity, type, arguments}), then one line with the path of the facts (an Arrow file), and writes
one line of JSON: {"result": …} or {"error": sentence}. A closed stdin ends it.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

IDS = 1000  # failing ids of one expectation that are kept; their number is kept whole


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    expectations = json.loads(sys.stdin.readline() or "[]")
    if not expectations:
        return
    os.environ |= {"GX_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "TQDM_DISABLE": "1"}
    logging.disable(logging.WARNING)
    try:
        answer: dict[str, Any] = {"result": _judged(expectations, sys.stdin)}
    except _Told as fault:
        answer = {"error": str(fault)}
    answers.write(json.dumps(answer, default=str) + "\n")
    answers.flush()


class _Told(Exception):
    """A fault of the expectations file, as a sentence."""


def _judged(expectations: list[dict[str, Any]], asked: TextIO) -> dict[str, Any] | None:
    gc.disable()  # what is loaded stays: to look for garbage among it takes a sixth of the time
    import pandas as pd
    import pyarrow as pa

    with _naming(expectations, None):
        checkpoint = _checkpoint(expectations)
    gc.freeze()
    gc.enable()
    path = asked.readline().rstrip("\n")
    if not path:
        return None
    with pa.memory_map(path) as source:
        facts = pa.ipc.open_file(source).read_all().to_pandas(types_mapper=pd.ArrowDtype)
    with _naming(expectations, facts):
        return _result(checkpoint, facts)


def _checkpoint(expectations: list[dict[str, Any]]) -> Any:
    """A checkpoint of Great Expectations that holds a frame of facts to these expectations."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas("build")
        .add_dataframe_asset("facts")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = context.suites.add(gx.ExpectationSuite("gate", expectations=[_made(entry) for entry in expectations]))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="gate", data=batch, suite=suite))
    told = {"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]}
    return context.checkpoints.add(gx.Checkpoint(name="gate", validation_definitions=[definition], result_format=told))


def _result(checkpoint: Any, facts: Any) -> dict[str, Any]:
    run = checkpoint.run(batch_parameters={"dataframe": facts})
    validation: dict[str, Any] = next(iter(run.run_results.values())).to_json_dict()
    for result in validation["results"]:
        _trim(result)
    # what else it holds are random ids and the time of the run, which would make no two builds alike
    return {key: validation[key] for key in ("success", "statistics", "results")}


@contextmanager
def _naming(expectations: list[dict[str, Any]], facts: Any) -> Iterator[None]:
    """Names the expectation at which Great Expectations itself fails, by asking each alone.

    It converts its own results to JSON and back, and some types give what it cannot convert.
    """
    try:
        yield
    except _Told:
        raise
    except Exception:
        for entry in expectations:
            try:
                checkpoint = _checkpoint([entry])
                if facts is not None:
                    _result(checkpoint, facts)
            except Exception as fault:  # it raises whatever its libraries do
                raise _Told(f"'{entry['name']}' cannot be judged by Great Expectations: {_one_line(fault)}") from None
        raise


def _made(entry: dict[str, Any]) -> Any:
    """The expectation as Great Expectations' own object."""
    import difflib

    import great_expectations.expectations  # noqa: F401 (which registers them)
    from great_expectations.expectations import registry

    names = registry.list_registered_expectation_implementations()
    if entry["type"] not in names:
        close = ", ".join(difflib.get_close_matches(entry["type"], names, n=3)) or ", ".join(names[:5])
        raise _Told(f"'{entry['name']}' has the unknown type '{entry['type']}'; Great Expectations has {close}")
    try:
        meta = {"name": entry["name"], "says": entry["says"]}
        made = registry.get_expectation_impl(entry["type"])
        return made(**entry["arguments"], severity=entry["severity"], meta=meta)
    except (ValueError, TypeError) as fault:  # pydantic's ValidationError is a ValueError
        raise _Told(f"'{entry['name']}' has arguments that {entry['type']} does not take: {_one_line(fault)}") from None


def _trim(result: dict[str, Any]) -> None:
    """Keep the failing ids of one result (`ids`), and not every value found."""
    raised = result.get("exception_info") or {}
    for info in [raised, *(value for value in raised.values() if isinstance(value, dict))]:
        if info.get("raised_exception"):
            name = result["expectation_config"]["meta"]["name"]
            raise _Told(f"'{name}' could not be judged: {_one_line(info.get('exception_message'))}")
    result["expectation_config"].pop("id", None)
    found = result["result"]
    places = found.pop("unexpected_index_list", None) or []
    found["ids"] = list(dict.fromkeys(place["id"] for place in places))[:IDS]
    for key in ("unexpected_list", "unexpected_index_query", "partial_unexpected_index_list"):
        found.pop(key, None)


def _one_line(fault: Any) -> str:
    return " ".join(str(fault).split())[:300].rstrip(".")


if __name__ == "__main__":
    main()
