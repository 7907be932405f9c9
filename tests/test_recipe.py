"""The recipe: ranges, recipe files, and one sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.errors import RecipeError
from dataprep.options import HeldOut, parse_size
from dataprep.recipe import Recipe, normalised
from dataprep.recipe_file import MAX_BYTES, read_recipe


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sample": 0}, "--sample is 0, and must be at least 1."),
        ({"limit": -1}, "--limit is -1"),
        ({"seed": -1}, "--seed is -1"),
        ({"sample": 10**5000}, "--sample is too large: give a number below 2^63."),
        ({"max_bad": 1.5}, "--max-bad is 1.5, and must lie between 0 and 1."),
        ({"max_toxicity": float("nan")}, "--max-toxicity is nan"),
        ({"min_quality": -0.1}, "--min-quality is -0.1"),
        ({"min_turns": 3, "max_turns": 2}, "--min-turns 3 is above --max-turns 2"),
        ({"split": "10%"}, "--split is '10%'"),
        ({"split": "test=0"}, "--split is 'test=0'"),
        ({"split": "test=1.0"}, "--split is 'test=1.0'"),
        ({"split": "test=10", "sample": 10}, "leaves nothing to train on"),
        ({"near_dup": "1.5"}, "--near-dup is '1.5'"),
        ({"near_dup": "-" * 10_000}, "--near-dup is '---"),
        ({"shard_size": "big"}, "'big' is not a size"),
        ({"shard_size": "0MB"}, "'0MB' is not a size"),
        ({"shard_size": "3"}, "The size 3 has no unit: write 3MB"),
        ({"source": (" ",)}, "--source is empty"),
        ({"source": ("a\0b",)}, "--source holds a text of over"),
        ({"system": "\ud800"}, "--system holds a text of over"),
        ({"system": " "}, "--system is blank"),
        ({"lang": ("x" * 200_000,)}, "--lang holds a text of over"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, str) else next(iter(value)),
)
def test_a_value_out_of_range_is_refused_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as fault:
        Recipe(**options)
    assert sentence in str(fault.value)
    assert len(str(fault.value)) < 300


def test_languages_may_be_comma_separated() -> None:
    assert Recipe(lang=("en,es", "pt-BR")).lang == ("en", "es", "pt-BR")


def test_sizes_have_decimal_and_binary_units() -> None:
    assert [parse_size(text) for text in ("256MB", "1.5 GiB", "100 B", "2k")] == [256_000_000, 1_610_612_736, 100, 2000]


def test_options_in_words_are_parsed_into_numbers() -> None:
    recipe = Recipe(near_dup="0.75", split="test=200", shard_size="1kB")
    assert (recipe.near_threshold, recipe.held_out, recipe.shard_bytes) == (0.75, HeldOut(rows=200), 1000)
    recipe = Recipe(near_dup="off", split="test=.05")
    assert (recipe.near_threshold, recipe.held_out) == (None, HeldOut(share=0.05))
    assert Recipe().held_out == HeldOut()


@pytest.mark.parametrize(("short", "full"), [("0.1", "test=0.1"), ("200", "test=200"), ("keep", "keep")])
def test_a_split_without_a_name_is_the_test_split(short: str, full: str) -> None:
    assert Recipe(split=short) == Recipe(split=full)


def test_a_recipe_file_and_a_manifest_state_the_same_options(tmp_path: Path) -> None:
    recipe = Recipe(
        source=("a.jsonl",), lang=("en",), sample=10, max_toxicity=1.0, accepted_only=True, split="test=0.1"
    )
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"recipe": normalised(recipe)}))
    toml = tmp_path / "recipe.toml"
    toml.write_text(
        'source = "a.jsonl"\nlang = ["en"]\nsample = 10\nmax-toxicity = 1\naccepted_only = true\nsplit = "test=0.1"\n'
    )
    assert Recipe(**read_recipe(manifest)) == Recipe(**read_recipe(toml)) == recipe


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sampel = 3", "unknown key 'sampel'. Did you mean 'sample'?"),
        ('sample = "many"', "'sample' in the recipe"),
        ('paths = "gunaco"', "is 'gunaco'. Did you mean 'guanaco'?"),
        ("paths = [1]", "is '[1]'. Available: all"),
        ("lang = 3", "must be a list of texts"),
        ("sample = ", "is not TOML"),
        (f"sample = {'9' * 5000}", "is not TOML"),
        (f"max_bad = {'9' * 4000}", "must be of type float"),
        (f"lang = {'[' * 5000}{']' * 5000}", "is nested too deeply"),
        ('system = "\\ud800"', "is not TOML"),
        ("system = 1979-05-27", "must be of type str"),
        (f"{'k' * 10_000} = 1", "unknown key 'kkk"),
        (f'paths = "{"p" * 10_000}"', "is 'ppp"),
    ],
    ids=lambda value: value[:40],
)
def test_a_mistake_in_a_recipe_file_is_one_short_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(RecipeError) as fault:
        read_recipe(file)
    assert sentence in str(fault.value)
    assert len(str(fault.value)) < 1500  # an unknown key lists all options


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("null", "is not a build's manifest"),
        ('{"recipe": null}', "holds no options"),
        ('{"recipe": {"sample": 1e999}}', "must be of type int"),
        ('{"recipe": {"lang": [null]}}', "must be a list of texts"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"recipe": {"system": {"a": ' + "[" * 200 + "]" * 200 + "}}}", "must be of type str"),
        ("\ud83d".encode("utf-16", "surrogatepass").decode("latin-1"), "is not a build's manifest"),
    ],
    ids=lambda value: value[:40].encode("ascii", "replace").decode(),
)
def test_a_mistake_in_a_manifest_is_one_short_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(text)
    with pytest.raises(RecipeError) as fault:
        read_recipe(file)
    assert sentence in str(fault.value)
    assert len(str(fault.value)) < 500


def test_a_lone_surrogate_in_a_manifest_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text('{"recipe": {"system": "\\ud800"}}')
    with pytest.raises(RecipeError, match="--system holds a text of over"):
        Recipe(**read_recipe(file))


def test_options_that_are_null_in_a_manifest_keep_their_defaults(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text('{"recipe": {"sample": null, "seed": 7}}')
    assert Recipe(**read_recipe(file)) == Recipe(seed=7)


def test_a_recipe_that_does_not_exist_or_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        read_recipe(tmp_path)
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(RecipeError, match="is larger than 16 MiB"):
        read_recipe(large)
