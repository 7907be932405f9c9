"""Text and spans to ids and labels; pure.

`text` is cut at the `controls` that the template wrote; the pieces between are encoded one by one, and the ids of
the controls put in by hand: what somebody typed can never become a control, and no tokenizer's opinion of what
follows a special token matters. For Llama 2 the ids are those of Meta's rule (llama/generation.py, chat_completion).

A token is trained when its end lies beyond a span's start and not beyond the span's end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.errors import DataError
from training.model.tokenizer import ChatTokenizer

BLOCK = 512  # rows encoded at a time: enough for the tokenizer's threads, few enough to stay in the cache
IGNORED = -100  # the label of a token that is not trained (torch.nn.CrossEntropyLoss's ignore_index)


@dataclass(frozen=True)
class EncodedRows:
    """EncodedRows rows as flat columns.

    `names`: the rows' ids, n. `ids`: int32, all tokens. `span`: int32, for each token the number of its answer in its
    row, or -1 where it is not part of one. `bounds`: int64, n + 1; row i has the tokens bounds[i]:bounds[i + 1].
    """

    names: list[str]
    ids: NDArray[np.int32]
    span: NDArray[np.int32]
    bounds: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.bounds)

    def take(self, rows: NDArray[np.int64], lengths: NDArray[np.int64] | None = None) -> EncodedRows:
        """The given rows, each with its first `lengths` tokens only."""
        lengths = self.lengths[rows] if lengths is None else lengths
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = np.repeat(self.bounds[rows] - bounds[:-1], lengths) + np.arange(bounds[-1])
        return EncodedRows([self.names[row] for row in rows], self.ids[tokens], self.span[tokens], bounds)


def encode(table: pa.Table, vocabulary: ChatTokenizer) -> EncodedRows:
    """All rows of a split, encoded and checked: the trained ids of each answer decode to its text.

    Args:
        table: rows of `dataprep.contract.SHARD_SCHEMA`.

    Raises:
        DataError: names a row whose answers are not given back.
        ModelError: the tokenizer lacks a special token of the template.
    """
    blocks = [encode_block(table.slice(start, BLOCK), vocabulary) for start in range(0, table.num_rows, BLOCK)]
    return _joined(blocks)


def encode_block(table: pa.Table, vocabulary: ChatTokenizer) -> EncodedRows:
    """As `encode`, for rows that fit into memory at once."""
    texts: list[str] = table["text"].to_pylist()
    names: list[str] = table["id"].to_pylist()
    controls, spans = _places(table["controls"]), _places(table["spans"])
    pieces, gaps = _cut(texts, controls)
    found = vocabulary.backend.encode_batch(pieces, add_special_tokens=False)
    ids, ends, firsts, rows = _assembled(found, gaps, texts, vocabulary)
    bounds = np.searchsorted(rows, np.arange(len(texts) + 1)).astype(np.int64)
    base = np.concatenate([[0], np.cumsum([len(text) + 1 for text in texts])])  # texts laid end to end
    span = _answers(base[rows] + ends, base, spans)
    encoded = EncodedRows(names, ids, span, bounds)
    _check(encoded, texts, spans, firsts, vocabulary)
    return encoded


@dataclass(frozen=True)
class _Places:
    """A list column of (start, end): flat `start` and `end`, int64, and `bounds` of each row's, n + 1."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    bounds: NDArray[np.int64]


def _places(column: pa.ChunkedArray) -> _Places:
    lists = column.combine_chunks()
    flat = lists.flatten()
    bounds = np.concatenate([[0], np.cumsum(lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))])
    start, end = (flat.field(part).to_numpy(zero_copy_only=False).astype(np.int64) for part in (0, 1))
    return _Places(start, end, bounds.astype(np.int64))


# A stretch of a row between two cuts: its row, where it starts and ends (code points), and whether it is a control.
_Gap = tuple[int, int, int, bool]


def _cut(texts: list[str], controls: _Places) -> tuple[list[str], list[_Gap]]:
    """The pieces between the controls, and all stretches (pieces and controls) in their order."""
    pieces: list[str] = []
    gaps: list[_Gap] = []
    starts, ends, bounds = controls.start.tolist(), controls.end.tolist(), controls.bounds.tolist()
    for row, text in enumerate(texts):
        at = 0
        for number in range(bounds[row], bounds[row + 1]):
            if starts[number] > at:
                pieces.append(text[at : starts[number]])
                gaps.append((row, at, starts[number], False))
            gaps.append((row, starts[number], ends[number], True))
            at = ends[number]
        if at < len(text):
            pieces.append(text[at:])
            gaps.append((row, at, len(text), False))
    return pieces, gaps


def _assembled(
    found: list[Any], gaps: list[_Gap], texts: list[str], vocabulary: ChatTokenizer
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For each token its id, where it ends and starts in its row's text (code points), and its row."""
    ids: list[int] = []
    ends: list[int] = []
    firsts: list[int] = []
    counts = np.empty(len(gaps), np.int64)
    pieces = iter(found)
    for number, (row, start, end, control) in enumerate(gaps):
        before = len(ids)
        if control:
            ids.append(vocabulary.id_of(texts[row][start:end]))
            firsts.append(start)
            ends.append(end)
        else:
            piece = next(pieces)
            ids.extend(piece.ids)
            for first, last in piece.offsets:
                firsts.append(start + first)
                ends.append(start + last)
        counts[number] = len(ids) - before
    rows = np.repeat(np.array([gap[0] for gap in gaps], np.int64), counts)
    return np.array(ids, np.int32), np.array(ends, np.int64), np.array(firsts, np.int64), rows


def _answers(ends: NDArray[np.int64], base: NDArray[np.int64], spans: _Places) -> NDArray[np.int32]:
    """For each token the number of the answer it belongs to, in its row, or -1. `ends` lie end to end over all rows."""
    if len(spans.start) == 0:
        return np.full(len(ends), -1, np.int32)
    row = np.repeat(np.arange(len(spans.bounds) - 1), np.diff(spans.bounds))
    start, end = base[row] + spans.start, base[row] + spans.end
    last = np.searchsorted(start, ends, side="left") - 1  # the last span that starts before the token's end
    inside = (last >= 0) & (ends <= end[last])
    return np.where(inside, last - spans.bounds[row[last]], -1).astype(np.int32)


def _check(
    encoded: EncodedRows, texts: list[str], spans: _Places, firsts: NDArray[np.int64], vocabulary: ChatTokenizer
) -> None:
    """Decode the trained ids of every answer and compare with the whole of its span: nothing in it is left untrained.

    Two things are let pass: decoders of Llama's family leave off a first space, and some tokenizers normalise (Qwen's to
    NFC). The first only where the space has a trained token; the second only as far as the tokenizer's own normaliser goes.

    Raises:
        DataError: names the first row whose answer comes back otherwise, or an answer without any token.
    """
    trained = np.flatnonzero(encoded.span >= 0)
    rows = np.searchsorted(encoded.bounds, trained, side="right") - 1
    whole = spans.bounds[rows] + encoded.span[trained]  # the number of each trained token's span in the block
    starts = np.searchsorted(whole, np.arange(len(spans.start) + 1))
    ids = encoded.ids[trained].tolist()
    cuts = starts.tolist()
    decoded = vocabulary.backend.decode_batch(
        [ids[a:b] for a, b in zip(cuts, cuts[1:], strict=False)], skip_special_tokens=False
    )
    row_of = np.repeat(np.arange(len(texts)), np.diff(spans.bounds)).tolist()
    for number, text in enumerate(decoded):
        row = row_of[number]
        if cuts[number] == cuts[number + 1]:
            raise DataError(f"Row {encoded.names[row]} has an answer without any token: rebuild with another template.")
        first, start = int(firsts[trained[cuts[number]]]), int(spans.start[number])
        meant = texts[row][min(first, start) : int(spans.end[number])]  # a token may begin before the span
        if text == meant or (first <= start and _same(text, meant, vocabulary)):
            continue
        raise DataError(
            f"Row {encoded.names[row]}: the trained tokens give back {text[:60]!r} for the answer {meant[:60]!r}: "
            "the tokenizer cannot hold this text, choose another model."
        )


def _same(text: str, meant: str, vocabulary: ChatTokenizer) -> bool:
    """Equal but for a first space, or for what the tokenizer's own normaliser does to characters."""
    wanted = (meant, meant.removeprefix(" "))
    normaliser = vocabulary.backend.normalizer
    if text in wanted or normaliser is None:
        return text in wanted
    return normaliser.normalize_str(text) in map(normaliser.normalize_str, wanted)


def _joined(blocks: Iterable[EncodedRows]) -> EncodedRows:
    blocks = list(blocks)
    if not blocks:
        return EncodedRows([], np.empty(0, np.int32), np.empty(0, np.int32), np.zeros(1, np.int64))
    lengths = np.concatenate([block.lengths for block in blocks])
    return EncodedRows(
        [name for block in blocks for name in block.names],
        np.concatenate([block.ids for block in blocks]),
        np.concatenate([block.span for block in blocks]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
