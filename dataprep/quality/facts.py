"""Facts: one narrow table of numbers and flags, a row a conversation, that the quality gate judges.

They are taken from what was written (batches of `contract.SHARD_SCHEMA`), by Polars expressions over the messages of a
batch and sums of these by conversation. The column names are the words of an expectations file: see `FACTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from dataprep.common import personal_data as personal
from dataprep.common.errors import RecipeError, TemplateError
from dataprep.contract import sha256_of
from dataprep.rendering import Renderer, render
from dataprep.rendering.parsing import Parser
from dataprep.tables import ASSISTANT, SYSTEM, USER

_B, _I, _F = pl.Boolean(), pl.Int64(), pl.Float64()

# Name: (type, what it says). A null abstains: it can neither pass nor fail.
FACTS: dict[str, tuple[pl.DataType, str]] = {
    "id": (pl.String(), "the conversation"),
    "split": (pl.String(), "train or test"),
    "lang": (pl.String(), "its language tag as read; null: not told"),
    "turns": (_I, "messages"),
    "answers": (_I, "messages of the assistant"),
    "system_chars": (_I, "code points of system messages"),
    "user_chars": (_I, "code points of the user's messages"),
    "answer_chars": (_I, "code points of the assistant's messages"),
    "chars": (_I, "code points of all messages"),
    "system_bytes": (_I, "UTF-8 bytes of system messages"),
    "user_bytes": (_I, "UTF-8 bytes of the user's messages"),
    "answer_bytes": (_I, "UTF-8 bytes of the assistant's messages"),
    "bytes": (_I, "UTF-8 bytes of all messages"),
    "longest_message": (_I, "code points of the longest message"),
    "tokens": (_I, "tokens of the rendered text; null without --tokenizer"),
    "empty_messages": (_I, "messages without a visible character"),
    "alternates": (_B, "the roles are [system,] user, assistant, user, assistant, …"),
    "ends_with_answer": (_B, "the last message is the assistant's"),
    "trained_share": (_F, "trained code points of the rendered text, 0..1"),
    "parses_back": (_B, "the rendered text gives exactly the messages back; null: the template goes row by row"),
    "begins": (_I, "begin tokens in the rendered text; null: the template has none"),
    "ends": (_I, "end tokens in the rendered text; null: the template has none"),
    "framed": (_B, "exactly one begin and one end token an answer; null: the template does not frame each pair"),
    "typed_controls": (_I, "messages that hold a control token or marker of the template"),
    "extra_controls": (_I, "special tokens in the rendered text that the template did not write"),
    "script_share": (_F, "letters of its first 2,000 characters in the script of its language tag, 0..1; null: unknown tag"),
    "script_matches": (_B, "at least a fifth of these letters are"),
    "repeated_lines": (_I, "lines of 20 characters and more in answers that stood there before"),
    "repeated_words": (_F, "share of runs of four words, in the last 2,000 characters of its answers, that stood there before"),
    "repeated_questions": (_I, "user messages that stood there before"),
    "echoes": (_I, "answers that begin with the whole question of 20 characters and more"),
    "refusals": (_I, "answers with refusal boilerplate (As an AI language model …)"),
    "unfinished": (_B, "the last answer has 200 characters and more and ends on a letter or a comma"),
    "open_fences": (_I, "answers with an odd number of Markdown code fences"),
    "urls": (_I, "messages that hold a web address"),
    "emails": (_I, "messages that hold an e-mail address"),
    "phones": (_I, "messages that hold a phone number"),
    "cards": (_I, "messages that hold a credit card number with a sound check digit"),
    "keys": (_I, "messages that hold a secret key or token"),
    "active_markup": (_I, "messages that hold a script tag or an event handler of HTML"),
    "replacements": (_I, "messages that hold U+FFFD, the mark of broken Unicode"),
    "control_characters": (_I, "messages that hold a control character other than tab and line break"),
    "bidi_controls": (_I, "messages that hold a bidirectional override"),
    "mojibake": (_I, "messages that hold UTF-8 once read as Latin-1, such as Ã©"),
}  # fmt: skip

SCHEMA = {name: kind for name, (kind, _) in FACTS.items()}

_REFUSALS = ["as an ai language model", "as a large language model", "as an ai, i", "as an ai assistant, i"]
_REFUSALS += [
    "i'm sorry, but i can't",
    "i am sorry, but i cannot",
    "i cannot fulfill your request",
    "i'm unable to assist",
]
_ACTIVE = ["<script", "javascript:", " onerror=", " onload=", " onclick=", "<iframe"]
_BIDI = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]
_MOJIBAKE = ["Ã©", "Ã¨", "Ã¤", "Ã¶", "Ã¼", "ÃŸ", "Ã±", "Ã¡", "Ã³", "â€™", "â€œ", "â€“", "Â "]
_INVISIBLE = r"[^\s\x1c-\x1f\u{200b}\u{feff}]"
_SCRIPTS = {
    r"\p{Cyrillic}": "ru uk bg be sr mk kk ky mn",
    r"\p{Han}": "zh",
    r"[\p{Han}\p{Hiragana}\p{Katakana}]": "ja",
    r"[\p{Hangul}\p{Han}]": "ko",
    r"\p{Arabic}": "ar fa ur",
    r"\p{Hebrew}": "he",
    r"\p{Thai}": "th",
    r"\p{Greek}": "el",
    r"\p{Devanagari}": "hi mr ne",
    r"\p{Bengali}": "bn",
    r"\p{Tamil}": "ta",
    r"\p{Latin}": "en es de fr it pt nl ca pl ro cs sk sl hr hu da sv nb nn no fi et lv lt tr vi id ms tl eu gl eo is ga cy sq",
}  # fmt: skip
_HEAD, _TAIL, _RUN = 2000, 2000, 4


class FactsOf:
    """Facts of one template's batches. Plans, tokenizer and patterns are there once."""

    def __init__(self, renderer: Renderer, tokenizer: str | None = None) -> None:
        """`tokenizer`: path of a tokenizer.json, to count tokens with.

        Raises:
            RecipeError: no such file, or no tokenizer in it.
        """
        self.digest = ""  # of the tokenizer
        self._template = renderer.template
        self._parser = Parser(renderer.planner)
        self._tokenizer = None
        if tokenizer is not None:
            self._tokenizer = _load_tokenizer(Path(tokenizer))
            self.digest = sha256_of(Path(tokenizer))
        self._frames_pairs = _frames_pairs(renderer)

    def batch(self, batch: pa.RecordBatch, split: str) -> pl.DataFrame:
        """The facts (columns of `SCHEMA`) of a batch of `SHARD_SCHEMA`."""
        rows = pl.DataFrame(batch.select(["id", "lang", "messages", "text", "spans", "controls"])).with_row_index("row")
        turns = rows.select("row", "messages").explode("messages", empty_as_null=False).unnest("messages")
        first = pl.col("row") != pl.col("row").shift(1)
        turns = turns.with_columns(
            chars=pl.col("content").str.len_chars(),
            bytes=pl.col("content").str.len_bytes(),
            asked=pl.when(~first).then(pl.col("content").shift(1)),
        )
        sums = turns.lazy().group_by("row").agg(**_sums(self._template.forbidden_in_content)).collect()
        answers = turns.filter(pl.col("role") == ASSISTANT)
        for table in (sums, _repeated_lines(answers), _repeated_words(answers)):
            rows = rows.join(table, on="row", how="left", maintain_order="left")
        return rows.select(self._columns(batch, rows, split))

    def _columns(self, batch: pa.RecordBatch, rows: pl.DataFrame, split: str) -> list[pl.Expr | pl.Series]:
        bos, eos = self._template.bos_token, self._template.eos_token
        begins = pl.col("text").str.count_matches(bos, literal=True) if bos else pl.lit(None)
        ends = pl.col("text").str.count_matches(eos, literal=True) if eos else pl.lit(None)
        told: dict[str, pl.Expr | pl.Series] = {
            "split": pl.lit(split),
            "trained_share": _covered("spans") / pl.col("text").str.len_chars(),
            "parses_back": self._parser.parses_back(rows["messages"], batch.column("text")),
            "begins": begins,
            "ends": ends,
            "framed": (begins == pl.col("answers")) & (ends == pl.col("answers"))
            if self._frames_pairs
            else pl.lit(None),
            "extra_controls": _specials(self._template.special_tokens) - pl.col("controls").list.len(),
            "script_share": _script(pl.col("head")),
            "script_matches": _script(pl.col("head")) >= 0.2,
            "repeated_lines": pl.col("repeated_lines").fill_null(0),
            "tokens": self._tokens(rows),
        }
        return [(told[name].alias(name) if name in told else pl.col(name)).cast(kind) for name, kind in SCHEMA.items()]

    def _tokens(self, rows: pl.DataFrame) -> pl.Series | pl.Expr:
        """Tokens as training counts them: the pieces between control tokens, and one for each control token."""
        if self._tokenizer is None:
            return pl.lit(None)
        counts = []
        for text, controls in rows.select("text", "controls").iter_rows():  # the tokenizer takes lists, row by row
            cuts = [0, *(edge for place in controls for edge in (place["start"], place["end"])), len(text)]
            pieces = [text[start:end] for start, end in zip(cuts[::2], cuts[1::2], strict=True) if start < end]
            encoded = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
            counts.append(len(controls) + sum(map(len, encoded)))
        return pl.Series("tokens", counts, dtype=pl.Int64)


def _load_tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise RecipeError(f"--tokenizer {path}: there is no such file; give a tokenizer.json.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as fault:  # the library raises nothing finer
        raise RecipeError(f"--tokenizer {path} is no tokenizer.json: {str(fault).splitlines()[0]}.") from None


def _frames_pairs(renderer: Renderer) -> bool:
    """Whether the template writes a begin and an end token around each pair of question and answer, as Llama 2's does."""
    template = renderer.template
    pair = [{"role": USER, "content": "a"}, {"role": ASSISTANT, "content": "b"}]
    bos, eos = template.bos_token, template.eos_token
    try:
        text = render(template, pair + pair)
    except TemplateError:  # it knows one turn only
        return False
    return bool(bos and eos) and text.count(str(bos)) == 2 == text.count(str(eos))


def _sums(forbidden: Sequence[str]) -> dict[str, pl.Expr]:
    """Of each conversation: counts over its messages, in `role, content, chars, bytes` and `asked`, the content before."""
    content, role, asked = pl.col("content"), pl.col("role"), pl.col("asked")
    answer = role == ASSISTANT
    without_system = role.filter(role != SYSTEM)

    def holds(pattern: str) -> pl.Expr:
        return content.str.contains(personal.ascii_borders(pattern)).sum()

    def any_of(words: Sequence[str], where: Callable[[pl.Expr], pl.Expr] = lambda e: e, **how: bool) -> pl.Expr:
        return where(content.str.contains_any(list(words), **how)).sum() if words else pl.lit(0)

    last = content.filter(answer).last()
    return {
        "turns": pl.len(),
        "answers": answer.sum(),
        **{
            f"{name}_{size}": pl.col(size).filter(role == speaker).sum()
            for name, speaker in (("system", SYSTEM), ("user", USER), ("answer", ASSISTANT))
            for size in ("chars", "bytes")
        },
        "chars": pl.col("chars").sum(),
        "bytes": pl.col("bytes").sum(),
        "longest_message": pl.col("chars").max(),
        "empty_messages": (~content.str.contains(_INVISIBLE)).sum(),
        "alternates": ((without_system == USER) == (pl.int_range(without_system.len()) % 2 == 0)).all()
        & ((role == SYSTEM).sum() <= (role.first() == SYSTEM).cast(pl.UInt32)),
        "ends_with_answer": role.last() == ASSISTANT,
        "typed_controls": any_of(forbidden),
        "repeated_questions": content.filter(role == USER).len() - content.filter(role == USER).n_unique(),
        "echoes": (answer & (asked.str.len_chars() >= 20) & content.str.starts_with(asked)).sum(),
        "refusals": any_of(_REFUSALS, lambda found: found & answer, ascii_case_insensitive=True),
        "unfinished": (last.str.len_chars() >= 200) & last.str.tail(1).str.contains(r"[\p{L},]"),
        "open_fences": (answer & (content.str.count_matches("```", literal=True) % 2 == 1)).sum(),
        "urls": holds(personal.URL),
        "emails": holds(personal.EMAIL),
        "phones": holds(personal.PHONE),
        "cards": personal.holds_card(content).sum(),
        "keys": holds(personal.KEY),
        "active_markup": any_of(_ACTIVE, ascii_case_insensitive=True),
        "replacements": any_of(["\ufffd"]),
        "control_characters": holds(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}]"),
        "bidi_controls": any_of(_BIDI),
        "mojibake": any_of(_MOJIBAKE),
        "head": content.str.join("\n").str.head(_HEAD),
    }


def _script(head: pl.Expr) -> pl.Expr:
    """Share of the letters of `head` that are of the script in which `lang` is written; null where that is unknown."""
    tag = pl.col("lang").str.to_lowercase().str.extract(r"^([a-z]{2,3})(?:[-_]|$)")
    shares = []
    for script, tags in _SCRIPTS.items():
        own = pl.when(tag.is_in(tags.split())).then(head)  # a null costs no search
        shares.append(own.str.count_matches(script) / own.str.count_matches(r"\p{L}"))
    share = pl.coalesce(shares).fill_nan(None)
    ascii_only = (head.str.len_bytes() == head.str.len_chars()) & head.str.contains("[A-Za-z]")
    return pl.when(ascii_only & tag.is_in(_SCRIPTS[r"\p{Latin}"].split())).then(1.0).otherwise(share)


def _repeated_lines(answers: pl.DataFrame) -> pl.DataFrame:
    """By `row`, lines of `content` that are there already."""
    lines = answers.lazy().select("row", line=pl.col("content").str.split("\n")).explode("line")
    long = lines.filter(pl.col("line").str.len_bytes() >= 20)  # bytes first: cheap, and never too few
    long = long.with_columns(pl.col("line").str.strip_chars()).filter(pl.col("line").str.len_chars() >= 20)
    return long.group_by("row").agg(repeated_lines=pl.len() - pl.col("line").n_unique()).collect()


def _repeated_words(answers: pl.DataFrame) -> pl.DataFrame:
    """By `row`, the share of runs of words at the end of the answers that are there already: loops run to the end."""
    tail = pl.col("content").str.join("\n").str.tail(_TAIL)
    words = (
        answers.lazy()
        .group_by("row", maintain_order=True)
        .agg(word=tail)
        .with_columns(pl.col("word").str.replace_many(["\n", "\t"], [" ", " "]).str.split(" "))
        .filter(pl.col("word").list.len() >= 50)  # fewer say nothing about loops
        .explode("word")
        .select("row", word=pl.col("word").hash())  # compared within this run only
    )
    run = pl.sum_horizontal(pl.col("word").shift(at) * (2 * at + 1) ** 5 for at in range(_RUN))
    whole = pl.col("row") == pl.col("row").shift(_RUN - 1)
    runs = words.select("row", whole=whole, run=run).filter("whole")
    counts = runs.group_by("row", "run").len()  # an n_unique in each group takes twice as long
    return counts.group_by("row").agg(repeated_words=1 - pl.len() / pl.col("len").sum()).collect()


def _covered(column: str) -> pl.Expr:
    """Code points inside the places of a column `list<struct<start, end>>`."""
    place = pl.element().struct
    return pl.col(column).list.eval(place.field("end") - place.field("start")).list.sum()


def _specials(tokens: Sequence[str]) -> pl.Expr:
    """Special tokens in the rendered text, the longest first, none counted twice."""
    found = sorted(filter(None, tokens), key=len, reverse=True)
    return pl.col("text").str.find_many(found, leftmost=True).list.len() if found else pl.lit(0)
