"""Facts: the table that the quality gate judges, with one row of numbers and flags for each conversation.

They are computed from what is written (batches of `contract.SHARD_SCHEMA`), with Polars expressions. The column names are
what an expectations file refers to: see `FACTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import polars as pl
import pyarrow as pa

from dataprep.quality import expressions
from dataprep.quality.tokens import TokenCounter

_B, _I, _F = pl.Boolean(), pl.Int64(), pl.Float64()

# Name: (type, meaning). A null neither passes nor fails an expectation.
FACTS: dict[str, tuple[pl.DataType, str]] = {
    "id": (pl.String(), "id of the conversation"),
    "split": (pl.String(), "train or test"),
    "lang": (pl.String(), "its language tag as read; null: unknown"),
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
    "empty_messages": (_I, "messages without a visible character that call no tool"),
    "alternates": (_B, "whether the roles are [system,] user, assistant, …, with results of tools between two assistant turns"),
    "ends_with_answer": (_B, "whether the last message is the assistant's"),
    "trained_share": (_F, "trained code points of the rendered text, 0 to 1"),
    "parses_back": (_B, "whether the rendered text gives exactly the messages back; null: rendered row by row"),
    "unwritten_system": (_I, "system messages whose text is not whole in the rendered text"),
    "unwritten_messages": (_I, "other messages whose text is not whole in the rendered text"),
    "unwritten_reasoning": (_I, "messages whose reasoning is not whole in the rendered text"),
    "begins": (_I, "begin tokens in the rendered text; null: the template has none"),
    "ends": (_I, "end tokens in the rendered text; null: the template has none"),
    "framed": (_B, "whether each answer has one begin and one end token; null: the template does not frame pairs"),
    "typed_controls": (_I, "messages that hold a control token or marker of the template"),
    "extra_controls": (_I, "special tokens in the rendered text that the template did not write"),
    "script_share": (_F, "share of letters (of 2,000 characters) in the script of its language tag; null: unknown tag"),
    "script_matches": (_B, "whether that share is at least a fifth"),
    "repeated_lines": (_I, "repeated lines of 20 characters and more in answers"),
    "repeated_words": (_F, "share of repeated four-word sequences in the last 2,000 characters of its answers"),
    "repeated_questions": (_I, "repeated user messages"),
    "echoes": (_I, "answers that begin with the whole question (of 20 characters and more)"),
    "refusals": (_I, "answers with refusal boilerplate (As an AI language model …)"),
    "unfinished": (_B, "whether the last answer has 200 characters and more and ends on a letter or a comma"),
    "open_fences": (_I, "answers with an odd number of Markdown code fences"),
    "urls": (_I, "messages that hold a web address"),
    "emails": (_I, "messages that hold an e-mail address"),
    "phones": (_I, "messages that hold a phone number"),
    "cards": (_I, "messages that hold a credit card number with a valid check digit"),
    "keys": (_I, "messages that hold a secret key or token"),
    "active_markup": (_I, "messages that hold a script tag or an event handler of HTML"),
    "replacements": (_I, "messages that hold U+FFFD, which replaces invalid Unicode"),
    "control_characters": (_I, "messages that hold a control character other than tab and line break"),
    "bidi_controls": (_I, "messages that hold a bidirectional override"),
    "mojibake": (_I, "messages that hold UTF-8 decoded as Latin-1, such as Ã©"),
}  # fmt: skip

SCHEMA = {name: kind for name, (kind, _) in FACTS.items()}


def to_arrow(facts: pl.DataFrame) -> pa.Table:
    """Return facts as Great Expectations' process reads them: with plain strings."""
    return facts.to_arrow(compat_level=pl.CompatLevel.oldest())


SCRIPT_SHARE = 0.2  # minimum share of letters in the script of the language tag


class TemplateChecks(Protocol):
    """What the gate needs to know of the build's template: see `rendering.checks`."""

    @property
    def begin_token(self) -> str | None: ...
    @property
    def end_token(self) -> str | None: ...
    @property
    def special_tokens(self) -> Sequence[str]: ...
    @property
    def forbidden_in_content(self) -> Sequence[str]: ...
    @property
    def frames_pairs(self) -> bool: ...
    def parses_back(self, messages: pl.Series, text: pa.StringArray, tools: pl.Series | None = None) -> pl.Series: ...
    def unwritten(self, messages: pl.Series, tools: pl.Series | None = None) -> pl.DataFrame: ...


class FactExtractor:
    """Computes the facts of batches that were rendered with one template."""

    def __init__(
        self, checks: TemplateChecks, tokenizer: str | None = None, columns: Sequence[str] = tuple(SCHEMA)
    ) -> None:
        """Args:
            checks: of the build's template.
            tokenizer: path of a tokenizer.json, to count tokens with.
            columns: the facts that are wanted.

        Raises:
            RecipeError: there is no tokenizer at `tokenizer`.
        """
        self.tokenizer, self.columns = tokenizer, columns
        self._checks = checks
        self._tokens = TokenCounter(tokenizer) if tokenizer is not None else None

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer in hex; empty without one."""
        return self._tokens.digest if self._tokens else ""

    def batch(self, batch: pa.RecordBatch, split: str) -> pl.DataFrame:
        """Return the wanted facts of a batch of `SHARD_SCHEMA`."""
        columns = ["id", "lang", "messages", "text", "spans", "controls"]
        tools = ["tools"] if "tools" in batch.schema.names else []
        rows = pl.DataFrame(batch.select(columns + tools)).with_row_index("row")
        by_row = expressions.message_facts(rows, self._checks.forbidden_in_content)
        for table in (by_row, expressions.script_shares(rows)):
            rows = rows.join(table, on="row", how="left", maintain_order="left")
        rows = rows.hstack(self._checks.unwritten(rows["messages"], rows["tools"] if tools else None))
        rows = rows.with_columns(**self._text_facts(batch, rows), split=pl.lit(split))
        frames_pairs = (pl.col("begins") == pl.col("answers")) & (pl.col("ends") == pl.col("answers"))
        rows = rows.with_columns(
            framed=frames_pairs if self._checks.frames_pairs else pl.lit(None),
            script_matches=pl.col("script_share") >= SCRIPT_SHARE,
        )
        return rows.select(pl.col(name).cast(SCHEMA[name]) for name in self.columns)

    def _text_facts(self, batch: pa.RecordBatch, rows: pl.DataFrame) -> dict[str, pl.Expr | pl.Series]:
        """The facts about rendered texts."""
        begin, end = self._checks.begin_token, self._checks.end_token
        special_tokens = expressions.count_any(pl.col("text"), self._checks.special_tokens)
        return {
            "trained_share": expressions.covered("spans") / pl.col("text").str.len_chars(),
            "parses_back": self._checks.parses_back(
                rows["messages"], batch.column("text"), rows["tools"] if "tools" in rows.columns else None
            ),
            "begins": expressions.count_any(pl.col("text"), [begin]) if begin else pl.lit(None),
            "ends": expressions.count_any(pl.col("text"), [end]) if end else pl.lit(None),
            "extra_controls": special_tokens - pl.col("controls").list.len(),
            "tokens": self._tokens.count(rows) if self._tokens else pl.lit(None),
        }
