"""Expectations files with one expectation, for tests to vary, and a gate over planted facts."""

from __future__ import annotations

from typing import Any

import polars as pl

from dataprep.quality.facts import SCHEMA, to_arrow
from dataprep.quality.gate import Gate
from dataprep.recipe import Recipe

_HEAD = '[[expect]]\nname = "x"\nsays = "y"\nseverity = "critical"\n'
BETWEEN = f'{_HEAD}type = "expect_column_values_to_be_between"\ncolumn = "chars"\nmax_value = 100000\n'
IN_SET = f'{_HEAD}type = "expect_column_values_to_be_in_set"\ncolumn = "chars"\nvalue_set = [1, 2]\n'

# the facts of a conversation that meets every bundled expectation
SOUND: dict[str, Any] = {
    **{name: 0 for name, kind in SCHEMA.items() if kind.is_integer()},
    **{"id": "a", "split": "train", "lang": "en", "turns": 2, "answers": 1, "chars": 100, "bytes": 100, "tokens": 40},
    **{"alternates": True, "ends_with_answer": True, "parses_back": True, "framed": True, "script_matches": True},
    **{"trained_share": 0.5, "script_share": 1.0, "repeated_words": 0.0, "unfinished": False, "longest_message": 60},
}


def gate_over(rows: list[dict[str, Any]], recipe: Recipe) -> Gate:
    """A gate that judges `rows` of facts."""
    gate = Gate(recipe, checks=None)  # type: ignore[arg-type]  # the facts are given
    assert gate.extractor is not None
    gate.start()
    gate.add(to_arrow(pl.DataFrame(rows, schema=SCHEMA).select(gate.extractor.columns)))
    gate.close()
    return gate
