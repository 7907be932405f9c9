"""The expectations file: what it may state, how options are filled in, and that nothing in it is evaluated."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.errors import RecipeError
from dataprep.quality.allowed import MAX_VALUES, TYPES
from dataprep.quality.facts import SCHEMA
from dataprep.quality.suite import MAX_BYTES, read_suite
from dataprep.recipe import Recipe
from tests.support.builds import guanaco_file, guanaco_text
from tests.support.commands import dataprep
from tests.support.expectations import BETWEEN, IN_SET


def suite_of(folder: Path, text: str, **options: Any) -> Any:
    file = folder / "expectations.toml"
    file.write_text(text)
    return read_suite(Recipe(expectations=str(file), **options))


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(RecipeError) as fault:
        suite_of(folder, text)
    return str(fault.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not toml", "is not TOML"),
        (f"x = {'[' * 5000}{']' * 5000}", "is nested too deeply"),
        ("a = 1", "must hold [[expect]] tables"),
        ("expect = [1]", "number 1 of"),
        (BETWEEN.replace('"chars"', '"charz"'), "unknown column 'charz'. Did you mean 'chars'"),
        (BETWEEN.replace('"critical"', '"fatal"'), "severity 'fatal'"),
        (BETWEEN + BETWEEN, "2 expectations named 'x'"),
        (BETWEEN.replace('says = "y"', ""), "has no text 'says'"),
        (BETWEEN.replace("100000", '"recipe:max_char"'), "Did you mean 'max_chars'"),
        (IN_SET.replace("1,", '"recipe:max_char",'), "Did you mean 'max_chars'"),
        (BETWEEN.replace("100000", "2026-01-01"), "has a date or a time, which no column holds for 'max_value'"),
        (BETWEEN.replace("100000", "[12:30:00]"), "has a date or a time, which no column holds for 'max_value'"),
        (BETWEEN.replace("100000", "nan"), "has NaN, which is no bound for 'max_value'"),
        (BETWEEN.replace("100000", "inf"), "has a number beyond 2^63, which is no bound for 'max_value'"),
        (BETWEEN.replace('"chars"', '["chars", "charz"]'), "unknown column 'charz'"),
        (BETWEEN.replace('"chars"', "5"), "unknown column '5'"),
        (
            BETWEEN.replace("values_to", "valus_to"),
            "unknown or not allowed, 'expect_column_valus_to_be_between'. Did you",
        ),
        (
            BETWEEN.replace("100000", "true\nfoo = 1"),
            "has an argument that expect_column_values_to_be_between does not take",
        ),
    ],
    ids=lambda value: value[:50],
)
def test_a_fault_in_the_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, text)


def test_a_file_that_does_not_exist_or_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read_suite(Recipe(expectations=str(tmp_path / "none.toml")))
    assert "is larger than 1 MiB" in refusal(tmp_path, "#" * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    "argument",
    [
        'row_condition = "@pd.io.common.os.system(\'touch pwned\') == 0"\ncondition_parser = "pandas"',
        'condition_parser = "pandas"',
        'row_condition = "chars > 0"',
        'row_condition = {type = "comparison"}',
        'id = "x"',
        'meta = {says = "x"}',
        'result_format = "BASIC"',
        "catch_exceptions = true",
        'description = "x"',
        'batch_id = "x"',
        "windows = []",
    ],
    ids=lambda value: value[:30],
)
def test_arguments_that_evaluate_expressions_or_configure_the_library_are_refused(
    tmp_path: Path, argument: str
) -> None:
    assert "has an argument that" in refusal(tmp_path, f"{BETWEEN}{argument}\n")


@pytest.mark.parametrize(
    "value",
    [
        '{"$PARAMETER" = "now()"}',
        '[{"$PARAMETER" = "now()"}]',
        '"$PARAMETER"',
        '"${HOME}"',
        '{bins = {"$PARAMETER" = 1}}',
    ],
)
def test_values_that_the_library_could_evaluate_are_refused(tmp_path: Path, value: str) -> None:
    assert "for 'max_value'" in refusal(tmp_path, BETWEEN.replace("100000", value))
    table = IN_SET.replace("in_set", "kl").replace(
        "expect_column_values_to_be_kl", "expect_column_kl_divergence_to_be_less_than"
    )
    assert "partition_object" in refusal(tmp_path, table.replace("value_set = [1, 2]", "partition_object = 5"))


@pytest.mark.parametrize(
    "kind",
    [
        "expect_query_results_to_match_comparison",
        "unexpected_rows_expectation",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_match_json_schema",
        "expect_column_values_to_be_of_type",
        "expect_table_row_count_to_equal_other_table",
        "__import__",
    ],
)
def test_types_that_run_queries_or_patterns_are_refused(tmp_path: Path, kind: str) -> None:
    assert "unknown or not allowed" in refusal(tmp_path, BETWEEN.replace("expect_column_values_to_be_between", kind))


def test_the_command_of_a_hostile_expectations_file_does_not_run(tmp_path: Path) -> None:
    file, pwned = tmp_path / "hostile.toml", tmp_path / "pwned"
    file.write_text(
        f'{BETWEEN}row_condition = "@pd.io.common.os.system(\'touch {pwned}\') == 0"\ncondition_parser = "pandas"\n'
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"source = {json.dumps(guanaco_file(tmp_path, [guanaco_text('a', 'b')]))}\nexpectations = {json.dumps(str(file))}\n"
    )
    done = dataprep("build", "--recipe", recipe, "--store", tmp_path / "store", "--gate", "on")
    assert done.returncode == 1 and "does not take here, 'row_condition'" in done.stderr
    assert not pwned.exists() and not (tmp_path / "store").exists()


def test_an_expectation_with_too_many_values_is_refused(tmp_path: Path) -> None:
    values = ", ".join(map(str, range(MAX_VALUES + 1)))
    assert f"has {MAX_VALUES + 2:,} values, and may have {MAX_VALUES:,}" in refusal(
        tmp_path, IN_SET.replace("1, 2", values)
    )
    lists = IN_SET.replace("1, 2", "[[1]]")
    assert "lists inside of lists of lists" in refusal(tmp_path, lists)
    assert "a text of over 500 characters" in refusal(tmp_path, IN_SET.replace("1, 2", f'"{"x" * 501}"'))


def test_the_number_of_expectations_is_bounded(tmp_path: Path) -> None:
    many = "".join(BETWEEN.replace('"x"', f'"x{n}"') for n in range(501))
    assert "has over 500 expectations" in refusal(tmp_path, many)


def test_errors_quote_a_part_of_long_values_only(tmp_path: Path) -> None:
    long = "x" * 100_000
    for text in (
        BETWEEN.replace('"chars"', f'"{long}"'),
        BETWEEN.replace("values_to_be_between", long),
        f"{BETWEEN}{long} = 1\n",
        BETWEEN.replace('"critical"', f'"{long}"'),
    ):
        assert len(refusal(tmp_path, text)) < 2500  # names all types or columns


def test_options_of_the_recipe_are_filled_into_lists_and_tables(tmp_path: Path) -> None:
    text = IN_SET.replace("1, 2", '"recipe:max-chars", 7, "recipe:min_chars"')
    (expectation,) = suite_of(tmp_path, text, max_chars=9).expectations
    assert expectation.arguments == {"column": "chars", "value_set": [9, 7]}
    assert expectation.says == "y (--max-chars 9, --min-chars None)"
    table = BETWEEN.replace("values_to_be_between", "kl_divergence_to_be_less_than")
    table = table.replace(
        "max_value = 100000", 'threshold = 1\npartition_object = {values = [1], weights = ["recipe:seed"]}'
    )
    (expectation,) = suite_of(tmp_path, table).expectations
    assert expectation.arguments["partition_object"] == {"values": [1], "weights": [42]}


def test_an_expectation_whose_options_are_all_unset_is_skipped(tmp_path: Path) -> None:
    assert suite_of(tmp_path, IN_SET.replace("1, 2", '"recipe:max_chars"')).expectations == ()


def test_the_bundled_file_is_allowed_by_its_own_rules() -> None:
    suite = read_suite(Recipe(max_turns=2, max_chars=9))
    assert len(suite.expectations) == len(tomllib.loads(suite.source)["expect"])


def test_every_allowed_type_and_argument_exists_in_great_expectations() -> None:
    import great_expectations.expectations  # noqa: F401 (registers the types)
    from great_expectations.expectations import registry

    for kind, arguments in TYPES.items():
        fields = registry.get_expectation_impl(kind).__fields__
        assert set(arguments) <= set(fields), kind
        assert not arguments & {"row_condition", "condition_parser", "meta", "result_format", "catch_exceptions"}
    assert set(SCHEMA)
