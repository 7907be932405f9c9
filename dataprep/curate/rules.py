"""Drop conversations by named rules, each a Polars expression over a conversations frame.

Repairs come first (see `repairs`). Then the first rule that applies, in the order of `drop_rules`, gives a conversation
its fate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import polars as pl

from dataprep.common.text import VISIBLE_CHARACTER, agree, plural
from dataprep.curate.messages import (
    CONTENT,
    MESSAGES,
    ROLE,
    any_message,
    calls_tools,
    has_token,
    is_context,
    message_has_token,
    present_fields,
    roles,
    tokens_in,
)
from dataprep.curate.repairs import repair
from dataprep.curate.tool_results import orphan_results
from dataprep.options import flag
from dataprep.recipe import Recipe
from dataprep.tables import (
    ASSISTANT,
    LABELS,
    REQUIRED_FIELDS,
    SYSTEM,
    TOOL,
    USER,
    WANTED_LABELS,
    StageResult,
    dropped,
    no_fates,
)

STAGE = "rules"

BROKEN = ("\0", "\ufffd\ufffd")  # decoders write U+FFFD for bytes that are no text


@dataclass(frozen=True)
class Rule:
    """A reason to drop a conversation: it applies where `condition` is true; `detail` says what was there."""

    name: str
    description: str
    condition: pl.Expr
    detail: pl.Expr


def apply_rules(conversations: pl.DataFrame, recipe: Recipe, tokens: Sequence[str]) -> StageResult[None]:
    """Repair what can be repaired, and drop what a rule of `recipe` forbids.

    Args:
        conversations: columns of `tables.CONVERSATIONS`.
        recipe: the options.
        tokens: strings that contents must not hold: the template's special tokens and markers.

    Returns:
        `kept` in input order; `fates` with rule and detail; a note for each threshold that some rows have no label for.
    """
    distinct, repeat_fates, *_ = drop_same_threads(repair(conversations, recipe, tokens))
    paired, orphan_fates, *_ = drop_orphan_results(distinct)
    kept, fates = _drop(paired, drop_rules(recipe, tokens, present_fields(paired)))
    notes = [
        f"{count:,} of {plural(kept.height, 'row')} {agree(count, 'has', 'have')} no label for {option} and passed it "
        "unchecked."
        for option, count in unlabelled(kept, recipe).items()
        if count
    ]
    return StageResult(kept, pl.concat([repeat_fates, orphan_fates, fates]), notes)


def drop_same_threads(conversations: pl.DataFrame) -> StageResult[None]:
    """Keep one of the paths that have the same messages, by their ids: they differed only in what was cut.

    The smallest id is kept, so the result does not depend on the order of lines in the sources.
    """
    ids = pl.col("message_ids").list.join("\0")
    survivor = pl.col("id").min().over(ids)
    marked = conversations.with_columns(survivor=pl.when(ids != "").then(survivor))
    is_repeat = (pl.col("survivor") != pl.col("id")).fill_null(False)
    repeats = marked.filter(is_repeat).with_columns(
        detail=pl.lit("the same messages, after what follows the last answer was cut")
    )
    kept = conversations if repeats.is_empty() else marked.filter(~is_repeat).drop("survivor")
    return StageResult(kept, dropped(repeats, "conversation", STAGE, "same_thread"))


def drop_orphan_results(conversations: pl.DataFrame) -> StageResult[None]:
    """Drop conversations with the result of a tool that answers no call."""
    orphans = orphan_results(conversations)
    if orphans.is_empty():
        return StageResult(conversations)
    lost = conversations.join(orphans, on="row", how="inner", maintain_order="left")
    kept = conversations.join(orphans, on="row", how="anti", maintain_order="left")
    return StageResult(kept, dropped(lost, "conversation", STAGE, "orphan_tool_result"))


def drop_rules(recipe: Recipe, tokens: Sequence[str], fields: Collection[str] = REQUIRED_FIELDS) -> list[Rule]:
    """Return the rules in force under `recipe`, in the order in which they are applied.

    Args:
        recipe: the options.
        tokens: strings that texts must not hold.
        fields: of the conversations, from `messages.present_fields`.
    """
    is_blank = _is_blank(fields)
    rules = [
        Rule(
            "no_answer",
            "a conversation without an assistant message",
            ~roles().list.contains(ASSISTANT),
            pl.lit("it has no answer"),
        ),
        Rule("empty_turn", "a message without visible text", any_message(is_blank), _first_message(is_blank)),
        Rule(
            "roles_do_not_alternate",
            "roles other than [system,] user, assistant, user, assistant, …, even after neighbours are merged; results of "
            "tools and another assistant message may follow one that calls them",
            ~_alternates(),
            pl.format("the roles are {}", roles().list.head(12).list.join(", ")),
        ),
        Rule(
            "broken_unicode",
            "a NUL, or a run of U+FFFD (a lone surrogate reads as one)",
            has_token(BROKEN, fields),
            _first_message(message_has_token(BROKEN, fields)),
        ),
    ]
    if "trained" in fields:
        rules.append(
            Rule(
                "nothing_trained",
                "a conversation whose answers are all marked as context",
                ~any_message((ROLE == ASSISTANT) & ~is_context(fields)),
                pl.lit("all its answers are context only"),
            )
        )
    if tokens and recipe.control_tokens != "keep":
        rules.append(
            Rule(
                "control_token",
                "a control token or marker of the template typed in a message",
                has_token(tokens, fields),
                pl.format("it holds {}", tokens_in(tokens, fields)),
            )
        )
    return rules + _optional_rules(recipe)


def unlabelled(conversations: pl.DataFrame, recipe: Recipe) -> dict[str, int]:
    """Count, for each threshold in force, by flag, the conversations without a value: the rule does not apply to them."""
    options = {f"{'min' if label in WANTED_LABELS else 'max'}_{label}": label for label in LABELS}
    options["min_reviews"] = "review_count"
    in_force = {flag(option): column for option, column in options.items() if getattr(recipe, option) is not None}
    return {option: conversations[column].null_count() for option, column in in_force.items()}


def answer_count() -> pl.Expr:
    """Return the number of answers in a conversation."""
    return MESSAGES.list.eval(ROLE == ASSISTANT).list.sum()


def char_count() -> pl.Expr:
    """Return the number of code points in all messages of a conversation."""
    return MESSAGES.list.eval(CONTENT.str.len_chars()).list.sum()


def _drop(conversations: pl.DataFrame, rules: Sequence[Rule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Divide into (kept, fates) by the first of `rules` that applies."""
    if conversations.is_empty():
        return conversations, no_fates()
    first_rule = pl.coalesce(pl.when(rule.condition).then(pl.lit(rule.name)) for rule in rules)
    marked = conversations.with_columns(rule=first_rule)
    fates = []
    for rule in rules:
        hit = marked.filter(pl.col("rule") == rule.name).with_columns(detail=rule.detail)
        fates.append(dropped(hit, "conversation", STAGE))
    kept = marked if all(frame.is_empty() for frame in fates) else marked.filter(pl.col("rule").is_null())
    return kept.drop("rule"), pl.concat(fates)


def _optional_rules(recipe: Recipe) -> list[Rule]:
    """Return the rules that apply only if an option sets them."""
    rules = []
    if recipe.lang:
        detail = pl.format("its language is {}", pl.col("lang").fill_null("unknown"))
        rules.append(Rule("language", "a language other than --lang", ~_has_language(recipe.lang), detail))
    if recipe.accepted_only:
        is_accepted = pl.col("accepted").fill_null(False)
        not_reviewed = pl.when(pl.col("accepted").is_null()).then(pl.lit("a message has no review result"))
        detail = not_reviewed.otherwise(pl.lit("a message was rejected in review"))
        rules.append(Rule("not_accepted", "a message rejected in review, or not reviewed", ~is_accepted, detail))
    return rules + _threshold_rules(recipe)


def _threshold_rules(recipe: Recipe) -> list[Rule]:
    thresholds: list[tuple[str, str, pl.Expr, Callable[[pl.Expr, float], pl.Expr]]] = [
        ("min_reviews", "too_few_reviews", pl.col("review_count"), pl.Expr.lt),
        ("min_turns", "too_few_turns", answer_count(), pl.Expr.lt),
        ("max_turns", "too_many_turns", answer_count(), pl.Expr.gt),
        ("min_chars", "too_short", char_count(), pl.Expr.lt),
        ("max_chars", "too_long", char_count(), pl.Expr.gt),
    ]
    for label in LABELS:
        if label in WANTED_LABELS:
            thresholds.append((f"min_{label}", f"low_{label}", pl.col(label), pl.Expr.lt))
        else:
            thresholds.append((f"max_{label}", f"high_{label}", pl.col(label), pl.Expr.gt))
    rules = []
    for option, name, value, is_beyond in thresholds:
        threshold = getattr(recipe, option)
        if threshold is not None:
            detail = pl.format(f"it has {{}}, and {flag(option)} is {threshold}", _rounded(value))
            condition = is_beyond(value, threshold).fill_null(False)  # a missing value passes every threshold
            rules.append(Rule(name, f"beyond {flag(option)}", condition, detail))
    return rules


def _rounded(value: pl.Expr) -> pl.Expr:
    return value.cast(pl.Float64).round(4).cast(pl.String).str.strip_suffix(".0")


def _is_blank(fields: Collection[str]) -> pl.Expr:
    """Return whether a message has no visible text; one that calls tools needs none, and a tool may return nothing."""
    is_blank = ~CONTENT.str.contains(VISIBLE_CHARACTER).fill_null(False)
    return is_blank & ~calls_tools(fields) & (ROLE != TOOL) if "tool_calls" in fields else is_blank


def _first_message(condition: pl.Expr) -> pl.Expr:
    """Return `message 3 of 4`: the first message for which `condition` holds, or `the tools` if none does."""
    holds = MESSAGES.list.eval(condition.fill_null(False))
    message = pl.format("message {} of {}", holds.list.arg_max() + 1, MESSAGES.list.len())
    return pl.when(holds.list.any()).then(message).otherwise(pl.lit("the tools"))


def _has_language(languages: Sequence[str]) -> pl.Expr:
    """Return whether `lang` is one of `languages`: `pt` matches `pt-BR`, and `pt-BR` matches only itself."""
    tag = pl.col("lang").str.replace_all("_", "-", literal=True).str.to_lowercase().fill_null("")
    wanted = [language.replace("_", "-").lower() for language in languages]
    primary = [language for language in wanted if "-" not in language]
    return tag.is_in(wanted) | tag.str.split("-").list.first().is_in(primary)


def _alternates() -> pl.Expr:
    """Return whether the roles are [system,] then user and assistant in turn, ending with the assistant.

    Results of tools, which are known to follow a call, belong to the assistant's turn, and the assistant continues it.
    """
    turns = f"{USER} {ASSISTANT}(?:(?: {TOOL})+ {ASSISTANT})*"
    return roles().list.join(" ").str.contains(f"^(?:{SYSTEM} )?(?:{turns} )*{turns}$")
