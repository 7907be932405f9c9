"""Whether conversations are packed into windows, or each has a row of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.config import RunConfig
from training.data.labels import LabelledRows
from training.data.training_data import TrainingData
from training.data.windows import Packing, pack, window_dataset
from training.model.architecture import Architecture

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Layout:
    """How the rows of a batch are filled. A row is a packed window or, with an `obstacle`, one padded conversation."""

    obstacle: str | None  # why conversations are not packed; None: they are
    row_tokens: int  # most tokens in a row
    step_tokens: float  # tokens that a row counts for in --tokens-per-step
    one_row: bool = False  # whether a pass may hold one row only

    @property
    def packed(self) -> bool:
        """Whether conversations are packed into windows."""
        return self.obstacle is None

    def note(self, config: RunConfig, labelled: LabelledRows) -> str:
        """What a run says about conversations that are not packed, with the cost."""
        windows = len(pack(labelled.rows.lengths, config.max_tokens, seed=config.seed).windows)
        rows = len(labelled.rows.names)
        return (
            f"{config.model} is not trained on packed windows, because {self.obstacle}. Each of the {rows} conversations has "
            f"a row of its own, padded to the longest of its pass; packing would fill {windows} windows. This takes more "
            "passes for the same tokens and the same loss."
        )


def choose_layout(config: RunConfig, architecture: Architecture, prepared: TrainingData) -> Layout:
    """Pack conversations unless the architecture, or the length of a row, is known to prevent it."""
    labelled = prepared.train.labelled
    if architecture.packing_obstacle is not None:
        return unpacked(labelled, architecture.packing_obstacle)
    longest = longest_row(prepared)
    limit = architecture.rope_limit
    if limit is not None and longest > limit:
        reason = f"its rotary embedding changes with the longest row of a pass, and a row has {longest} tokens, more than {limit}"
        return unpacked(labelled, reason, one_row=True)
    return packed(config)


def longest_row(prepared: TrainingData) -> int:
    """Tokens of the longest conversation, trained or held out."""
    splits = [prepared.train, prepared.test] if prepared.test else [prepared.train]
    return max(int(split.labelled.rows.lengths.max(initial=1)) for split in splits)


def packed(config: RunConfig) -> Layout:
    """Windows of --max-tokens tokens."""
    return Layout(None, config.max_tokens, config.max_tokens)


def unpacked(labelled: LabelledRows, obstacle: str, *, one_row: bool = False) -> Layout:
    """One conversation in each row."""
    lengths = labelled.rows.lengths
    mean = float(lengths.mean()) if len(lengths) else 1.0
    return Layout(obstacle, int(lengths.max(initial=1)), mean, one_row)


def windows_for(layout: Layout, config: RunConfig, labelled: LabelledRows) -> tuple[Dataset, Packing]:
    """The rows of a split in this layout."""
    return window_dataset(labelled, config.max_tokens, seed=config.seed, packed=layout.packed)


def experts_note(architecture: Architecture) -> str:
    """What a run says about a mixture of experts."""
    sizes = architecture.sizes
    return (
        f"The experts ({sizes.expert_weights / 1e9:.2f} of {sizes.weights / 1e9:.2f} billion weights) stay in 16 bits. "
        "Experts and routers get no adapters, and the loss that balances the routers is off."
    )


def layout_notes(config: RunConfig, architecture: Architecture, layout: Layout, labelled: LabelledRows) -> list[str]:
    """What a run says about its layout and its experts."""
    notes = [] if layout.packed else [layout.note(config, labelled)]
    return [*notes, experts_note(architecture)] if architecture.sizes.expert_weights else notes
