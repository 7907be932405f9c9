"""Facts about repetition inside of the answers of each conversation: lines, and word sequences at the end."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from dataprep.common.arrow import strings

_MIN_LINE = 20  # characters of a line whose repetition counts
_TAIL_CHARS = 2_000  # of a conversation's answers, looked at for loops
_MIN_WORDS = 50  # a shorter text cannot be judged for loops
_SEQUENCE = 4  # words
_SEQUENCE_HASHES = 2**40  # values of a sequence's hash, which leaves room for 2^24 rows in 64 bits


def repeated_lines(answers: pl.DataFrame) -> pl.DataFrame:
    """Return, by `row`, the number of lines of `content` that occurred before."""
    lines = answers.lazy().select("row", line=pl.col("content").str.split("\n")).explode("line")
    # by bytes first: that is cheap, and a text has at least as many bytes as characters
    lines = lines.filter(pl.col("line").str.len_bytes() >= _MIN_LINE).with_columns(pl.col("line").str.strip_chars())
    lines = lines.filter(pl.col("line").str.len_chars() >= _MIN_LINE)
    return lines.group_by("row").agg(repeated_lines=pl.len() - pl.col("line").n_unique()).collect()


def repeated_words(answers: pl.DataFrame) -> pl.DataFrame:
    """Return, by `row`, the share of word sequences at the end of the answers that occurred before; loops run to the end."""
    tail = pl.col("content").str.tail(_TAIL_CHARS).str.join("\n").str.tail(_TAIL_CHARS)
    tails = answers.group_by("row", maintain_order=True).agg(tail=tail)
    words, counts = _words(tails["tail"])
    hashes = words.hash().to_numpy()  # compared within this process only
    sequences = _sequences(hashes, np.repeat(np.arange(tails.height, dtype=np.uint64), counts))
    distinct = pl.Series(sequences).unique().to_numpy() // _SEQUENCE_HASHES  # the number of its text, for each
    distinct_counts = np.bincount(distinct.astype(np.int64), minlength=tails.height)
    share = pl.Series("repeated_words", 1 - distinct_counts / np.maximum(counts - (_SEQUENCE - 1), 1))
    return tails.select("row", share).filter(pl.Series(counts >= _MIN_WORDS))


def _words(texts: pl.Series) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    """Return the words of all texts in one sequence, each with a space after it, and the number of words of each text.

    Words end at a space, a tab or a line break: two of them in a row enclose an empty word.
    """
    _, offsets, content = strings(texts + " ").buffers()
    characters = np.frombuffer(content or b"", np.uint8).copy()
    is_end = (characters == ord(" ")) | (characters == ord("\n")) | (characters == ord("\t"))
    characters[is_end] = ord(" ")
    borders = np.append(0, np.flatnonzero(is_end) + 1).astype(np.int32)
    words = pa.StringArray.from_buffers(len(borders) - 1, pa.py_buffer(borders), pa.py_buffer(characters))
    text_borders = np.frombuffer(offsets, np.int32)[: len(texts) + 1]
    return pl.Series(words, dtype=pl.String), np.diff(np.searchsorted(borders, text_borders))


def _sequences(words: npt.NDArray[np.uint64], text_of: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Number the word sequences by their text and their hash: equal numbers are equal sequences of one text.

    Distinct values of one number take a tenth of the time of distinct pairs.

    Args:
        words: hash of each word.
        text_of: ascending number of each word's text.
    """
    sequences = words[_SEQUENCE - 1 :].copy()
    for before in range(1, _SEQUENCE):
        sequences += words[_SEQUENCE - 1 - before : len(words) - before] * np.uint64((2 * before + 1) ** 5)
    sequences //= np.uint64(2**64 // _SEQUENCE_HASHES)
    sequences += text_of[_SEQUENCE - 1 :] * np.uint64(_SEQUENCE_HASHES)
    whole: npt.NDArray[np.uint64] = sequences[text_of[_SEQUENCE - 1 :] == text_of[: 1 - _SEQUENCE]]
    return whole
