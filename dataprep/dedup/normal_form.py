"""The normal form that near-duplicates, leaks and contamination are judged by: the words of a text, folded.

NFKC and case folding, then the words (`\\w+`; in scripts without spaces, such as Chinese, Japanese and Thai, each
character). Inside this package each word is *followed* by one space, so that borders of words are found in bytes
alone. A text without words (ASCII art, a chess board) is taken raw.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import Bytes, Texts, each_block, offsets_of, texts_of
from dataprep.dedup.folding import BEYOND, TEXT, beyond_ascii, folded, folds
from dataprep.tables import ASSISTANT, USER

Rows = npt.NDArray[np.intp]
On = Literal["thread", "prompt", "answer"]

HARD = np.uint8(1)  # its form cannot be told from the character alone, or takes another number of bytes
ALONE = np.uint8(2)  # a word of its own
SPACE = np.uint8(0x20)
WORD = r"[\w--[\x{200c}\x{200d}\x{20e3}\x{fe00}-\x{fe0f}]]"  # joiners and selectors of emoji are no words
SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]"


class Part(NamedTuple):
    """Some texts of a column in normal form, each with at least one byte."""

    texts: Texts
    rows: Rows  # their places in the column


class Forms(NamedTuple):
    """[BEYOND + 1] each: what a character is in a text's words."""

    utf8: npt.NDArray[np.uint32]  # its folded form in as many bytes as it had, first byte lowest; spaces: not in a word
    kind: npt.NDArray[np.uint8]  # HARD, ALONE


def documents(conversations: pl.DataFrame, on: On = "thread") -> pl.Series:
    """What is compared of each conversation: its contents, or only the user's, or only the answers, each on a line."""
    turn = pl.element()
    roles = {"thread": pl.lit(True), "prompt": turn.struct["role"] == USER, "answer": turn.struct["role"] == ASSISTANT}
    contents = turn.struct["content"] if on == "thread" else turn.filter(roles[on]).struct["content"]
    lines = pl.col("messages").list.eval(contents).list.join("\n", ignore_nulls=True).fill_null("")
    return conversations.select(text=lines + "\n").to_series()


def content_bytes(conversations: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Bytes of all contents of each conversation."""
    sizes = pl.col("messages").list.eval(pl.element().struct["content"].str.len_bytes()).list.sum()
    return conversations.select(sizes.fill_null(0).cast(pl.Int64)).to_series().to_numpy()


def each_form(column: pl.Series, work: Callable[[Part], None]) -> None:
    """`work(part)` for the normal forms of a column of documents, a cache-sized block at a time, on several threads.

    A *document* ends with a line feed (see `documents`). Most are spelled from their bytes; those with hard characters
    are gathered and folded by Polars first. Documents without any visible character are in no part.
    """
    todo = np.ones(len(column), bool)
    _table()  # made before the threads ask for it

    def spell(rows: Rows, last: bool) -> Callable[[Texts, slice], None]:
        def run(texts: Texts, place: slice) -> None:
            spelled = _part(_spelled(texts, last), rows[place])
            todo[spelled.rows] = False
            work(spelled)

        return run

    each_block(column, spell(np.arange(len(column)), last=False))
    rest = np.flatnonzero(todo)
    each_block(folded(column.gather(rest)), spell(rest, last=True))
    rest = np.flatnonzero(todo)
    raw = column.gather(rest).str.strip_chars().alias("text").to_frame()
    work(_part(texts_of(raw.select(pl.when(TEXT == "").then(TEXT).otherwise(TEXT + " ")).to_series()), rest))


def normal_form(text: str) -> str:
    """The normal form of one text, as a person would write it: words joined by one space."""
    found: list[str] = []
    each_form(pl.Series([text + "\n"]), lambda part: found.append(bytes(part.texts.data).decode()[:-1]))
    return "".join(found)


def _part(forms: Texts, rows: Rows) -> Part:
    """Those of `forms` that are not empty."""
    full = np.diff(forms.offsets) > 0
    return Part(Texts(forms.data, np.append(forms.offsets[:-1][full], forms.offsets[-1])), rows[full])


def _spelled(texts: Texts, last: bool) -> Texts:
    """The words of each document, folded, each followed by one space.

    A document with hard characters becomes empty, unless this is the `last` try.
    """
    text, starts = texts.data[texts.offsets[0] : texts.offsets[-1]], texts.offsets - texts.offsets[0]
    table = _table()
    at, points = beyond_ascii(text)
    kind = table.kind[points]
    plain = np.where(np.arange(256) < 0x80, table.utf8[:256], np.arange(256)).astype(np.uint8)
    spelled = np.take(plain, text, mode="clip")
    _put(spelled, text, at, table.utf8[points])
    if not last:
        hard = np.unique(np.searchsorted(starts, at[kind & HARD != 0], "right") - 1)
        for document in hard.tolist():  # few
            spelled[starts[document] : starts[document + 1]] = SPACE
    lone = np.flatnonzero(kind & ALONE)
    if len(lone):
        borders = np.unique(np.concatenate([at[lone], at[lone] + _length(text[at[lone]])]))
        spelled = np.insert(spelled, borders, SPACE)
        starts = starts + np.searchsorted(borders, starts, "left")
    word = spelled != SPACE
    keep = word.copy()
    keep[1:] |= word[:-1]  # the first space after a word; a document begins after the line feed of the one before
    kept = np.add.reduceat(np.append(keep, False).view(np.uint8), starts, dtype=np.int32)[:-1]
    return Texts(np.compress(keep, spelled), offsets_of(kept))


def _put(spelled: Bytes, text: Bytes, at: Rows, utf8: npt.NDArray[np.uint32]) -> None:
    """Write characters of two to four bytes; those above BEYOND (their `utf8` is 0) stay as they are."""
    for byte, lead in enumerate((0xC0, 0xC0, 0xE0, 0xF0)):
        long = np.flatnonzero((text[at] >= lead) & (utf8 != 0))
        spelled[at[long] + byte] = utf8[long] >> np.uint32(8 * byte)


def _length(first: Bytes) -> npt.NDArray[np.int64]:
    """Bytes of the characters that begin with these."""
    return 2 + (first >= 0xE0).astype(np.int64) + (first >= 0xF0)


@cache
def _table() -> Forms:
    """Made once in a process (0.3 s)."""
    known, points, starts, steady = folds()
    characters = pl.Series("c", [chr(c) for c in known.tolist()])
    letters = "".join(map(chr, points.tolist()))
    forms = [letters[a:b] for a, b in pairwise([*starts.tolist(), len(points)])]
    frame = pl.DataFrame({"c": characters, "form": forms}).with_columns(
        word=pl.col("c").str.contains(f"^{WORD}$"),
        words=pl.col("form").str.contains(f"^{WORD}+$"),
        none=~pl.col("form").str.contains(WORD),
        alone=pl.col("c").str.contains(f"^{SPACELESS}$"),
        fits=pl.col("c").str.len_bytes() == pl.col("form").str.len_bytes(),
        steady=pl.Series(steady),
    )
    easy = pl.col("steady") & (pl.col("none") | (pl.col("fits") & pl.col("words")))
    blank = pl.when(easy).then("none").otherwise(~pl.col("word"))
    letters_of = pl.when(easy).then("form").otherwise("c")
    spelled = frame.select(easy=easy, blank=blank, alone="alone", text=letters_of)
    utf8 = np.frombuffer(b"".join(t.encode()[:4].ljust(4, b"\0") for t in spelled["text"]), "<u4")
    # Characters that this Python does not know are no words; those above BEYOND (Chinese, mostly) stay as they are.
    table = Forms(np.full(BEYOND + 1, 0x20202020, np.uint32), np.zeros(BEYOND + 1, np.uint8))
    table.utf8[BEYOND], table.kind[BEYOND] = 0, HARD | ALONE
    table.utf8[known] = np.where(spelled["blank"].to_numpy(), np.uint32(0x20202020), utf8)
    table.kind[known] = np.where(spelled["easy"].to_numpy(), 0, HARD) | np.where(spelled["alone"].to_numpy(), ALONE, 0)
    return table
