"""Whether a model fits the machine and the rows that it is trained on; checked before the weights are loaded."""

from __future__ import annotations

import numpy as np

from training.data.training_data import TrainingData
from training.errors import ModelError
from training.model.architecture import Architecture
from training.model.checkpoint import merge_obstacle
from training.model.runtime import Runtime
from training.model.sizes import ModelSizes
from training.model.tokenizer import ChatTokenizer

CPU_LIMIT = 2_000_000_000  # weights; a larger model takes days to train on a CPU


def check_machine(sizes: ModelSizes, runtime: Runtime, name: str) -> None:
    """Check that the model is not too large for a machine without a GPU.

    Raises:
        ModelError: training it would take days.
    """
    if runtime.device == "cpu" and sizes.weights > CPU_LIMIT:
        quantised = sizes.quantised_weights / 2 + 2 * (sizes.weights - sizes.quantised_weights)
        raise ModelError(
            f"{name} has {sizes.weights / 1e9:.1f} billion weights and this machine has no GPU: QLoRA on it needs a GPU "
            f"with about {max(6.0, quantised * 2 / 2**30):.0f} GB; --model tiny runs the whole path without one."
        )


def merge_notes(architecture: Architecture, model: str, revision: str | None) -> list[str]:
    """A note if `training merge` will not be able to merge the adapter, so that a run does not end with a surprise.

    Raises:
        ModelError: a safetensors file is missing or damaged.
    """
    obstacle = merge_obstacle(architecture, model, revision)
    if obstacle is None:
        return []
    return [
        f"`training merge` cannot merge the adapter into {model}, because {obstacle}; peft loads it beside the model."
    ]


def check_rows(architecture: Architecture, prepared: TrainingData, tokenizer: ChatTokenizer, name: str) -> list[str]:
    """Check that the model has an embedding for every id and a position for every token that the rows use.

    Returns:
        Notes on rows that the model can compute although it was not made for them.

    Raises:
        ModelError: an id without an embedding, or a row longer than the model's table of positions.
    """
    embeddings, notes = architecture.sizes.vocabulary, []
    splits = [prepared.train, prepared.test] if prepared.test else [prepared.train]
    for split in splits:
        rows = split.labelled.rows
        if len(rows.ids) and int(rows.ids.max()) >= embeddings:
            place = int(np.argmax(rows.ids >= embeddings))
            row = rows.names[int(np.searchsorted(rows.bounds, place, side="right")) - 1]
            number = int(rows.ids[place])
            raise ModelError(
                f"Row {row} uses the token {tokenizer.backend.id_to_token(number)!r} (id {number}), and {name} has "
                f"{embeddings} embeddings: use the tokenizer that belongs to the model, a template without that token, or "
                "--add-tokens."
            )
    if tokenizer.size > embeddings:
        notes.append(
            f"The tokenizer has {tokenizer.size} ids and the model {embeddings} embeddings; no row uses an id beyond them."
        )
    positions = architecture.positions
    if positions is None:
        return notes
    longer = [length for split in splits for length in split.labelled.rows.lengths.tolist() if length > positions]
    if longer and architecture.has_position_table:
        raise ModelError(
            f"{name} has {positions} positions, and {len(longer)} conversations are longer, up to {max(longer)} tokens: "
            f"set --max-tokens to at most {positions}."
        )
    if longer:
        notes.append(
            f"{len(longer)} conversations are longer than the {positions} positions that {name} was made for, up to "
            f"{max(longer)} tokens: set --max-tokens to at most {positions} unless the model is meant to learn longer ones."
        )
    return notes
