"""The report's funnel: each rule in plain words, with the first records that it removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from dataprep.common.conversation_funnel import RuleCount
from dataprep.report.texts import TextBudget
from dataprep.tables import KEPT

_EXAMPLES = 8  # records that are shown of a rule


def reasons(
    counts: Sequence[RuleCount], fates: pl.DataFrame, budget: TextBudget, conversations: int | None = None
) -> list[dict[str, Any]]:
    """Each rule with `examples` (id, source, line, detail and survivor of its first records) and `left`.

    Args:
        counts: of the funnel, in its order.
        fates: columns of `tables.FATES`.
        budget: of the page.
        conversations: before the first rule; None: the records are no conversations, and `left` is None.
    """
    example = pl.struct("id", "source", "line", "detail", "survivor").head(_EXAMPLES)
    removed = fates.filter(pl.col("fate") != KEPT).sort("row").group_by("stage", "rule").agg(example)
    first = {(stage, rule): examples for stage, rule, examples in removed.iter_rows()}
    shown = []
    for count in counts:
        conversations = None if conversations is None else conversations - count.count
        shown.append({**asdict(count), "left": conversations, "examples": first.get((count.stage, count.rule), [])})
    budget.clean_fields(
        (record for rule in shown for record in rule["examples"]), id=300, source=300, detail=700, survivor=300
    )
    return shown
