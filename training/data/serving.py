"""Compare the trained ids of a few rows with those that a stock tokenizer gives for their text, as serving does."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.data.encode import EncodedRows
from training.model.tokenizer import ChatTokenizer

COMPARED_ROWS = 8
SHOWN_TOKENS = 3  # on each side of the first difference


class StockTokenizer(Protocol):
    """What transformers' tokenizers offer."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any: ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...


def serving_difference(
    table: pa.Table, rows: EncodedRows, tokenizer: ChatTokenizer, stock: StockTokenizer, *, seed: int
) -> str | None:
    """Compare a seeded sample of rows; returns a sentence about the first difference, or None.

    Rows in which somebody typed a special token are left out: serving would encode it as a control token.

    Args:
        table: with `id`, `text` and `controls` of the rows, in any order.
        rows: encoded rows, perhaps truncated.
    """
    sample = np.random.default_rng(seed).permutation(len(rows.names))[:COMPARED_ROWS].tolist()
    names = [rows.names[row] for row in sample]
    texts = dict(_texts_without_typed_tokens(table, names, tokenizer))
    for row in sample:
        name = rows.names[row]
        if name not in texts:
            continue
        ours = rows.ids[rows.bounds[row] : rows.bounds[row + 1]].tolist()
        theirs = list(stock(texts[name], add_special_tokens=False)["input_ids"])[: len(ours)]
        if ours != theirs:
            return f"Row {name}: {_first_difference(ours, theirs, stock)}"
    return None


def _texts_without_typed_tokens(table: pa.Table, names: list[str], tokenizer: ChatTokenizer) -> list[tuple[str, str]]:
    chosen = table.filter(pc.is_in(table["id"], value_set=pa.array(names, pa.string()))).select(
        ["id", "text", "controls"]
    )
    texts = []
    for row in chosen.to_pylist():
        outside, position = "", 0
        for control in [*row["controls"], {"start": len(row["text"]), "end": None}]:
            outside += row["text"][position : control["start"]] + "\0"
            position = control["end"]
        if not any(token in outside for token in tokenizer.special_contents):
            texts.append((row["id"], row["text"]))
    return texts


def _first_difference(ours: list[int], theirs: list[int], stock: StockTokenizer) -> str:
    limit = min(len(ours), len(theirs))
    index = next((i for i in range(limit) if ours[i] != theirs[i]), limit)
    near = slice(max(0, index - SHOWN_TOKENS), index + SHOWN_TOKENS)
    shown = [f"{ids[near]} {stock.convert_ids_to_tokens(ids[near])}" for ids in (ours, theirs)]
    return f"token {index} differs, trained {shown[0]}, served {shown[1]}"
