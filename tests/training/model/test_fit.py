"""Whether the rows fit the model: ids without an embedding, and rows beyond its positions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.shapes import LLAMA_2_7B
from training.config import RunConfig
from training.data.training_data import TrainingData, load_training_data, open_training_build
from training.errors import ModelError
from training.memory.layout import choose_layout
from training.model.architecture import Architecture, read_architecture
from training.model.fit import check_machine, check_rows
from training.model.runtime import Runtime
from training.model.tiny import tokenizer_for
from training.model.tokenizer import ChatTokenizer


@pytest.fixture(scope="module")
def config(small_build: Path) -> RunConfig:
    return RunConfig(data=small_build, model="some-model", device="cpu")


@pytest.fixture(scope="module")
def tokenizer(config: RunConfig) -> ChatTokenizer:
    build = open_training_build(config)
    return tokenizer_for(build.splits["train"], dict(build.manifest.template))


@pytest.fixture(scope="module")
def prepared(config: RunConfig, tokenizer: ChatTokenizer) -> TrainingData:
    return load_training_data(config, open_training_build(config), tokenizer)


def llama(**values: int) -> Architecture:
    return read_architecture(LLAMA_2_7B | values, "some-model")


def test_an_id_without_an_embedding_is_refused_with_the_row_and_the_token(
    prepared: TrainingData, tokenizer: ChatTokenizer
) -> None:
    used = int(prepared.train.labelled.rows.ids.max())
    with pytest.raises(ModelError, match=rf"Row tree.*\(id {used}\).*{used} embeddings"):
        check_rows(llama(vocab_size=used), prepared, tokenizer, "some-model")


def test_a_tokenizer_with_an_unused_id_beyond_the_embeddings_is_noted(
    prepared: TrainingData, tokenizer: ChatTokenizer
) -> None:
    """Gemma 3's tokenizer has one id more than its text model has embeddings."""
    tokenizer.backend.add_tokens(["<image_soft_token>"])
    larger = ChatTokenizer(tokenizer.backend, tokenizer.config, None)
    notes = check_rows(llama(vocab_size=larger.size - 1), prepared, larger, "some-model")
    assert notes == [
        f"The tokenizer has {larger.size} ids and the model {larger.size - 1} embeddings; no row uses an id beyond them."
    ]


def test_rows_beyond_a_table_of_positions_are_refused_with_the_window_that_fits(
    prepared: TrainingData, tokenizer: ChatTokenizer
) -> None:
    gpt2 = read_architecture({"model_type": "gpt2", "n_positions": 16}, "gpt2")
    with pytest.raises(ModelError, match="set --max-tokens to at most 16"):
        check_rows(gpt2, prepared, tokenizer, "gpt2")


def test_rows_beyond_rotary_positions_are_noted(prepared: TrainingData, tokenizer: ChatTokenizer) -> None:
    notes = check_rows(llama(max_position_embeddings=16), prepared, tokenizer, "some-model")
    assert any("longer than the 16 positions" in note for note in notes)


def test_rows_beyond_the_limit_of_a_long_rope_are_not_packed(config: RunConfig, prepared: TrainingData) -> None:
    layout = choose_layout(config, replace(llama(), rope_limit=16), prepared)
    assert not layout.packed
    assert layout.one_row
    assert "longest row of a pass" in layout.note(config, prepared.train.labelled)
    assert choose_layout(config, replace(llama(), rope_limit=4096), prepared).packed


def test_a_large_model_is_refused_on_a_cpu() -> None:
    runtime = Runtime("cpu", "fp32", "dataprep_segments", liger=False)
    with pytest.raises(ModelError, match=r"6\.7 billion weights"):
        check_machine(llama().sizes, runtime, "some-model")
