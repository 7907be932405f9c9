"""Reduce texts to the normal form that near-duplicates, leaks and contamination are compared in: their folded words.

The normal form is NFKC and case folding, then the words (`\\w+`; in scripts without spaces, such as Chinese, Japanese and
Thai, each character is a word). Inside this package each word is *followed* by one space, so that word borders are found
in the bytes alone. A text without words (ASCII art, a chess board) is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import Bytes, TextBuffer, for_each_block, offsets_from_sizes, selected, true_positions
from dataprep.dedup.folding import OTHER_PLANES, TEXT, fold, folding_table, non_ascii_characters
from dataprep.tables import ASSISTANT, USER, message_fields

RowIndices = npt.NDArray[np.intp]
ComparedText = Literal["thread", "prompt", "answer"]

NEEDS_FOLDING = np.uint8(1)  # the form depends on neighbours, or has another number of bytes than the character
SINGLE_WORD = np.uint8(2)  # the character is a word by itself
SPACE = np.uint8(0x20)
FOUR_SPACES = np.uint32(0x20202020)
WORD = r"[\w--[\x{200c}\x{200d}\x{20e3}\x{fe00}-\x{fe0f}]]"  # without the joiners and selectors of emoji
SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]"


class NormalisedBlock(NamedTuple):
    """Some texts of a column in normal form, each with at least one byte."""

    texts: TextBuffer
    rows: RowIndices  # their rows in the column


class CharacterTable(NamedTuple):
    """[OTHER_PLANES + 1] each: how a character is spelled in the normal form."""

    utf8: npt.NDArray[np.uint32]  # folded form in as many bytes as the character, first byte lowest; spaces: no word
    flags: npt.NDArray[np.uint8]  # NEEDS_FOLDING, SINGLE_WORD


def documents(conversations: pl.DataFrame, compared: ComparedText = "thread") -> pl.Series:
    """Return the text of each conversation that is compared: all messages, the user's or the answers, each on a line.

    The text of a message is its content, its reasoning and its calls of tools, each on a line of its own.
    """
    turn = pl.element()
    roles = {"thread": pl.lit(True), "prompt": turn.struct["role"] == USER, "answer": turn.struct["role"] == ASSISTANT}
    turns = turn if compared == "thread" else turn.filter(roles[compared])
    texts = [turns.struct[name] for name in text_fields(conversations)]
    text = texts[0] if len(texts) == 1 else pl.concat_str(texts, separator="\n", ignore_nulls=True)
    lines = pl.col("messages").list.eval(text).list.join("\n", ignore_nulls=True).fill_null("")
    return conversations.select(text=lines + "\n").to_series()


def content_bytes(conversations: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Return the number of bytes of all compared texts of each conversation."""
    sizes = [
        pl.col("messages").list.eval(pl.element().struct[name].str.len_bytes()).list.sum().fill_null(0)
        for name in text_fields(conversations)
    ]
    return conversations.select(pl.sum_horizontal(sizes).cast(pl.Int64)).to_series().to_numpy()


def text_fields(conversations: pl.DataFrame) -> list[str]:
    """Return the message fields that are compared as text: `content`, and reasoning and calls of tools if present."""
    present = message_fields(conversations)
    return [name for name in ("content", "reasoning_content", "tool_calls") if name in present]


def contexts(conversations: pl.DataFrame) -> pl.Series:
    """Return what must be equal in duplicates beside their texts: the tools, and the answers that are not trained.

    Empty for a conversation that has neither.
    """
    tools = flags = pl.lit("")
    if "tools" in conversations.columns:
        tools = pl.col("tools").fill_null("")
    if "trained" in message_fields(conversations):
        trained = pl.col("messages").list.eval(pl.element().struct["trained"].fill_null(True).cast(pl.String))
        flags = pl.when(trained.list.contains("false")).then("\n" + trained.list.join(" ")).otherwise(pl.lit(""))
    return conversations.select("messages", context=tools + flags)["context"]


def for_each_normalised_block(column: pl.Series, process: Callable[[NormalisedBlock], None]) -> None:
    """Call `process(block)` for the normal forms of a column of documents, one cache-sized block at a time, on threads.

    A *document* ends with a line feed (see `documents`). Most are normalised in their bytes; those with characters that
    need folding are folded by Polars first. Documents without any visible character are in no block.
    """
    pending = np.ones(len(column), bool)
    _character_table()  # built before the threads need it

    def normalise_rows(rows: RowIndices, is_folded: bool) -> Callable[[TextBuffer, slice], None]:
        def run(texts: TextBuffer, chosen: slice) -> None:
            block = _without_empty(_normalise(texts, is_folded), rows[chosen])
            pending[block.rows] = False
            process(block)

        return run

    for_each_block(column, normalise_rows(np.arange(len(column)), is_folded=False))
    rest = np.flatnonzero(pending)
    if not len(rest):
        return
    for_each_block(fold(column.gather(rest)), normalise_rows(rest, is_folded=True))
    rest = np.flatnonzero(pending)
    if not len(rest):
        return
    raw = column.gather(rest).str.strip_chars().alias("text").to_frame()
    spaced = raw.select(pl.when(TEXT == "").then(TEXT).otherwise(TEXT + " ")).to_series()
    for_each_block(spaced, lambda texts, chosen: process(_without_empty(texts, rest[chosen])))


def normal_form(text: str) -> str:
    """Return the normal form of one text for people to read: words joined by one space."""
    forms: list[str] = []
    for_each_normalised_block(
        pl.Series([text + "\n"]), lambda block: forms.append(bytes(block.texts.data).decode()[:-1])
    )
    return "".join(forms)


def _without_empty(forms: TextBuffer, rows: RowIndices) -> NormalisedBlock:
    """Keep those of `forms` that are not empty."""
    full = np.diff(forms.offsets) > 0
    return NormalisedBlock(TextBuffer(forms.data, np.append(forms.offsets[:-1][full], forms.offsets[-1])), rows[full])


def _normalise(texts: TextBuffer, is_folded: bool) -> TextBuffer:
    """Return the folded words of each document, each word followed by one space.

    A document with characters that need folding becomes empty, unless it `is_folded` already.
    """
    text, starts = texts.data[texts.offsets[0] : texts.offsets[-1]], texts.offsets - texts.offsets[0]
    table = _character_table()
    at, points = non_ascii_characters(text)
    flags = table.flags[points]
    spelled = _fold_ascii(text)
    _write_multi_byte(spelled, text, at, table.utf8[points])
    if not is_folded:
        is_unfolded = np.zeros(len(starts), bool)
        is_unfolded[np.searchsorted(starts, at[flags & NEEDS_FOLDING != 0], "right") - 1] = True
        for document in np.flatnonzero(is_unfolded).tolist():  # few
            spelled[starts[document] : starts[document + 1]] = SPACE
    single = true_positions(flags & SINGLE_WORD != 0)
    if len(single):
        begins = at[single]
        is_border = np.zeros(len(text) + 1, bool)
        is_border[begins] = is_border[begins + _byte_length(text[begins])] = True
        borders = true_positions(is_border)  # a space is inserted before these bytes
        is_text = np.ones(len(text) + len(borders), bool)
        is_text[borders + np.arange(len(borders))] = False
        spaced = np.full(len(is_text), SPACE)
        spaced[is_text] = spelled
        spelled, starts = spaced, starts + np.searchsorted(borders, starts)
    in_word = spelled != SPACE
    keep = in_word.copy()
    keep[1:] |= in_word[
        :-1
    ]  # the first space after a word; each document begins after a line feed, which is a space here
    sizes = np.add.reduceat(np.append(keep, False).view(np.uint8), starts, dtype=np.int32)[:-1]
    return TextBuffer(selected(spelled, keep), offsets_from_sizes(sizes))


def _fold_ascii(text: Bytes) -> Bytes:
    """Return letters in lower case, digits, `_` and bytes of longer characters as they are, and other bytes as spaces."""
    folded = text | SPACE  # letters in lower case; digits stay
    folds = ((folded - np.uint8(ord("a"))) < 26) | ((text - np.uint8(ord("0"))) < 10)
    stays = (text >= 0x80) | (text == ord("_"))
    folds_mask, stays_mask = -folds.view(np.uint8), -stays.view(np.uint8)  # 0 or 0xFF: faster than `np.where`
    spelled: Bytes = folded & folds_mask | text & stays_mask | SPACE & ~(folds_mask | stays_mask)
    return spelled


def _write_multi_byte(spelled: Bytes, text: Bytes, at: RowIndices, utf8: npt.NDArray[np.uint32]) -> None:
    """Write the forms of characters of two to four bytes; those of OTHER_PLANES (their `utf8` is 0) stay as they are."""
    if not utf8.all():
        written = np.flatnonzero(utf8)
        at, utf8 = at[written], utf8[written]
    first = text[at]
    for byte, lead in enumerate((0xC0, 0xC0, 0xE0, 0xF0)):
        if byte > 1:
            longer = np.flatnonzero(first >= lead)
            at, utf8, first = at[longer], utf8[longer], first[longer]
        spelled[at + byte] = (utf8 >> np.uint32(8 * byte)).astype(np.uint8)  # an assignment that casts is slower


def _byte_length(first: Bytes) -> npt.NDArray[np.int64]:
    """Return how many bytes the characters have that begin with these bytes."""
    return 2 + (first >= 0xE0).astype(np.int64) + (first >= 0xF0)


@cache
def _character_table() -> CharacterTable:
    """Build the table once per process (0.3 s)."""
    folding = folding_table()
    characters = pl.Series("c", [chr(c) for c in folding.characters.tolist()])
    letters = "".join(map(chr, folding.forms.tolist()))
    forms = [letters[a:b] for a, b in pairwise([*folding.starts.tolist(), len(folding.forms)])]
    frame = pl.DataFrame({"c": characters, "form": forms}).with_columns(
        is_word=pl.col("c").str.contains(f"^{WORD}$"),
        form_is_words=pl.col("form").str.contains(f"^{WORD}+$"),
        form_has_no_word=~pl.col("form").str.contains(WORD),
        is_single=pl.col("c").str.contains(f"^{SPACELESS}$"),
        fits=pl.col("c").str.len_bytes() == pl.col("form").str.len_bytes(),
        context_free=pl.Series(folding.context_free),
    )
    simple = pl.col("context_free") & (pl.col("form_has_no_word") | (pl.col("fits") & pl.col("form_is_words")))
    is_blank = pl.when(simple).then("form_has_no_word").otherwise(~pl.col("is_word"))
    spelling = pl.when(simple).then("form").otherwise("c")
    entries = frame.select(simple=simple, is_blank=is_blank, is_single="is_single", text=spelling)
    utf8 = np.frombuffer(b"".join(text.encode()[:4].ljust(4, b"\0") for text in entries["text"]), "<u4")
    # Characters that this Python does not assign are no words; those of OTHER_PLANES (Chinese, mostly) stay as they are.
    table = CharacterTable(np.full(OTHER_PLANES + 1, FOUR_SPACES, np.uint32), np.zeros(OTHER_PLANES + 1, np.uint8))
    table.utf8[OTHER_PLANES], table.flags[OTHER_PLANES] = 0, NEEDS_FOLDING | SINGLE_WORD
    table.utf8[folding.characters] = np.where(entries["is_blank"].to_numpy(), FOUR_SPACES, utf8)
    needs_folding = np.where(entries["simple"].to_numpy(), 0, NEEDS_FOLDING)
    table.flags[folding.characters] = needs_folding | np.where(entries["is_single"].to_numpy(), SINGLE_WORD, 0)
    return table
