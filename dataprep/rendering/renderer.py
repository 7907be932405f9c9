"""Renders whole frames: as columns where the template allows it, otherwise row by row.

    renderer = Renderer(load_template("llama2"))
    refusals = renderer.refusals(conversations)        # row, rule, detail: the conversations that cannot be rendered
    for batch in renderer.batches(renderable):         # in order, without gaps
        batch.start, batch.text, batch.spans, batch.controls
    renderer.check_sample(renderable, seed=42)         # compares both ways of rendering on a few rows

`text` is a plain Arrow string array; `spans` and `controls` are lists of `start` and `end` in code points, int32.
Frames need `messages`, with any of the fields of `tables.MESSAGE_FIELDS`, and may have `tools`. Conversations with tools,
or with a field besides role, content and trained, are rendered row by row.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import partial
from itertools import chain, pairwise
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.common.errors import TemplateError
from dataprep.rendering.columns import (
    SPANS,
    BatchTooLong,
    FlatMessages,
    assemble,
    flatten,
    has_further_fields,
    shapes_of,
)
from dataprep.rendering.isolation import TemplateStopped, map_isolated
from dataprep.rendering.plan import Plan, Planner, Refusal, RenderStrategy, RowByRow, shape_problem
from dataprep.rendering.probe import Capabilities, capabilities, require_trainable, warnings
from dataprep.rendering.rows import (
    RenderCache,
    RenderedRow,
    UnsupportedField,
    Unwritten,
    conversation_digest,
    render_row,
    render_rows,
)
from dataprep.rendering.template import Template

BATCH_BYTES = 8 << 20  # of contents: large enough for an efficient gather, small enough for the processor's caches
SIZED_ROWS = 1 << 16  # conversations whose sizes are computed at a time
WORKERS = 2
CHUNK_MESSAGES = 256  # rendered one by one in one call of a worker
CACHE_BYTES = 64 << 20  # of rows rendered one at a time, between `refusals` and `batches`
REMEMBERED_ROWS = 200_000  # counts of what rows leave out, about 150 bytes each
TEMPLATE_REFUSED = "template_refused"  # a rule of the fates
_MESSAGE_BYTES = 64  # the cost of a message without text: its view, its numbers, its constants

Result = TypeVar("Result")
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
        self._unwritten: dict[bytes, Unwritten] = {}

    def warnings(self) -> list[str]:
        """The warnings of `dataprep templates check`."""
        return warnings(self.template)

    @functools.cached_property
    def capabilities(self) -> Capabilities:
        """Which optional parts of a conversation the template writes."""
        return capabilities(self.template)

    def refusals(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Find the conversations that cannot be rendered.

        Args:
            frame: needs `row` (unique) and `messages`.
        Returns:
            A frame of `row`, `rule` (`template_refused`, `tools_not_in_template` or `reasoning_not_in_template`) and
            `detail` (the reason, a sentence), in the order of `frame`.
        """
        refused: dict[int, tuple[str, str]] = {}  # by position in `frame`
        for start, part, planned in _on_threads(lambda _, part: self._plan(part), frame):
            for number, strategy in enumerate(planned.strategies):
                if isinstance(strategy, Refusal):
                    positions = (np.flatnonzero(planned.strategy_of == number) + start).tolist()
                    refused |= dict.fromkeys(positions, (TEMPLATE_REFUSED, strategy.detail))
            for position, result in self._render_row_by_row(part, planned):
                if isinstance(result, RenderedRow):
                    self._cache.put(*_conversation(part, position), result)
                else:
                    rule = result.rule if isinstance(result, UnsupportedField) else TEMPLATE_REFUSED
                    refused[start + position] = rule, str(result)
        positions = sorted(refused)
        rules, details = (
            pl.Series([refused[position][index] for position in positions], dtype=pl.String) for index in (0, 1)
        )
        return pl.DataFrame({"row": frame["row"].gather(positions), "rule": rules, "detail": details})

    def batches(self, frame: pl.DataFrame) -> Iterator[Batch]:
        """Render all rows of `frame`, in batches of some tens of megabytes.

        Args:
            frame: needs `messages`, without the rows that `refusals` names.
        Raises:
            TemplateError: a row cannot be rendered, or its text is longer than 2 GiB.
        """
        for _, _, batches in _on_threads(self.render_part, frame):
            yield from batches

    def unwritten(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Count what the template leaves out of each conversation.

        Args:
            frame: needs `messages`, without the rows that `refusals` names.
        Returns:
            A frame of `unwritten_system` and `unwritten_messages` (messages whose text is not whole in the rendering,
            except for white space at its ends) and `unwritten_reasoning` (the same of answers' reasoning); integers.
        """
        counts = np.zeros((frame.height, 3), np.int64)
        for start, part in split_into_batches(frame):
            planned = self._plan(part)
            for number, strategy in enumerate(planned.strategies):
                if isinstance(strategy, Plan) and strategy.unwritten != Unwritten():
                    rows = np.flatnonzero(planned.strategy_of == number) + start
                    counts[rows] = astuple(strategy.unwritten)
            for position in planned.row_by_row():
                digest = conversation_digest(*_conversation(part, position))
                if digest not in self._unwritten:
                    self._remember(digest, render_row(self.template, *_conversation(part, position)))
                counts[start + position] = astuple(self._unwritten[digest])
        return pl.DataFrame(
            {f"unwritten_{item.name}": counts[:, index] for index, item in enumerate(fields(Unwritten))}
        )

    def _remember(self, digest: bytes, row: RenderedRow) -> None:
        """Keep the counts of a row for `unwritten`, which asks for a batch soon after it was rendered."""
        if len(self._unwritten) >= REMEMBERED_ROWS:
            self._unwritten.pop(next(iter(self._unwritten)), None)
        self._unwritten[digest] = row.unwritten

    def render_part(self, start: int, part: pl.DataFrame) -> list[Batch]:
        """Render the rows of a part, of which the first is row `start`: one batch, or more if its text exceeds 2 GiB.

        Raises:
            TemplateError: a row cannot be rendered.
        """
        try:
            return [Batch(start, *self._render_columns(start, part))]
        except BatchTooLong:
            half = part.height // 2
            if not half:
                raise TemplateError(f"The text of row {start} would be longer than 2 GiB: remove that row.") from None
            return self.render_part(start, part[:half]) + self.render_part(start + half, part[half:])

    def _render_columns(self, start: int, part: pl.DataFrame) -> _Columns:
        planned = self._plan(part)
        rows: list[tuple[int, RenderedRow]] = []
        errors = [
            (int(np.argmax(planned.strategy_of == number)), strategy.detail)
            for number, strategy in enumerate(planned.strategies)
            if isinstance(strategy, Refusal) and (planned.strategy_of == number).any()
        ]
        for position, result in self._render_row_by_row(part, planned):
            if isinstance(result, RenderedRow):
                rows.append((position, result))
                self._remember(conversation_digest(*_conversation(part, position)), result)
            else:
                errors.append((position, str(result)))
        if errors:
            position, detail = min(errors)
            raise TemplateError(f"Row {start + position} cannot be rendered: {detail}")
        has_plan = np.array([isinstance(strategy, Plan) for strategy in planned.strategies])
        plans = [strategy for strategy in planned.strategies if isinstance(strategy, Plan)]
        plan_of = np.cumsum(has_plan)[planned.strategy_of] - 1
        by_columns = np.flatnonzero(has_plan[planned.strategy_of])
        columns = assemble(planned.messages, by_columns, plan_of[by_columns], plans)
        return columns if not rows else _interleave(columns, by_columns, rows)

    def _plan(self, part: pl.DataFrame) -> _PlannedBatch:
        messages, tools = part["messages"], part["tools"] if "tools" in part.columns else None
        flat = FlatMessages.of(messages)
        strategy_of, shapes = shapes_of(flat)
        strategies = [self.planner.strategy(shape) for shape in shapes]
        further = has_further_fields(messages, tools)
        if further.any():
            unusable = np.array([shape_problem(self.template, shape) is not None for shape in shapes])
            further &= ~unusable[strategy_of]
            strategy_of = np.where(further, len(strategies), strategy_of)
            strategies.append(RowByRow("has messages with further fields"))
        return _PlannedBatch(flat, strategy_of, strategies)

    def _render_row_by_row(
        self, part: pl.DataFrame, planned: _PlannedBatch
    ) -> Iterator[tuple[int, RenderedRow | TemplateError]]:
        """The results of the conversations that are rendered one at a time, by their position in `part`."""
        results: dict[int, RenderedRow | TemplateError] = {}
        uncached: list[tuple[int, tuple[list[dict[str, Any]], str | None]]] = []
        for position in planned.row_by_row():
            conversation = _conversation(part, position)
            row = self._cache.pop(*conversation)
            if row is not None:
                results[position] = row
                continue
            try:
                self.capabilities.require(self.template, *conversation)
                uncached.append((position, conversation))
            except TemplateStopped:
                raise
            except TemplateError as error:
                results[position] = error
        chunks = list(_chunks([conversation for _, conversation in uncached]))
        rows = chain.from_iterable(map_isolated(partial(render_rows, self.template), self.template, chunks))
        results |= zip([position for position, _ in uncached], rows, strict=True)
        yield from sorted(results.items(), key=itemgetter(0))

    def check_sample(self, frame: pl.DataFrame, seed: int, size: int = 16) -> None:
        """Render a random sample by columns and through Jinja, and compare text, spans and controls.

        Raises:
            TemplateError: names the first row that differs; that would be a bug of dataprep.
        """
        chosen = np.sort(np.random.default_rng(seed).permutation(frame.height)[:size])
        sample = frame[chosen]
        for batch in self.batches(sample):
            for position, row in enumerate(rendered_rows(batch), start=batch.start):
                if row != render_row(self.template, *_conversation(sample, position)):
                    raise TemplateError(
                        f"Row {int(chosen[position])} comes out differently by columns and through Jinja with the "
                        f"template {self.template.name}: please report this, with the conversation."
                    )


@dataclass(frozen=True)
class _PlannedBatch:
    """The messages of a batch, and how each of its conversations is rendered: with strategies[strategy_of[i]]."""

    messages: FlatMessages
    strategy_of: np.ndarray
    strategies: list[RenderStrategy]

    def row_by_row(self) -> list[int]:
        """The positions of the conversations that are rendered one at a time."""
        numbers = [number for number, strategy in enumerate(self.strategies) if isinstance(strategy, RowByRow)]
        return np.flatnonzero(np.isin(self.strategy_of, numbers)).tolist() if numbers else []


def _chunks(
    conversations: Sequence[tuple[list[dict[str, Any]], str | None]],
) -> Iterator[Sequence[tuple[list[dict[str, Any]], str | None]]]:
    """Split conversations into chunks for one call of a worker: of a few hundred messages, so that its limits are far."""
    start, messages = 0, 0
    for end, (turns, _) in enumerate(conversations):
        if end > start and messages + len(turns) > CHUNK_MESSAGES:
            yield conversations[start:end]
            start, messages = end, 0
        messages += len(turns)
    if conversations:
        yield conversations[start:]


def _conversation(part: pl.DataFrame, position: int) -> tuple[list[dict[str, Any]], str | None]:
    """The messages and the tools of one conversation."""
    return part["messages"][position].to_list(), part["tools"][position] if "tools" in part.columns else None


def rendered_rows(batch: Batch) -> list[RenderedRow]:
    """The rows of a batch, for tests and samples."""
    spans, controls = (
        [[(item["start"], item["end"]) for item in ranges] for ranges in column.to_pylist()]
        for column in (batch.spans, batch.controls)
    )
    return [RenderedRow(*row) for row in zip(batch.text.to_pylist(), spans, controls, strict=True)]


def split_into_batches(frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """Split a frame into batches of about `BATCH_BYTES` of contents, each with the index of its first row.

    Batches have the columns `messages` and `tools`, if there are tools.
    """
    bounds = batch_bounds(frame)
    wanted = frame.select(name for name in ("messages", "tools") if name in frame.columns)
    for start, end in pairwise(bounds):
        yield start, wanted[start:end]


def _on_threads(
    function: Callable[[int, pl.DataFrame], Result], frame: pl.DataFrame
) -> Iterator[tuple[int, pl.DataFrame, Result]]:
    """Yield each batch of a frame (see `split_into_batches`) with `function(start, batch)`, a few of them ahead.

    Polars, Arrow and NumPy release the GIL, so batches are computed while the caller works on an earlier one.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        pending: deque[tuple[int, pl.DataFrame, Future[Result]]] = deque()
        for start, part in split_into_batches(frame):
            pending.append((start, part, pool.submit(function, start, part)))
            if len(pending) > WORKERS:
                first, batch, future = pending.popleft()
                yield first, batch, future.result()
        for first, batch, future in pending:
            yield first, batch, future.result()


def batch_bounds(frame: pl.DataFrame) -> list[int]:
    """Return the rows at which batches of about `BATCH_BYTES` of contents begin, and the number of rows at the end."""
    if frame.is_empty():
        return [0]
    ends = []
    for part in frame.select("messages").iter_slices(SIZED_ROWS):
        offsets, fields_of_messages = flatten(part["messages"])
        sizes = fields_of_messages["content"].str.len_bytes().fill_null(0).to_numpy().astype(np.int64) + _MESSAGE_BYTES
        ends.append(np.diff(np.concatenate([[0], np.cumsum(sizes)])[offsets]))
    # A batch ends with the row whose end passes a multiple of the limit.
    borders = np.flatnonzero(np.diff(np.cumsum(np.concatenate(ends)) // BATCH_BYTES)) + 1
    return [0, *borders.tolist(), frame.height]


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
