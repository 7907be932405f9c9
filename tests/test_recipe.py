"""The recipe: ranges, files, and one sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.errors import RecipeError
from dataprep.recipe import Recipe, normalised, parse_size, read_recipe


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sample": 0}, "--sample is 0, and must be at least 1."),
        ({"limit": -1}, "--limit is -1"),
        ({"seed": -1}, "--seed is -1"),
        ({"max_bad": 1.5}, "--max-bad is 1.5, and must lie between 0 and 1."),
        ({"min_quality": -0.1}, "--min-quality is -0.1"),
        ({"min_turns": 3, "max_turns": 2}, "--min-turns 3 is above --max-turns 2"),
        ({"split": "0.1"}, "--split is '0.1'"),
        ({"split": "test=0"}, "--split is 'test=0'"),
        ({"split": "test=1.0"}, "--split is 'test=1.0'"),
        ({"split": "test=10", "sample": 10}, "leaves nothing to train on"),
        ({"shard_size": "big"}, "'big' is no size"),
    ],
)
def test_a_value_out_of_range_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as fault:
        Recipe(**options)
    assert sentence in str(fault.value)


def test_languages_may_be_comma_separated() -> None:
    assert Recipe(lang=("en,es", "pt-BR")).lang == ("en", "es", "pt-BR")


def test_sizes() -> None:
    assert [parse_size(text) for text in ("256MB", "1.5 GiB", "100", "2k")] == [256_000_000, 1_610_612_736, 100, 2000]


def test_a_recipe_file_and_a_manifest_say_the_same(tmp_path: Path) -> None:
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
        ("lang = 3", "must be a list of texts"),
        ("sample = ", "is not TOML"),
    ],
)
def test_a_mistake_in_a_recipe_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(RecipeError) as fault:
        read_recipe(file)
    assert sentence in str(fault.value)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "none.toml")
