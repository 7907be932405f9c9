"""Runs Great Expectations in a process of its own: it loads during the other stages, and its memory is freed at the end.

`gate.Gate` runs this file as a script; it imports nothing of dataprep. The first argument is the number of an open file
descriptor, whose file will hold the facts in Arrow's IPC file format: it has no name, so nothing is left of it when a
process is killed. From stdin the script reads one line of JSON, the expectations (list of {name, says, severity, type,
arguments}), and then one empty line when the facts are complete; at the end of stdin it exits. It writes one line of
JSON: {"result": …} or {"error": sentence}.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TextIO

MAX_IDS = 1000  # failing ids of one expectation that are kept; the number of failing rows is exact
SHOWN_VALUES = 20  # failing values of one expectation that are kept

# Great Expectations imports these at its start, for a few of its types; they take 40 % of the CPU time of its import.
DELAYED_MODULES = ("altair", "scipy.stats")


class SuiteError(Exception):
    """A fault of the expectations file, as a sentence without a full stop."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the answer
    expectations = json.loads(sys.stdin.readline() or "[]")
    if not expectations:
        return
    os.environ |= {"GX_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "TQDM_DISABLE": "1"}
    logging.disable(logging.WARNING)
    try:
        answer: dict[str, Any] = {"result": _validate(expectations, sys.stdin, int(sys.argv[1]))}
    except SuiteError as fault:
        answer = {"error": str(fault)}
    answers.write(json.dumps(answer, default=str) + "\n")
    answers.flush()


def _validate(expectations: list[dict[str, Any]], commands: TextIO, descriptor: int) -> dict[str, Any] | None:
    """Return the validation result of the facts; None if stdin ends before they are complete."""
    gc.disable()  # modules stay loaded: collecting garbage among them takes a sixth of the time
    sys.modules |= {name: _DelayedModule(name) for name in DELAYED_MODULES}
    with _naming_the_fault(expectations, None):
        checkpoint = _checkpoint(expectations)
    gc.freeze()
    gc.enable()
    if not commands.readline():
        return None
    facts = _read_facts(descriptor)
    with _naming_the_fault(expectations, facts):
        return _run(checkpoint, facts)


class _DelayedModule(ModuleType):
    """Stands for a module of that name until an attribute of it is used: then the module is imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for its own attributes
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _read_facts(descriptor: int) -> Any:
    """Return the facts as a data frame."""
    import pandas as pd
    import pyarrow as pa

    content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)  # mapped until the process ends
    table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
    return pd.DataFrame({name: _pandas_column(table.column(name)) for name in table.column_names})


def _pandas_column(column: Any) -> Any:
    """Return an Arrow column for pandas: as NumPy numbers where those can hold its values, and else as it is.

    Great Expectations compares NumPy numbers with a bound all at once, and the others one by one.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    is_whole = pa.types.is_integer(column.type) and not column.null_count
    is_real = pa.types.is_floating(column.type) and not pc.any(pc.is_nan(column)).as_py()  # a null becomes NaN
    return column.to_numpy() if is_whole or is_real else pd.Series(pd.arrays.ArrowExtensionArray(column))


def _checkpoint(expectations: list[dict[str, Any]]) -> Any:
    """Return a Checkpoint that validates a data frame of facts against the expectations."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas("build")
        .add_dataframe_asset("facts")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = gx.ExpectationSuite("gate", expectations=[_expectation(entry) for entry in expectations])
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="gate", data=batch, suite=context.suites.add(suite))
    )
    # The complete form, and ids instead of row numbers, take five times as long, because of copies of each failing row.
    form = {"result_format": "SUMMARY", "partial_unexpected_count": MAX_IDS}
    return context.checkpoints.add(gx.Checkpoint(name="gate", validation_definitions=[definition], result_format=form))


def _run(checkpoint: Any, facts: Any) -> dict[str, Any]:
    run = checkpoint.run(batch_parameters={"dataframe": facts})
    validation: dict[str, Any] = next(iter(run.run_results.values())).to_json_dict()
    for result in validation["results"]:
        _trim(result, facts["id"])
    # the rest holds random ids and the time of the run, which would differ between identical builds
    return {key: validation[key] for key in ("success", "statistics", "results")}


@contextmanager
def _naming_the_fault(expectations: list[dict[str, Any]], facts: Any) -> Iterator[None]:
    """If Great Expectations itself raises, find the expectation that causes it by running each alone.

    It converts its own results to JSON and back, and some types give what it cannot convert.

    Raises:
        SuiteError: names the expectation.
    """
    try:
        yield
    except SuiteError:
        raise
    except Exception:
        for entry in expectations:
            try:
                checkpoint = _checkpoint([entry])
                if facts is not None:
                    _run(checkpoint, facts)
            except Exception as fault:  # whatever its libraries raise
                raise SuiteError(
                    f"'{entry['name']}' cannot be judged by Great Expectations: {_one_line(fault)}"
                ) from None
        raise


def _expectation(entry: dict[str, Any]) -> Any:
    """Return the expectation as an object of Great Expectations; its type is one of `allowed.TYPES`."""
    import great_expectations.expectations  # noqa: F401 (registers the types)
    from great_expectations.expectations import registry

    try:
        meta = {"name": entry["name"], "says": entry["says"]}
        kind = registry.get_expectation_impl(entry["type"])
        return kind(**entry["arguments"], severity=entry["severity"], meta=meta)
    except (ValueError, TypeError) as fault:  # pydantic's ValidationError is a ValueError
        raise SuiteError(f"'{entry['name']}' has arguments that {entry['type']} refuses: {_one_line(fault)}") from None


def _trim(result: dict[str, Any], ids: Any) -> None:
    """Replace the failing values of one result by the ids of their rows (`ids`), at most `MAX_IDS`.

    Args:
        result: of one expectation.
        ids: the column `id` of the facts.

    Raises:
        SuiteError: Great Expectations raised an exception for this expectation.
    """
    exceptions = result.get("exception_info") or {}
    for info in [exceptions, *(value for value in exceptions.values() if isinstance(value, dict))]:
        if info.get("raised_exception"):
            name = result["expectation_config"]["meta"]["name"]
            raise SuiteError(f"'{name}' could not be judged: {_one_line(info.get('exception_message'))}")
    result["expectation_config"].pop("id", None)
    values = result["result"]
    failing_rows = values.pop("partial_unexpected_index_list", None) or []
    values["ids"] = list(dict.fromkeys(ids.iloc[failing_rows]))
    if "partial_unexpected_list" in values:
        values["partial_unexpected_list"] = values["partial_unexpected_list"][:SHOWN_VALUES]


def _one_line(fault: Any) -> str:
    return " ".join(str(fault).split())[:300].rstrip(".")


if __name__ == "__main__":
    main()
