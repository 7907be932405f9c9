"""Polars expressions behind the facts: counts over the messages of each conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from dataprep.common import personal_data
from dataprep.common.text import VISIBLE_CHARACTER
from dataprep.quality.repetition import repeated_lines, repeated_words
from dataprep.tables import ASSISTANT, SYSTEM, TOOL, USER

_REFUSALS = (
    "as an ai language model",
    "as a large language model",
    "as an ai, i",
    "as an ai assistant, i",
    "i'm sorry, but i can't",
    "i am sorry, but i cannot",
    "i cannot fulfill your request",
    "i'm unable to assist",
)
_ACTIVE_MARKUP = ("<script", "javascript:", " onerror=", " onload=", " onclick=", "<iframe")
_BIDI_CONTROL = r"[\x{202a}-\x{202e}\x{2066}-\x{2069}]"
_REPLACEMENT = "\ufffd"
_MOJIBAKE = ("Ã©", "Ã¨", "Ã¤", "Ã¶", "Ã¼", "ÃŸ", "Ã±", "Ã¡", "Ã³", "â€™", "â€œ", "â€“", "Â ")
_CONTROL_CHARACTER = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}]"
_LATIN = r"\p{Latin}"
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
    _LATIN: "en es de fr it pt nl ca pl ro cs sk sl hr hu da sv nb nn no fi et lv lt tr vi id ms tl eu gl eo is ga cy sq",
}  # fmt: skip
_HEAD_CHARS = 2_000  # of a conversation, looked at for its script
_MIN_QUESTION = 20  # characters of a question whose repetition counts
_LONG_ANSWER = 200  # characters of an answer that should end a sentence


def message_facts(rows: pl.DataFrame, forbidden: Sequence[str]) -> pl.DataFrame:
    """Return the facts about messages.

    Args:
        rows: `row` and `messages`.
        forbidden: control tokens and markers of the template.

    Returns:
        One row for each `row` that has messages.
    """
    messages = rows.select("row", "messages").explode("messages", empty_as_null=False).unnest("messages")
    follows = pl.col("row") == pl.col("row").shift(1)
    messages = messages.with_columns(
        chars=pl.col("content").str.len_chars(),
        bytes=pl.col("content").str.len_bytes(),
        previous=pl.when(follows).then(pl.col("content").shift(1)),
    )
    if "tool_calls" not in messages.columns:
        messages = messages.with_columns(tool_calls=pl.lit(None, pl.String))
    alternates = _alternates_with_tools() if (messages["role"] == TOOL).any() else _alternates()
    facts = messages.group_by("row").agg(**_aggregations(forbidden), alternates=alternates)
    unusual = messages.filter(_matches(pl.col("content"), _unusual()))
    unusual = unusual.with_columns(holds_card=personal_data.holds_card(unusual["content"]))
    rare = unusual.group_by("row").agg(**_rare_aggregations())
    answers = messages.filter(pl.col("role") == ASSISTANT)
    for table in (rare, repeated_lines(answers), repeated_words(answers)):
        facts = facts.join(table, on="row", how="left")
    return facts.with_columns(pl.col("repeated_lines", *_rare_aggregations()).fill_null(0))


def _aggregations(forbidden: Sequence[str]) -> dict[str, pl.Expr]:
    """Aggregations over the messages of a conversation.

    They have `role, content, chars, bytes, tool_calls`, and `previous`, the content of the message before.
    """
    content, role, previous = pl.col("content"), pl.col("role"), pl.col("previous")
    is_answer = role == ASSISTANT
    questions = content.filter(role == USER)
    last_answer = content.filter(is_answer).last()
    fenced = pl.when(content.str.contains("```", literal=True)).then(content)  # counting takes longer than a search
    sizes = {
        f"{name}_{size}": pl.col(size).filter(role == speaker).sum()
        for name, speaker in (("system", SYSTEM), ("user", USER), ("answer", ASSISTANT))
        for size in ("chars", "bytes")
    }
    return sizes | {
        "turns": pl.len(),
        "answers": is_answer.sum(),
        "chars": pl.col("chars").sum(),
        "bytes": pl.col("bytes").sum(),
        "longest_message": pl.col("chars").max(),
        "empty_messages": (~content.str.contains(VISIBLE_CHARACTER) & pl.col("tool_calls").is_null()).sum(),
        "ends_with_answer": role.last() == ASSISTANT,
        "typed_controls": _holds_any(content, forbidden).sum(),
        "repeated_questions": questions.len() - questions.n_unique(),
        "echoes": (is_answer & (previous.str.len_chars() >= _MIN_QUESTION) & content.str.starts_with(previous)).sum(),
        "unfinished": (last_answer.str.len_chars() >= _LONG_ANSWER) & last_answer.str.tail(1).str.contains(r"[\p{L},]"),
        "open_fences": (is_answer & (fenced.str.count_matches("```", literal=True) % 2 == 1)).sum(),
        "urls": _matches(content, personal_data.URL).sum(),
        "emails": _matches(content, personal_data.EMAIL).sum(),
    }


def _rare_aggregations() -> dict[str, pl.Expr]:
    """Aggregations over the messages that match `_unusual` (`role, content, holds_card`); without any, they are 0."""
    content = pl.col("content")
    is_answer = pl.col("role") == ASSISTANT
    return {
        "refusals": (_holds_any(content, _REFUSALS, ignore_case=True) & is_answer).sum(),
        "phones": _matches(content, personal_data.PHONE).sum(),
        "cards": pl.col("holds_card").sum(),
        "keys": _matches(content, personal_data.KEY).sum(),
        "active_markup": _holds_any(content, _ACTIVE_MARKUP, ignore_case=True).sum(),
        "replacements": _holds_any(content, [_REPLACEMENT]).sum(),
        "control_characters": _matches(content, _CONTROL_CHARACTER).sum(),
        "bidi_controls": _matches(content, _BIDI_CONTROL).sum(),
        "mojibake": _holds_any(content, _MOJIBAKE).sum(),
    }


def _alternates() -> pl.Expr:
    """Whether the roles of a conversation without tools are [system,] user, assistant, user, assistant, …"""
    role = pl.col("role")
    without_system = role.filter(role != SYSTEM)
    is_users_turn = pl.int_range(without_system.len()) % 2 == 0
    system_messages = (role == SYSTEM).sum()
    return ((without_system == USER) == is_users_turn).all() & (
        system_messages <= (role.first() == SYSTEM).cast(pl.UInt32)
    )


def _alternates_with_tools() -> pl.Expr:
    """The same, where results of tools follow an assistant's turn, and the assistant follows them."""
    turns = f"{USER} {ASSISTANT} (?:(?:{TOOL} )+{ASSISTANT} )*"
    unfinished = f"{USER} (?:{ASSISTANT} (?:(?:{TOOL} )+{ASSISTANT} )*(?:{TOOL} )*)?"
    return (
        pl.format("{} ", pl.col("role").str.join(" "))
        .str.contains(f"^(?:{SYSTEM} )?(?:{turns})*(?:{unfinished})?$")
        .first()
    )


def _matches(content: pl.Expr, pattern: str) -> pl.Expr:
    return content.str.contains(personal_data.ascii_word_boundaries(pattern))


def _unusual() -> str:
    """A pattern that every message with a rare fact matches: one search for all of them costs as much as one for each."""
    literals = "|".join(map(re.escape, [*_REFUSALS, *_ACTIVE_MARKUP, *_MOJIBAKE, _REPLACEMENT]))
    patterns = [personal_data.PHONE, personal_data.CARD, personal_data.KEY, _CONTROL_CHARACTER, _BIDI_CONTROL]
    return "|".join([f"(?i:{literals})", *patterns])


def _holds_any(content: pl.Expr, literals: Sequence[str], ignore_case: bool = False) -> pl.Expr:
    if not literals:
        return pl.lit(False)
    return content.str.contains_any(list(literals), ascii_case_insensitive=ignore_case)


def script_shares(rows: pl.DataFrame) -> pl.DataFrame:
    """Return, by `row`, the share of the letters at its beginning in the script of its language.

    Args:
        rows: `row`, `lang` and `messages`.

    Returns:
        `row` and `script_share` (null without a letter); rows of a language whose script is unknown are absent.
    """
    tag = pl.col("lang").str.to_lowercase().str.extract(r"^([a-z]{2,3})(?:[-_]|$)")
    head = pl.element().struct.field("content").str.head(_HEAD_CHARS)
    head = pl.col("messages").list.eval(head).list.join("\n").str.head(_HEAD_CHARS)
    heads = rows.select("row", "messages", tag=tag).filter(pl.col("tag").is_in(" ".join(_SCRIPTS.values()).split()))
    heads = heads.select("row", "tag", head=head)
    known = heads["tag"].unique().to_list()
    scripts = {script: tags.split() for script, tags in _SCRIPTS.items() if not set(known).isdisjoint(tags.split())}
    shares = [
        heads.filter(pl.col("tag").is_in(tags)).select("row", script_share=_script_share(script))
        for script, tags in scripts.items()
    ]
    return pl.concat([pl.DataFrame(schema={"row": heads.schema["row"], "script_share": pl.Float64}), *shares])


def _script_share(script: str) -> pl.Expr:
    """The share of the letters of `head` in a script: a class of regular expressions."""
    is_latin = (pl.col("head").str.len_bytes() == pl.col("head").str.len_chars()) & pl.col("head").str.contains(
        "[A-Za-z]"
    )
    is_certain = is_latin if script == _LATIN else pl.lit(False)
    text = pl.when(~is_certain).then(pl.col("head"))
    chars = text.str.len_chars()  # most are letters, and each match takes time: those that are none are counted
    share = (chars - text.str.count_matches(f"[^{script}]")) / (chars - text.str.count_matches(r"\P{L}"))
    return pl.when(is_certain).then(1.0).otherwise(share.fill_nan(None))


def covered(column: str) -> pl.Expr:
    """Code points inside of the spans of a column `list<struct<start, end>>`."""
    span = pl.element().struct
    return pl.col(column).list.eval(span.field("end") - span.field("start")).list.sum()


def count_any(text: pl.Expr, literals: Sequence[str]) -> pl.Expr:
    """Number of non-overlapping occurrences of `literals` in `text`; where several match, the longest counts."""
    longest_first = sorted(filter(None, literals), key=len, reverse=True)
    return text.str.find_many(longest_first, leftmost=True).list.len() if longest_first else pl.lit(0)
