"""The expectation types and arguments that an expectations file may use.

Expectations files are passed between people, so they are untrusted. Great Expectations has arguments that evaluate
expressions (`row_condition`, `condition_parser`, `$PARAMETER`, queries) and types whose cost is not bounded by the data
(regular expressions): none of them is allowed. What is not listed here is refused.
"""

from __future__ import annotations

from typing import Any

MAX_VALUES = 1_000  # of one expectation: Great Expectations takes 0.1 ms for each
MAX_TEXT = 500  # characters of one value

_BOUNDS = ("min_value", "max_value", "strict_min", "strict_max")
_PAIR = ("column_A", "column_B", "ignore_row_if")
_LIST = ("column_list", "ignore_row_if")

TYPES: dict[str, frozenset[str]] = {
    f"expect_{name}": frozenset(arguments)
    for name, arguments in {
        "column_distinct_values_to_be_in_set": ("column", "value_set"),
        "column_distinct_values_to_contain_set": ("column", "value_set"),
        "column_distinct_values_to_equal_set": ("column", "value_set"),
        "column_kl_divergence_to_be_less_than": (
            *("column", "partition_object", "threshold", "internal_weight_holdout", "tail_weight_holdout"),
            *("bucketize_data", "min_value", "max_value"),
        ),
        "column_max_to_be_between": ("column", *_BOUNDS),
        "column_mean_to_be_between": ("column", *_BOUNDS),
        "column_median_to_be_between": ("column", *_BOUNDS),
        "column_min_to_be_between": ("column", *_BOUNDS),
        "column_most_common_value_to_be_in_set": ("column", "value_set", "ties_okay"),
        "column_pair_values_a_to_be_greater_than_b": (*_PAIR, "or_equal", "mostly"),
        "column_pair_values_to_be_equal": (*_PAIR, "mostly"),
        "column_pair_values_to_be_in_set": (*_PAIR, "value_pairs_set", "mostly"),
        "column_proportion_of_non_null_values_to_be_between": ("column", *_BOUNDS),
        "column_proportion_of_unique_values_to_be_between": ("column", *_BOUNDS),
        "column_stdev_to_be_between": ("column", *_BOUNDS),
        "column_sum_to_be_between": ("column", *_BOUNDS),
        "column_unique_value_count_to_be_between": ("column", *_BOUNDS),
        "column_value_lengths_to_be_between": ("column", "mostly", *_BOUNDS),
        "column_value_lengths_to_equal": ("column", "mostly", "value"),
        "column_value_z_scores_to_be_less_than": ("column", "mostly", "threshold", "double_sided"),
        "column_values_to_be_between": ("column", "mostly", *_BOUNDS),
        "column_values_to_be_in_set": ("column", "mostly", "value_set"),
        "column_values_to_be_null": ("column", "mostly"),
        "column_values_to_be_unique": ("column", "mostly"),
        "column_values_to_not_be_in_set": ("column", "mostly", "value_set"),
        "column_values_to_not_be_null": ("column", "mostly"),
        "compound_columns_to_be_unique": (*_LIST, "mostly"),
        "multicolumn_sum_to_equal": (*_LIST, "sum_total", "mostly"),
        "multicolumn_values_to_be_equal": (*_LIST, "mostly"),
        "select_column_values_to_be_unique_within_record": (*_LIST, "mostly"),
        "table_row_count_to_be_between": _BOUNDS,
        "table_row_count_to_equal": ("value",),
    }.items()
}

# The one argument that is a table, and its keys: lists of numbers or texts.
TABLES: dict[str, frozenset[str]] = {"partition_object": frozenset({"values", "weights", "bins", "tail_weights"})}


def fault_of(value: Any, depth: int = 0) -> str:
    """Return what is wrong with the value of an argument, as the end of a sentence; empty if it may be passed on.

    Lists may hold lists (pairs), but no deeper, and no tables.
    """
    if isinstance(value, bool):
        return ""
    if isinstance(value, list):
        if depth == 2:
            return "lists inside of lists of lists"
        return next(filter(None, (fault_of(part, depth + 1) for part in value)), "")
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            return f"a text of over {MAX_TEXT} characters"
        return "a text with $, which Great Expectations could replace" if "$" in value else ""
    if isinstance(value, int | float):
        return "" if abs(value) < 2**63 else f"{'NaN' if value != value else 'a number beyond 2^63'}, which is no bound"
    return "a table" if isinstance(value, dict) else "a date or a time, which no column holds"


def count_values(value: Any) -> int:
    """Return the number of single values in an argument."""
    if isinstance(value, dict):
        return sum(map(count_values, value.values()))
    return sum(map(count_values, value)) if isinstance(value, list) else 1
