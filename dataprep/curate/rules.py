"""Named reasons to repair or drop a conversation, each a Polars expression over a conversations frame.

Repairs come first, each on the few conversations that need it, and are recorded in the `repairs` column; then the
drop rules in the order of `drop_rules`: the first that fires gives a conversation its fate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from dataprep.recipe import Recipe, flag
from dataprep.tables import (
    ASSISTANT,
    LABELS,
    REPAIRS,
    ROLES,
    SYSTEM,
    TURNS,
    USER,
    WANTED_LABELS,
    dropped,
    no_fates,
)

STAGE = "rules"

_SEEN = r"[^\s\x1c-\x1f\u200b\ufeff]"  # a character that is neither white space (to Python) nor nothing to the eye
_TURN_BREAK = "\n\n"  # between messages of one role that are merged
_REPLACEMENT = "\ufffd"

messages = pl.col("messages")
_role = pl.element().struct.field("role")
_content = pl.element().struct.field("content")


def roles() -> pl.Expr:
    """The roles of a conversation, a list."""
    return messages.list.eval(_role)


def contents() -> pl.Expr:
    """The contents of a conversation, a list."""
    return messages.list.eval(_content)


def _any_content(test: pl.Expr) -> pl.Expr:
    """Whether `test`, on a content, holds for any message."""
    return messages.list.eval(test).list.any()


@dataclass(frozen=True)
class Rule:
    """A reason to drop: where `when` is true, with `detail` as what was found."""

    name: str
    says: str
    when: pl.Expr
    detail: pl.Expr


def apply_rules(
    conversations: pl.DataFrame, recipe: Recipe, tokens: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Repair what can be, drop what a rule of `recipe` forbids.

    Args:
        conversations: columns of `conversations.CONVERSATIONS`.
        recipe: the options.
        tokens: strings that content must not hold: the template's special tokens and markers.

    Returns:
        (kept, fates): `kept` in the order given, `fates` of the dropped with rule and detail.
    """
    kept = conversations
    for repair in (cut_dangling, drop_blank_system, merge_turns):
        kept = repair(kept)
    if recipe.system is not None:
        kept = add_system(kept, recipe.system)
    if recipe.control_tokens == "escape":
        kept = escape_tokens(kept, tokens)
    kept, repeats = drop_same_threads(kept)
    kept, fates = _drop(kept, drop_rules(recipe, tokens))
    return kept, pl.concat([repeats, fates])


def _drop(conversations: pl.DataFrame, rules: Sequence[Rule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split into (kept, fates) by the first of `rules` that fires."""
    if conversations.is_empty():
        return conversations, no_fates()
    verdict = pl.coalesce(pl.when(rule.when).then(pl.lit(rule.name)) for rule in rules)
    marked = conversations.with_columns(rule=verdict)
    fates = []
    for rule in rules:
        hit = marked.filter(pl.col("rule") == rule.name).with_columns(detail=rule.detail)
        fates.append(dropped(hit, "conversation", STAGE))
    kept = marked if all(frame.is_empty() for frame in fates) else marked.filter(pl.col("rule").is_null())
    return kept.drop("rule"), pl.concat(fates)


def drop_rules(recipe: Recipe, tokens: Sequence[str]) -> list[Rule]:
    """The drop rules in force under `recipe`, in the order in which they are asked."""
    rules = [
        Rule("no_answer", "no message of the assistant", ~roles().list.contains(ASSISTANT), pl.lit("it has no answer")),
        Rule("empty_turn", "a message without text", _any_content(_blank()), _which_turns(_blank())),
        Rule(
            "roles_do_not_alternate",
            "roles other than [system,] user, assistant, user, assistant, …, even when neighbours are merged",
            ~_alternates(),
            pl.format("the roles are {}", roles().list.head(12).list.join(", ")),
        ),
        Rule(
            "broken_unicode",
            "a NUL, or a run of U+FFFD (a lone surrogate reads as one)",
            _any_content(_broken()),
            _which_turns(_broken()),
        ),
    ]
    if tokens and recipe.control_tokens != "keep":
        rules.append(
            Rule(
                "control_token",
                "a control token or marker of the template typed in a message",
                _any_content(_content.str.contains_any(list(tokens))),
                pl.format("it holds {}", _held(tokens)),
            )
        )
    return rules + _chosen_rules(recipe)


def _chosen_rules(recipe: Recipe) -> list[Rule]:
    """Rules that are off unless an option sets them."""
    rules = []
    if recipe.lang:
        told = pl.format("its language is {}", pl.col("lang").fill_null("not told"))
        rules.append(Rule("language", "a language other than --lang", ~_speaks(recipe.lang), told))
    if recipe.accepted_only:
        refused = ~pl.col("accepted").fill_null(False)
        untold = pl.when(pl.col("accepted").is_null()).then(pl.lit("a message's review is not told"))
        found = untold.otherwise(pl.lit("a message did not pass review"))
        rules.append(Rule("not_accepted", "a message did not pass review, or nobody says", refused, found))
    bounds: list[tuple[str, str, pl.Expr, Callable[[pl.Expr, float], pl.Expr]]] = [
        ("min_reviews", "too_few_reviews", pl.col("review_count"), pl.Expr.lt),
        ("min_turns", "too_few_turns", answer_count(), pl.Expr.lt),
        ("max_turns", "too_many_turns", answer_count(), pl.Expr.gt),
        ("min_chars", "too_short", char_count(), pl.Expr.lt),
        ("max_chars", "too_long", char_count(), pl.Expr.gt),
    ]
    for label in LABELS:
        wanted = label in WANTED_LABELS
        option = f"{'min' if wanted else 'max'}_{label}"
        bounds.append(
            (option, f"{'low' if wanted else 'high'}_{label}", pl.col(label), pl.Expr.lt if wanted else pl.Expr.gt)
        )
    for option, name, value, beyond in bounds:
        bound = getattr(recipe, option)
        if bound is not None:  # a null (not told) is beyond no bound: it abstains
            detail = pl.format(f"it has {{}}, and {flag(option)} is {bound}", _rounded(value))
            rules.append(Rule(name, f"beyond {flag(option)}", beyond(value, bound).fill_null(False), detail))
    return rules


def abstentions(conversations: pl.DataFrame, recipe: Recipe) -> dict[str, int]:
    """For each threshold in force, by flag: conversations that say nothing about it, and so are not judged by it."""
    options = {f"{'min' if label in WANTED_LABELS else 'max'}_{label}": label for label in LABELS}
    options["min_reviews"] = "review_count"
    asked = {flag(option): column for option, column in options.items() if getattr(recipe, option) is not None}
    return {option: conversations[column].null_count() for option, column in asked.items()}


def answer_count() -> pl.Expr:
    """Answers in a conversation."""
    return messages.list.eval(_role == ASSISTANT).list.sum()


def char_count() -> pl.Expr:
    """Code points in all messages of a conversation."""
    return messages.list.eval(_content.str.len_chars()).list.sum()


def _rounded(value: pl.Expr) -> pl.Expr:
    return value.cast(pl.Float64).round(4).cast(pl.String).str.strip_suffix(".0")


def _blank() -> pl.Expr:
    return ~_content.str.contains(_SEEN).fill_null(False)


def _broken() -> pl.Expr:
    return _content.str.contains_any(["\0", _REPLACEMENT * 2])


def _held(tokens: Sequence[str]) -> pl.Expr:
    """Those of `tokens` that a conversation's contents hold, comma-separated, in order of appearance."""
    return contents().list.join("\n").str.extract_many(list(tokens)).list.unique(maintain_order=True).list.join(", ")


def _which_turns(test: pl.Expr) -> pl.Expr:
    """`message 3 of 4`: the first message for which `test` holds."""
    place = messages.list.eval(test).list.arg_max() + 1
    return pl.format("message {} of {}", place, messages.list.len())


def _speaks(languages: Sequence[str]) -> pl.Expr:
    """`lang` is one of `languages`: `pt` matches `pt-BR`, and `pt-BR` itself only."""
    tag = pl.col("lang").str.replace_all("_", "-", literal=True).str.to_lowercase().fill_null("")
    asked = [language.replace("_", "-").lower() for language in languages]
    return tag.is_in(asked) | tag.str.split("-").list.first().is_in([tag for tag in asked if "-" not in tag])


def _alternates() -> pl.Expr:
    """[system,] then user and assistant in turn, ending on the assistant."""
    order = roles().list.join(" ")
    return order.str.contains(f"^({SYSTEM} )?({USER} {ASSISTANT} )*{USER} {ASSISTANT}$")


def drop_same_threads(conversations: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Drop paths whose messages, by their ids, are those of an earlier one: they differed in what was cut."""
    ids = pl.col("message_ids").list.join("\0")
    survivor = pl.col("id").first().over(ids)
    marked = conversations.with_columns(survivor=pl.when(ids != "").then(survivor))
    again = (pl.col("survivor") != pl.col("id")).fill_null(False)
    repeats = marked.filter(again).with_columns(
        detail=pl.lit("the same messages, once what follows the last answer is cut")
    )
    kept = conversations if repeats.is_empty() else marked.filter(~again).drop("survivor")
    return kept, dropped(repeats, "conversation", STAGE, "same_thread")


def _noted(rule: str, detail: pl.Expr) -> pl.Expr:
    """`repairs` with one more."""
    note = pl.struct(pl.lit(rule).alias("rule"), detail.cast(pl.String).alias("detail"))
    return pl.concat_list(pl.col("repairs").fill_null([]), note).cast(REPAIRS).alias("repairs")


def _repair_where(frame: pl.DataFrame, need: pl.Expr, repair: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """`frame` with `repair` applied to the rows in `need`, in place: the others are not touched."""
    mask = frame.select(need.fill_null(False)).to_series()
    if not mask.any():
        return frame
    place = pl.int_range(pl.len()).alias("_place")
    marked = frame.with_columns(place)
    mended = repair(marked.filter(mask)).select(marked.columns)
    return pl.concat([marked.filter(~mask), mended]).sort("_place").drop("_place")


def cut_dangling(conversations: pl.DataFrame) -> pl.DataFrame:
    """Cut what follows the last answer; the repair `dangling_question` keeps the text that was cut.

    Conversations without any answer are left for the rule `no_answer`.
    """
    last = roles().list.last()
    need = (last != ASSISTANT) & roles().list.contains(ASSISTANT)

    def cut(frame: pl.DataFrame) -> pl.DataFrame:
        tail = roles().list.reverse().list.eval(pl.element() == ASSISTANT).list.arg_max()
        frame = frame.with_columns(_tail=tail.cast(pl.Int64))
        keep = messages.list.len().cast(pl.Int64) - pl.col("_tail")
        text = messages.list.tail(pl.col("_tail")).list.eval(_content).list.join(_TURN_BREAK, ignore_nulls=True)
        aligned = pl.col("message_ids").list.len() == messages.list.len()
        ids = pl.when(aligned).then(pl.col("message_ids").list.head(keep)).otherwise(pl.col("message_ids"))
        return frame.with_columns(_noted("dangling_question", text), messages.list.head(keep), ids)

    return _repair_where(conversations, need, cut)


def drop_blank_system(conversations: pl.DataFrame) -> pl.DataFrame:
    """Remove a leading system message without text: many files write one in every row."""
    first = messages.list.first()
    need = (first.struct.field("role") == SYSTEM) & ~first.struct.field("content").str.contains(_SEEN).fill_null(False)

    def remove(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(_noted("blank_system", pl.lit("")), messages.list.slice(1))

    return _repair_where(conversations, need, remove)


def merge_turns(conversations: pl.DataFrame) -> pl.DataFrame:
    """Join neighbouring messages of one role with a blank line; `message_ids` goes on naming every source message.

    One without text adds nothing to its neighbours, and is told; where all of them are blank, the rule `empty_turn` fires.
    """
    # Looked for in the roles' names: comparing each with the one before it, list by list, takes ten times as long.
    named = pl.format("\n{}\n", roles().list.join("\n\n"))
    same = named.str.contains_any([f"\n{role}\n\n{role}\n" for role in ROLES])

    def merge(frame: pl.DataFrame) -> pl.DataFrame:
        runs = frame.select("_place", "messages").explode("messages").unnest("messages")
        runs = runs.with_columns(run=pl.struct("_place", "role").rle_id())
        text = pl.col("content")
        said = text.filter(pl.col("content").str.contains(_SEEN))
        spoken = said.len() > 0
        turns = runs.group_by("run", maintain_order=True).agg(
            pl.col("_place").first(),
            pl.col("role").first(),
            content=pl.when(spoken).then(said.str.join(_TURN_BREAK)).otherwise(text.str.join(_TURN_BREAK)),
            blank=pl.when(spoken).then(text.len() - said.len()).otherwise(0),
        )
        merged = turns.group_by("_place", maintain_order=True).agg(
            pl.col("blank").sum(), messages=pl.struct("role", "content")
        )
        fewer = frame["messages"].list.len() - merged["messages"].list.len()
        frame = frame.with_columns(_fewer=fewer, _blank=merged["blank"], messages=merged["messages"].cast(TURNS))
        joined = pl.format("{} messages joined to a neighbour of the same role", "_fewer")
        blank = (
            pl.when(pl.col("_blank") > 0).then(pl.format(", {} of them without text", "_blank")).otherwise(pl.lit(""))
        )
        note = _noted("merged_turns", joined + blank)
        return frame.with_columns(pl.when(pl.col("_fewer") > 0).then(note).otherwise("repairs").alias("repairs"))

    return _repair_where(conversations, same, merge)


def add_system(conversations: pl.DataFrame, text: str) -> pl.DataFrame:
    """Give conversations without a system message `text` as theirs."""
    turn = pl.struct(pl.lit(SYSTEM).alias("role"), pl.lit(text).alias("content"))

    def lead(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.concat_list(turn, messages).cast(TURNS).alias("messages"))

    return _repair_where(conversations, roles().list.first() != SYSTEM, lead)


def escape_tokens(conversations: pl.DataFrame, tokens: Sequence[str]) -> pl.DataFrame:
    """Break each typed control token by a space after its first character: `<s>` becomes `< s>`."""
    patterns = list(tokens)
    holds = _any_content(_content.str.contains_any(patterns))

    def escape(frame: pl.DataFrame) -> pl.DataFrame:
        broken = _content.str.replace_many(patterns, [token[0] + " " + token[1:] for token in patterns], leftmost=True)
        turns = messages.list.eval(pl.struct(_role.alias("role"), broken.alias("content")))
        return frame.with_columns(_noted("escaped_control_token", _held(tokens)), turns.alias("messages"))

    return _repair_where(conversations, holds, escape)
