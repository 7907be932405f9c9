"""Tasks of a build that join several stages: plain functions without state between calls, run by an executor."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from dataprep.quality.facts import FactExtractor, to_arrow
from dataprep.rendering import Renderer
from dataprep.rendering.checks import TemplateChecks
from dataprep.rendering.renderer import batch_bounds
from dataprep.rendering.template import Template
from dataprep.report.collected import row_numbers
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
        extractor = (self.extractor.tokenizer, self.extractor.columns) if self.extractor else None
        return _restored_task, (self.rows, self.start, self.split, self.renderer.template, extractor)


_Tools = tuple[Renderer, FactExtractor | None]
_TOOLS: dict[tuple[str, str, Any], _Tools] = {}


def _restored_task(
    rows: pl.DataFrame, start: int, split: str, template: Template, extractor: tuple[str | None, Sequence[str]] | None
) -> RenderTask:
    key = (template.name, template.sha256, extractor)
    if key not in _TOOLS:
        renderer = Renderer(template)
        _TOOLS[key] = renderer, FactExtractor(TemplateChecks(renderer), *extractor) if extractor else None
    return RenderTask(rows, start, split, *_TOOLS[key])


class RenderedBatch(NamedTuple):
    """A batch of `contract.shard_schema`, its numbers for the report, and the facts that the gate wants, if it is on."""

    rows: pa.RecordBatch
    numbers: pl.DataFrame
    facts: pa.Table | None


def render_tasks(
    frame: pl.DataFrame, split: str, renderer: Renderer, extractor: FactExtractor | None
) -> Generator[RenderTask]:
    """Cut the conversations of a split into tasks of some megabytes; the cuts depend on the conversations only."""
    for start, stop in pairwise(batch_bounds(frame)):
        yield RenderTask(frame[start:stop], start, split, renderer, extractor)


def render_rows(task: RenderTask) -> list[RenderedBatch]:
    """Render the conversations of a task, and compute their numbers and facts: one batch, or more above 2 GiB of text.

    Raises:
        TemplateError: a row cannot be rendered, or its text is longer than 2 GiB.
    """
    rendered = task.renderer.render_part(task.start, task.rows)
    return [_measured(rows, task) for rows in shard_batches(task.rows, rendered, task.start)]


def _measured(rows: pa.RecordBatch, task: RenderTask) -> RenderedBatch:
    facts = to_arrow(task.extractor.batch(rows, task.split)) if task.extractor else None
    return RenderedBatch(rows, row_numbers(rows), facts)
