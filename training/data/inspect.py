"""`training inspect`: show the tokens of a row as they are trained. It needs a tokenizer, but no model and no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dataprep.common.text import plural, visible
from dataprep.contract import Build
from training.config import TINY, RunConfig, check
from training.data.encode import IGNORED, EncodedRows, encode
from training.data.labels import truncate_and_label
from training.data.training_data import load_training_data, open_training_build
from training.data.windows import pack
from training.errors import DataError, OptionError
from training.model.added_tokens import load_run_tokenizer
from training.model.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from rich.text import Text

BLOCK = 1024  # rows printed as JSON at a time

# Characters that byte-level and SentencePiece vocabularies use for white space.
WHITE_SPACE = {"▁": " ", "Ġ": " ", "Ċ": "\n", "<0x0A>": "\n"}


def tokenizer_for(config: RunConfig, table: pa.Table, template: dict[str, Any]) -> ChatTokenizer:
    """Load the model's tokenizer; for the model `tiny`, train it on `table`."""
    if config.model != TINY:
        return load_run_tokenizer(config.model, config)
    from training.model import tiny

    return tiny.tokenizer_for(table, template)


def json_lines(options: RunConfig, rows: str) -> Iterator[str]:
    """One JSON object for each row of the train split, before truncating and packing: id, input_ids, labels.

    Raises:
        OptionError: `rows` is not a valid range.
    """
    config = check(options)
    build = open_training_build(config)
    train = build.splits["train"]
    start, stop = _parse_range(rows, train.num_rows)
    tokenizer = tokenizer_for(config, train, dict(build.manifest.template))
    for offset in range(start, stop, BLOCK):
        encoded = encode(train.slice(offset, min(BLOCK, stop - offset)), tokenizer)
        longest = int(encoded.lengths.max(initial=1))
        labelled = truncate_and_label(encoded, longest, config.cut, config.train_on, strict=False)
        labels = dict(zip(labelled.rows.names, _per_row(labelled.labels, labelled.rows.bounds), strict=True))
        for name, ids in zip(encoded.names, _per_row(encoded.ids, encoded.bounds), strict=True):
            yield json.dumps({"id": name, "input_ids": ids, "labels": labels.get(name, [IGNORED] * len(ids))})


def _per_row(flat: np.ndarray, bounds: np.ndarray) -> list[list[int]]:
    values, cuts = flat.tolist(), bounds.tolist()
    return [values[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


def _parse_range(rows: str, count: int) -> tuple[int, int]:
    if rows == "all":
        return 0, count
    try:
        first, _, last = rows.partition(":")
        start = int(first or 0)
        stop = (int(last) if last else count) if ":" in rows else start + 1
    except ValueError:
        raise OptionError(f"--rows is '{rows}': give all, a number, or a range such as 0:100.") from None
    if not 0 <= start < max(stop, 1) or start >= count:
        raise OptionError(f"--rows {rows} selects none of the {count} rows (0:{count}).")
    return start, min(stop, count)


def print_row(options: RunConfig, row: int) -> None:
    """Print one row's tokens in colour: trained green, masked grey, special tokens reversed, cut ones struck through."""
    from rich.console import Console

    config = check(options)
    build = open_training_build(config)
    train = build.splits["train"]
    if not 0 <= row < train.num_rows:
        raise OptionError(f"--row {row}: the train split has the rows 0 to {train.num_rows - 1}.")
    tokenizer = tokenizer_for(config, train, dict(build.manifest.template))
    encoded = encode(train.slice(row, 1), tokenizer)
    labels = truncate_and_label(encoded, config.max_tokens, config.cut, config.train_on, strict=False).labels.tolist()
    name = encoded.names[0]
    console = Console()
    console.print(_coloured(encoded, labels, tokenizer))
    counts = (
        f"{name}: {plural(len(encoded.ids), 'token')}, {sum(label >= 0 for label in labels)} trained, "
        f"{len(encoded.ids) - len(labels)} cut at a window of {config.max_tokens}."
    )
    for sentence in (counts, _packing_of(config, build, tokenizer, name)):
        console.print(visible(sentence), markup=False, highlight=False)  # an id may look like markup


def _packing_of(config: RunConfig, build: Build, tokenizer: ChatTokenizer, name: str) -> str:
    """The window that a run packs the row into, or why it packs it into none."""
    try:
        data = load_training_data(config, build, tokenizer)
    except DataError as fault:
        return f"A run would refuse this build: {fault}"
    if data.test is not None and name in data.test.table["id"].to_pylist():
        return "The row is held out from training."
    rows = data.train.labelled.rows
    if name not in rows.names:
        return "The row is dropped: its first answer does not fit into the window, or it has no trained token."
    index = rows.names.index(name)
    packing = pack(rows.lengths, config.max_tokens, seed=config.seed)
    number, window = next((number, window) for number, window in enumerate(packing.windows) if index in window)
    tokens = int(rows.lengths[window].sum())
    return (
        f"Window {number} of {len(packing.windows)}: {plural(len(window), 'conversation')}, {plural(tokens, 'token')}."
    )


def _coloured(encoded: EncodedRows, labels: list[int], tokenizer: ChatTokenizer) -> Text:
    from rich.text import Text

    special = set(tokenizer.backend.get_added_tokens_decoder())
    text = Text()
    for position, token_id in enumerate(encoded.ids.tolist()):
        piece = tokenizer.backend.id_to_token(token_id) or f"<{token_id}>"
        for written, character in WHITE_SPACE.items():
            piece = piece.replace(written, character)
        style = "green" if position < len(labels) and labels[position] >= 0 else "bright_black"
        style = "bright_black strike" if position >= len(labels) else style
        text.append(visible(piece), style=f"{style} reverse" if token_id in special else style)
    return text
