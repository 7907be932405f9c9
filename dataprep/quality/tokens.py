"""Token counts of rendered texts, with a tokenizer.json that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dataprep.common.errors import RecipeError
from dataprep.common.text import excerpt
from dataprep.contract import sha256_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


LENGTH_BOUNDS = (128, 256, 512, 1024, 2048, 4096, 8192)


class TokenCounter:
    """Counts tokens as training does: those of the pieces between control tokens, and one for each control token."""

    def __init__(self, path: str) -> None:
        """Raises:
        RecipeError: no such file, or not a tokenizer.json.
        """
        self._tokenizer = _load(Path(path))
        self.digest = sha256_of(Path(path))

    def count(self, rows: pl.DataFrame) -> pl.Series:
        """Return the tokens of each row; `rows` has `text` and `controls`."""
        counts = []
        for text, controls in rows.select("text", "controls").iter_rows():  # the tokenizer takes lists of texts
            cuts = [0, *(edge for control in controls for edge in (control["start"], control["end"])), len(text)]
            pieces = [text[start:end] for start, end in zip(cuts[::2], cuts[1::2], strict=True) if start < end]
            encoded = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
            counts.append(len(controls) + sum(map(len, encoded)))
        return pl.Series("tokens", counts, dtype=pl.Int64)


def token_lengths(tokens: pl.Series) -> dict[str, Any] | None:
    """Counts of conversations by their tokens, for the report; None where tokens were not counted.

    Keys: `bounds` and `rows` (conversations of more than the previous bound and up to this one; the last have more than
    every bound), `total`, `median`, `p95` and `longest`.
    """
    counted = tokens.drop_nulls()
    if counted.is_empty():
        return None
    edges = [0, *(bound + 1 for bound in LENGTH_BOUNDS), np.inf]  # a bin excludes its upper edge
    rows = np.histogram(counted.to_numpy(), edges)[0]
    return {
        "bounds": list(LENGTH_BOUNDS),
        "rows": rows.tolist(),
        "total": int(counted.sum()),
        "median": int(counted.quantile(0.5, "lower") or 0),
        "p95": int(counted.quantile(0.95, "lower") or 0),
        "longest": int(counted.to_numpy().max()),
    }


def _load(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise RecipeError(f"--tokenizer {path} does not exist: give a tokenizer.json.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as fault:  # the library raises no narrower type
        raise RecipeError(f"--tokenizer {path} is not a tokenizer.json: {excerpt(str(fault))}.") from None
