"""`training inspect`: the tokens of a row as they are trained. Needs a tokenizer, no model and no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from dataprep.contract import Build
from training.config import TINY, RunConfig, check
from training.data.encode import EncodedRows, encode
from training.data.labels import truncate_and_label
from training.data.training_data import load_training_data, open_training_build
from training.data.windows import pack
from training.errors import DataError, OptionError
from training.model.tokenizer import ChatTokenizer, load_tokenizer


def vocabulary_of(config: RunConfig, table: pa.Table, template: dict[str, Any]) -> ChatTokenizer:
    """The model's tokenizer; tiny's is learnt on the spot."""
    if config.model != TINY:
        return load_tokenizer(config.model, config.revision)
    from training.model import tiny

    return tiny.tokenizer_for(table, template)


def json_lines(options: RunConfig, rows: str) -> Iterator[str]:
    """One JSON object a row of the train split: id, input_ids, labels; before cutting and packing.

    Raises:
        OptionError: `rows` is no range.
    """
    config = check(options)
    build = open_training_build(config)
    train = build.splits["train"]
    start, stop = _range(rows, train.num_rows)
    vocabulary = vocabulary_of(config, train, dict(build.manifest.template))
    for at in range(start, stop, 1024):
        encoded = encode(train.slice(at, min(1024, stop - at)), vocabulary)
        longest = int(encoded.lengths.max(initial=1))
        ready = truncate_and_label(encoded, longest, config.cut, config.train_on, strict=False)
        labels = dict(zip(ready.rows.names, _split(ready.labels, ready.rows.bounds), strict=True))
        for name, ids in zip(encoded.names, _split(encoded.ids, encoded.bounds), strict=True):
            yield json.dumps({"id": name, "input_ids": ids, "labels": labels.get(name, [-100] * len(ids))})


def _split(flat: np.ndarray, bounds: np.ndarray) -> list[list[int]]:
    values, cuts = flat.tolist(), bounds.tolist()
    return [values[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


def _range(rows: str, count: int) -> tuple[int, int]:
    if rows == "all":
        return 0, count
    try:
        first, _, last = rows.partition(":")
        start = int(first or 0)
        stop = (int(last) if last else count) if ":" in rows else start + 1
    except ValueError:
        raise OptionError(f"--rows is '{rows}': give all, a number, or a range such as 0:100.") from None
    if not 0 <= start < max(stop, 1) or start >= count:
        raise OptionError(f"--rows {rows} holds none of the {count} rows (0:{count}).")
    return start, min(stop, count)


def in_colour(options: RunConfig, row: int) -> None:
    """One row's tokens in colour: trained green, masked grey, controls reversed, cut ones struck through."""
    from rich.console import Console

    config = check(options)
    build = open_training_build(config)
    train = build.splits["train"]
    if not 0 <= row < train.num_rows:
        raise OptionError(f"--row {row}: the train split has the rows 0 to {train.num_rows - 1}.")
    vocabulary = vocabulary_of(config, train, dict(build.manifest.template))
    alone = encode(train.slice(row, 1), vocabulary)
    ready = truncate_and_label(alone, config.max_tokens, config.cut, config.train_on, strict=False)
    labels = ready.labels.tolist()
    name = alone.names[0]
    console = Console()
    console.print(_coloured(alone, labels, vocabulary))
    told = (
        f"{name}: {len(alone.ids)} tokens, {sum(label >= 0 for label in labels)} trained, "
        f"{len(alone.ids) - len(labels)} cut at a window of {config.max_tokens}."
    )
    for sentence in (told, _whereabouts(config, build, vocabulary, name)):
        console.print(sentence, markup=False, highlight=False)  # an id may look like markup


def _whereabouts(config: RunConfig, build: Build, vocabulary: ChatTokenizer, name: str) -> str:
    """What a run makes of a row: its window, or why it has none."""
    try:
        prepared = load_training_data(config, build, vocabulary)
    except DataError as fault:
        return f"No run takes this build: {fault}"
    if prepared.test is not None and name in prepared.test.table["id"].to_pylist():
        return "It is held out from training."
    rows = prepared.train.labelled.rows
    if name not in rows.names:
        return "It is left out: its first answer does not fit, or it trains nothing."
    place = rows.names.index(name)
    packed = pack(rows.lengths, config.max_tokens, seed=config.seed)
    number, window = next((n, w) for n, w in enumerate(packed.windows) if place in w)
    tokens = int(rows.lengths[window].sum())
    return f"Window {number} of {len(packed.windows)}: {len(window)} conversations, {tokens} tokens."


def _coloured(alone: EncodedRows, labels: list[int], vocabulary: ChatTokenizer):  # type: ignore[no-untyped-def]
    from rich.text import Text

    special = set(vocabulary.backend.get_added_tokens_decoder())
    text = Text()
    for place, number in enumerate(alone.ids.tolist()):
        piece = vocabulary.backend.id_to_token(number) or f"<{number}>"
        shown = piece.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n").replace("<0x0A>", "\n")
        style = "green" if place < len(labels) and labels[place] >= 0 else "bright_black"
        style = "bright_black strike" if place >= len(labels) else style
        text.append(shown, style=f"{style} reverse" if number in special else style)
    return text
