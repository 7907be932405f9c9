"""Renders whole frames: as columns where the template allows it, otherwise row by row.

    renderer = Renderer(load_template("llama2"))
    refusals = renderer.refusals(conversations)        # row, detail: the conversations that cannot be rendered
    for batch in renderer.batches(renderable):         # in order, without gaps
        batch.start, batch.text, batch.spans, batch.controls
    renderer.check_sample(renderable, seed=42)         # compares both ways of rendering on a few rows

`text` is a plain Arrow string array; `spans` and `controls` are lists of `start` and `end` in code points, int32.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.common.errors import TemplateError
from dataprep.rendering.columns import SPANS, BatchTooLong, FlatMessages, assemble, flatten, shapes_of
from dataprep.rendering.plan import Plan, Planner, Refusal, RenderStrategy, RowByRow
from dataprep.rendering.probe import require_trainable, warnings
from dataprep.rendering.rows import RenderCache, RenderedRow, render_row
from dataprep.rendering.template import Template

BATCH_BYTES = 8 << 20  # of contents: large enough for an efficient gather, small enough for the processor's caches
WORKERS = 2
CACHE_BYTES = 64 << 20  # of rows rendered one at a time, between `refusals` and `batches`
_MESSAGE_BYTES = 64  # the cost of a message without text: its view, its numbers, its constants

_Columns = tuple[pa.Array, pa.Array, pa.Array]  # text, spans, controls


@dataclass(frozen=True)
class Batch:
    """Consecutive rendered rows of a frame, from row `start` on."""

    start: int
    text: pa.Array
    spans: pa.Array
    controls: pa.Array


class Renderer:
    """Renders conversations with one template, and keeps the plans of all shapes."""

    def __init__(self, template: Template) -> None:
        """Raises:
        TemplateError: the template does not end its answers, or refuses even the simplest conversation.
        """
        require_trainable(template)
        self.template = template
        self.planner = Planner(template)
        self._cache = RenderCache(CACHE_BYTES)

    def warnings(self) -> list[str]:
        """The warnings of `dataprep templates check`."""
        return warnings(self.template, self.planner)

    def refusals(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Find the conversations that cannot be rendered.

        Args:
            frame: needs `row` (unique) and `messages` (list<struct<role, content>>).
        Returns:
            A frame of `row` and `detail` (the reason, a sentence), in the order of `frame`.
        """
        details: dict[int, str] = {}  # by position in `frame`
        for start, messages in split_into_batches(frame["messages"]):
            shape, strategies, _ = self._plan(messages)
            for number, strategy in enumerate(strategies):
                if isinstance(strategy, Refusal):
                    details |= dict.fromkeys((np.flatnonzero(shape == number) + start).tolist(), strategy.detail)
            for position, result in self._render_row_by_row(messages, shape, strategies):
                if isinstance(result, RenderedRow):
                    self._cache.put(messages[position].to_list(), result)
                else:
                    details[start + position] = str(result)
        positions = sorted(details)
        texts = pl.Series([details[position] for position in positions], dtype=pl.String)
        return pl.DataFrame({"row": frame["row"].gather(positions), "detail": texts})

    def batches(self, frame: pl.DataFrame) -> Iterator[Batch]:
        """Render all rows of `frame`, in batches of some tens of megabytes.

        Args:
            frame: needs `messages`, without the rows that `refusals` names.
        Raises:
            TemplateError: a row cannot be rendered, or its text is longer than 2 GiB.
        """
        # Polars, Arrow and NumPy release the GIL, so batches are rendered while the caller writes an earlier one.
        with ThreadPoolExecutor(WORKERS) as pool:
            pending: deque[Future[list[Batch]]] = deque()
            for start, messages in split_into_batches(frame["messages"]):
                pending.append(pool.submit(self._render, start, messages))
                if len(pending) > WORKERS:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()

    def _render(self, start: int, messages: pl.Series) -> list[Batch]:
        try:
            return [Batch(start, *self._render_columns(start, messages))]
        except BatchTooLong:
            half = len(messages) // 2
            if not half:
                raise TemplateError(f"The text of row {start} would be longer than 2 GiB: remove that row.") from None
            return self._render(start, messages[:half]) + self._render(start + half, messages[half:])

    def _render_columns(self, start: int, messages: pl.Series) -> _Columns:
        shape, strategies, flat = self._plan(messages)
        rows: list[tuple[int, RenderedRow]] = []
        errors = [
            (int(np.argmax(shape == number)), strategy.detail)
            for number, strategy in enumerate(strategies)
            if isinstance(strategy, Refusal)
        ]
        for position, result in self._render_row_by_row(messages, shape, strategies):
            if isinstance(result, RenderedRow):
                rows.append((position, result))
            else:
                errors.append((position, str(result)))
        if errors:
            position, detail = min(errors)
            raise TemplateError(f"Row {start + position} cannot be rendered: {detail}")
        has_plan = np.array([isinstance(strategy, Plan) for strategy in strategies])
        plans = [strategy for strategy in strategies if isinstance(strategy, Plan)]
        plan_of = np.cumsum(has_plan)[shape] - 1
        planned = np.flatnonzero(has_plan[shape])
        columns = assemble(flat, planned, plan_of[planned], plans)
        return columns if not rows else _interleave(columns, planned, rows)

    def _plan(self, messages: pl.Series) -> tuple[np.ndarray, list[RenderStrategy], FlatMessages]:
        """The index of each conversation's shape, the strategy of each shape, and the messages for `assemble`."""
        flat = FlatMessages.of(messages)
        shape, shapes = shapes_of(flat)
        return shape, [self.planner.strategy(one_shape) for one_shape in shapes], flat

    def _render_row_by_row(
        self, messages: pl.Series, shape: np.ndarray, strategies: Sequence[RenderStrategy]
    ) -> Iterator[tuple[int, RenderedRow | TemplateError]]:
        """The results of the conversations that are rendered one at a time, by their position in `messages`."""
        numbers = [number for number, strategy in enumerate(strategies) if isinstance(strategy, RowByRow)]
        for position in np.flatnonzero(np.isin(shape, numbers)).tolist() if numbers else ():
            conversation = messages[position].to_list()
            try:
                yield position, self._cache.pop(conversation) or render_row(self.template, conversation)
            except TemplateError as error:
                yield position, error

    def check_sample(self, frame: pl.DataFrame, seed: int, size: int = 16) -> None:
        """Render a random sample by columns and through Jinja, and compare text, spans and controls.

        Raises:
            TemplateError: names the first row that differs; that would be a bug of dataprep.
        """
        chosen = np.sort(np.random.default_rng(seed).permutation(frame.height)[:size])
        sample = frame[chosen]
        for batch in self.batches(sample):
            for position, row in enumerate(rendered_rows(batch), start=batch.start):
                if row != render_row(self.template, sample["messages"][position].to_list()):
                    raise TemplateError(
                        f"Row {int(chosen[position])} comes out differently by columns and through Jinja with the "
                        f"template {self.template.name}: please report this, with the conversation."
                    )


def rendered_rows(batch: Batch) -> list[RenderedRow]:
    """The rows of a batch, for tests and samples."""
    spans, controls = (
        [[(item["start"], item["end"]) for item in ranges] for ranges in column.to_pylist()]
        for column in (batch.spans, batch.controls)
    )
    return [RenderedRow(*row) for row in zip(batch.text.to_pylist(), spans, controls, strict=True)]


def split_into_batches(messages: pl.Series) -> Iterator[tuple[int, pl.Series]]:
    """Split `messages` into batches of about `BATCH_BYTES` of contents, each with the index of its first row."""
    if not len(messages):
        return
    offsets, _, contents = flatten(messages)
    sizes = contents.str.len_bytes().fill_null(0).to_numpy().astype(np.int64) + _MESSAGE_BYTES
    ends = np.concatenate([[0], np.cumsum(sizes)])[offsets]
    # A batch ends with the row whose end passes a multiple of the limit.
    borders = np.flatnonzero(np.diff(ends[1:] // BATCH_BYTES)) + 1
    starts = [0, *borders.tolist()]
    for start, end in zip(starts, [*starts[1:], len(messages)], strict=True):
        yield start, messages[start:end]


def _interleave(columns: _Columns, planned: np.ndarray, rows: Sequence[tuple[int, RenderedRow]]) -> _Columns:
    """Merge the rows rendered by columns with those rendered one at a time, in their original order."""
    order = np.argsort(np.concatenate([planned, [position for position, _ in rows]]), kind="stable")
    single = (
        pa.array([row.text for _, row in rows], pa.string()),
        pa.array([_as_structs(row.spans) for _, row in rows], SPANS),
        pa.array([_as_structs(row.controls) for _, row in rows], SPANS),
    )
    text, spans, controls = (pa.concat_arrays(pair).take(pa.array(order)) for pair in zip(columns, single, strict=True))
    return text, spans, controls


def _as_structs(ranges: Sequence[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"start": start, "end": end} for start, end in ranges]
