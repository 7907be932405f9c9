"""Encode the text and spans of a build to ids, with the number of the answer that each token belongs to.

The ids of a row are those that serving gives for its text: the whole text is encoded with special tokens recognised, so that
added tokens which absorb white space, and tokenizers that treat the start of a text specially, behave as in serving. For Llama
2's tokenizer.json these are the ids of Meta's rule (llama/generation.py, chat_completion).

A row in which somebody typed a special token outside of the `controls` that the template wrote is encoded differently: it is
split at the controls, the pieces between them are encoded one by one with special tokens as plain text, and the ids of the
controls are inserted. So typed characters never become a control token.

A token belongs to an answer if it ends after the start of the answer's span and not after the span's end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.errors import DataError
from training.model.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding

BLOCK = 512  # rows encoded at a time: enough for the tokenizer's threads, few enough to stay in the cache
IGNORED = -100  # the label of a token that is not trained (torch.nn.CrossEntropyLoss's ignore_index)


@dataclass(frozen=True)
class EncodedRows:
    """Encoded rows as flat columns.

    `names`: ids of the n rows. `ids`: int32, all tokens. `answer`: int32, for each token the number of its answer in its
    row, or -1 outside of answers. `bounds`: int64, n + 1; row i has the tokens bounds[i]:bounds[i + 1].
    """

    names: list[str]
    ids: NDArray[np.int32]
    answer: NDArray[np.int32]
    bounds: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each row."""
        return np.diff(self.bounds)

    def take(self, rows: NDArray[np.int64], lengths: NDArray[np.int64] | None = None) -> EncodedRows:
        """Select rows, and of each of them its first `lengths` tokens (None: all)."""
        lengths = self.lengths[rows] if lengths is None else lengths
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = np.repeat(self.bounds[rows] - bounds[:-1], lengths) + np.arange(bounds[-1])
        return EncodedRows([self.names[row] for row in rows], self.ids[tokens], self.answer[tokens], bounds)


def encode(table: pa.Table, tokenizer: ChatTokenizer) -> EncodedRows:
    """Encode all rows of a split, and check that the ids of each answer decode to its text.

    Args:
        table: rows of `dataprep.contract.SHARD_SCHEMA`.

    Raises:
        DataError: an answer does not decode to its text; names the row.
        ModelError: the tokenizer lacks a special token of the template.
    """
    blocks = [encode_block(table.slice(start, BLOCK), tokenizer) for start in range(0, table.num_rows, BLOCK)]
    return _concatenate(blocks)


def encode_block(table: pa.Table, tokenizer: ChatTokenizer) -> EncodedRows:
    """Do what `encode` does, for rows that fit into memory at once."""
    texts: list[str] = table["text"].to_pylist()
    names: list[str] = table["id"].to_pylist()
    controls, spans = _ranges(table["controls"]), _ranges(table["spans"])
    tokens = _tokens(texts, controls, tokenizer)
    bounds = np.searchsorted(tokens.row, np.arange(len(texts) + 1)).astype(np.int64)
    text_start = np.concatenate([[0], np.cumsum([len(text) + 1 for text in texts])])  # of the concatenated texts
    answer = _answer_numbers(text_start[tokens.row] + tokens.end, text_start, spans)
    encoded = EncodedRows(names, tokens.id, answer, bounds)
    _check_answers(encoded, texts, spans, tokens.start, tokenizer)
    return encoded


@dataclass(frozen=True)
class _Ranges:
    """A list column of (start, end): flat `start` and `end`, int64, and `bounds` of each row's ranges, n + 1."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    bounds: NDArray[np.int64]


def _ranges(column: pa.ChunkedArray) -> _Ranges:
    lists = column.combine_chunks()
    flat = lists.flatten()
    bounds = np.concatenate([[0], np.cumsum(lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))])
    start, end = (flat.field(part).to_numpy(zero_copy_only=False).astype(np.int64) for part in (0, 1))
    return _Ranges(start, end, bounds.astype(np.int64))


_Range = tuple[int, int]  # start and end in a row's text, in code points
_RowTokens = tuple[list[int], list[_Range]]  # ids and ranges of a row's tokens


@dataclass(frozen=True)
class _Tokens:
    """All tokens of a block: id, row, and start and end in the row's text (code points)."""

    id: NDArray[np.int32]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


def _tokens(texts: list[str], controls: _Ranges, tokenizer: ChatTokenizer) -> _Tokens:
    starts, ends, bounds = controls.start.tolist(), controls.end.tolist(), controls.bounds.tolist()
    written: list[list[_Range]] = [
        list(zip(starts[a:b], ends[a:b], strict=True)) for a, b in zip(bounds, bounds[1:], strict=False)
    ]
    control_texts = (text[a:b] for text, ranges in zip(texts, written, strict=True) for a, b in ranges)
    control_ids = {text: tokenizer.id_of(text) for text in dict.fromkeys(control_texts)}
    pattern = _pattern(tokenizer.special_contents | control_ids.keys())
    whole = [row for row, text in enumerate(texts) if not _has_typed_token(text, written[row], pattern)]
    rows: dict[int, _RowTokens] = {}
    for row, encoding in zip(whole, tokenizer.encode_whole([texts[row] for row in whole]), strict=True):
        ids, ranges = encoding.ids, _ranges_of(encoding, texts[row], tokenizer)
        id_at = dict(zip(ranges, ids, strict=True))
        # A tokenizer may recognise a control only under conditions, such as `single_word`.
        if all(id_at.get((a, b)) == control_ids[texts[row][a:b]] for a, b in written[row]):
            rows[row] = ids, ranges
    for row, text in enumerate(texts):
        if row not in rows:
            rows[row] = _piecewise_tokens(text, written[row], control_ids, tokenizer)
    in_order = [rows[row] for row in range(len(texts))]
    flat = np.array([part for _, ranges in in_order for part in ranges], np.int64).reshape(-1, 2)
    return _Tokens(
        np.array([token for ids, _ in in_order for token in ids], np.int32),
        np.repeat(np.arange(len(texts), dtype=np.int64), [len(ids) for ids, _ in in_order]),
        flat[:, 0],
        flat[:, 1],
    )


def _pattern(contents: Iterable[str]) -> re.Pattern[str] | None:
    """Matches any of the special tokens, the longest first; None if there are none."""
    ordered = sorted(filter(None, contents), key=len, reverse=True)
    if not ordered:
        return None
    first = "".join(sorted({re.escape(content[0]) for content in ordered}))  # skips most positions quickly
    return re.compile(f"(?=[{first}])(?:{'|'.join(map(re.escape, ordered))})")


def _has_typed_token(text: str, controls: list[_Range], pattern: re.Pattern[str] | None) -> bool:
    """Whether a special token stands in the text where the template did not write one."""
    if pattern is None:
        return False
    written = set(controls)
    return any(match.span() not in written for match in pattern.finditer(text))


def _ranges_of(encoding: Encoding, text: str, tokenizer: ChatTokenizer) -> list[_Range]:
    """The ranges of an encoded text's tokens, without the white space that added tokens absorb."""
    ranges: list[_Range] = encoding.offsets
    if tokenizer.stripping:
        for index, number in enumerate(encoding.ids):
            if number in tokenizer.stripping:
                content = tokenizer.stripping[number].content
                start = text.index(content, *ranges[index])
                ranges[index] = start, start + len(content)
    return ranges


def _piecewise_tokens(
    text: str, controls: list[_Range], control_ids: dict[str, int], tokenizer: ChatTokenizer
) -> _RowTokens:
    """The tokens of the pieces between controls, with special tokens as plain text, and the ids of the controls."""
    ids: list[int] = []
    ranges: list[_Range] = []
    position = 0
    for start, end in [*controls, (len(text), len(text))]:
        if start > position:
            encoding = tokenizer.backend.encode(text[position:start], add_special_tokens=False)
            ids += encoding.ids
            ranges += [(position + a, position + b) for a, b in encoding.offsets]
        if end > start:
            ids.append(control_ids[text[start:end]])
            ranges.append((start, end))
        position = end
    return ids, ranges


def _answer_numbers(ends: NDArray[np.int64], text_start: NDArray[np.int64], spans: _Ranges) -> NDArray[np.int32]:
    """For each token the number of its answer in its row, or -1. `ends` are positions in the concatenated texts."""
    if len(spans.start) == 0:
        return np.full(len(ends), -1, np.int32)
    row = np.repeat(np.arange(len(spans.bounds) - 1), np.diff(spans.bounds))
    start, end = text_start[row] + spans.start, text_start[row] + spans.end
    last = np.searchsorted(start, ends, side="left") - 1  # the last span that starts before the token's end
    inside = (last >= 0) & (ends <= end[last])
    return np.where(inside, last - spans.bounds[row[last]], -1).astype(np.int32)


def _check_answers(
    encoded: EncodedRows, texts: list[str], spans: _Ranges, starts: NDArray[np.int64], tokenizer: ChatTokenizer
) -> None:
    """Decode the ids of every answer and compare them with the whole span, so that no part of it is left untrained.

    Four differences are allowed. Decoders of the Llama family omit a leading space, and tokenizers with a prefix space add
    one: allowed only if the answer's tokens cover its start. Some tokenizers normalise text (Qwen's to NFC): allowed
    only if the tokenizer's own normaliser makes both texts equal. SentencePiece's `▁` stands for a space. White space that
    an added token absorbs is not decoded.

    Raises:
        DataError: names the first row with an answer that decodes to other text, or that has no token.
    """
    positions = np.flatnonzero(encoded.answer >= 0)
    rows = np.searchsorted(encoded.bounds, positions, side="right") - 1
    span = spans.bounds[rows] + encoded.answer[positions]  # the number of each token's span in the block
    first = np.searchsorted(span, np.arange(len(spans.start) + 1)).tolist()
    ids = encoded.ids[positions].tolist()
    decoded = tokenizer.backend.decode_batch(
        [ids[a:b] for a, b in zip(first, first[1:], strict=False)], skip_special_tokens=False
    )
    row_of = np.repeat(np.arange(len(texts)), np.diff(spans.bounds)).tolist()
    for number, text in enumerate(decoded):
        row = row_of[number]
        if first[number] == first[number + 1]:
            raise DataError(f"Row {encoded.names[row]} has an answer without a token: rebuild with another template.")
        token_start, start = int(starts[positions[first[number]]]), int(spans.start[number])
        if _absorbs(encoded, int(positions[first[number]]), tokenizer) and texts[row][start:token_start].isspace():
            start = token_start
        expected = texts[row][min(token_start, start) : int(spans.end[number])]  # a token may begin before the span
        if text == expected or (token_start <= start and _equal_text(text, expected, tokenizer)):
            continue
        raise DataError(
            f"Row {encoded.names[row]}: the answer {expected[:60]!r} is encoded to ids that decode to {text[:60]!r}: "
            "the tokenizer cannot represent this text, choose another model."
        )


def _absorbs(encoded: EncodedRows, position: int, tokenizer: ChatTokenizer) -> bool:
    """Whether the token at `position` absorbs white space before it, or the token before it white space after it."""
    if not tokenizer.stripping:
        return False
    token = tokenizer.stripping.get(int(encoded.ids[position]))
    before = tokenizer.stripping.get(int(encoded.ids[position - 1])) if position else None
    return (token is not None and token.lstrip) or (before is not None and before.rstrip)


def _equal_text(text: str, expected: str, tokenizer: ChatTokenizer) -> bool:
    """Whether two texts are equal, apart from a leading space and what the tokenizer itself changes."""
    if text in (expected, expected.removeprefix(" ")):
        return True
    return _as_tokenized(text, tokenizer) == _as_tokenized(expected, tokenizer)


def _as_tokenized(text: str, tokenizer: ChatTokenizer) -> list[str]:
    """The parts of a text between special tokens as the tokenizer sees them, then the special tokens; for comparisons."""
    for token in tokenizer.stripping.values():
        before, after = r"\s*" if token.lstrip else "", r"\s*" if token.rstrip else ""
        text = token.content.join(re.split(before + re.escape(token.content) + after, text))
    text = text.replace("▁", " ").removeprefix(" ")
    special = _pattern(tokenizer.special_contents)
    parts = [text] if special is None else special.split(text)
    normaliser = tokenizer.backend.normalizer
    if normaliser is not None:
        parts = [normaliser.normalize_str(part) for part in parts]
        parts[0] = parts[0].replace("▁", " ").removeprefix(" ")  # NFKC makes a space of a no-break space
    return parts if special is None else [*parts, *special.findall(text)]


def _concatenate(blocks: Iterable[EncodedRows]) -> EncodedRows:
    blocks = list(blocks)
    if not blocks:
        return EncodedRows([], np.empty(0, np.int32), np.empty(0, np.int32), np.zeros(1, np.int64))
    lengths = np.concatenate([block.lengths for block in blocks])
    return EncodedRows(
        [name for block in blocks for name in block.names],
        np.concatenate([block.ids for block in blocks]),
        np.concatenate([block.answer for block in blocks]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
