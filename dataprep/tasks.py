"""Tasks of a build that join several stages: plain functions without state between calls, run by an executor."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from dataprep.quality.facts import FactExtractor
from dataprep.rendering import Renderer
from dataprep.rendering.checks import TemplateChecks
from dataprep.rendering.renderer import batch_bounds
from dataprep.rendering.template import Template
from dataprep.store.splits import shard_batches


@dataclass(frozen=True)
class RenderTask:
    """Consecutive conversations of a split, from row `start` on, to be rendered and measured."""

    rows: pl.DataFrame  # CONVERSATIONS
    start: int
    split: str
    renderer: Renderer
    extractor: FactExtractor | None  # None: the gate is off

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that gets a task by pickle makes the renderer and the extractor anew, once for each template."""
        extractor = self.extractor
        with_facts = (extractor is not None, extractor.tokenizer if extractor else None)
        return _restored_task, (self.rows, self.start, self.split, self.renderer.template, *with_facts)


_TOOLS: dict[tuple[str, str, bool, str | None], tuple[Renderer, FactExtractor | None]] = {}


def _restored_task(
    rows: pl.DataFrame, start: int, split: str, template: Template, has_facts: bool, tokenizer: str | None
) -> RenderTask:
    key = (template.name, template.sha256, has_facts, tokenizer)
    if key not in _TOOLS:
        renderer = Renderer(template)
        _TOOLS[key] = renderer, FactExtractor(TemplateChecks(renderer), tokenizer) if has_facts else None
    return RenderTask(rows, start, split, *_TOOLS[key])


class RenderedRows(NamedTuple):
    """Batches of `contract.shard_schema`, and their facts (columns of `quality.facts.SCHEMA`) if the gate is on."""

    batches: list[pa.RecordBatch]
    facts: list[pl.DataFrame]


def render_tasks(
    frame: pl.DataFrame, split: str, renderer: Renderer, extractor: FactExtractor | None
) -> Generator[RenderTask]:
    """Cut the conversations of a split into tasks of some megabytes; the cuts depend on the conversations only."""
    for start, stop in pairwise(batch_bounds(frame)):
        yield RenderTask(frame[start:stop], start, split, renderer, extractor)


def render_rows(task: RenderTask) -> RenderedRows:
    """Render the conversations of a task, and compute their facts.

    Raises:
        TemplateError: a row cannot be rendered, or its text is longer than 2 GiB.
    """
    rendered = task.renderer.render_part(task.start, task.rows)
    batches = list(shard_batches(task.rows, rendered, task.start))
    facts = [task.extractor.batch(batch, task.split) for batch in batches] if task.extractor else []
    return RenderedRows(batches, facts)
