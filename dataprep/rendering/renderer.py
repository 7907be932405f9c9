"""Rendering of whole frames: by columns where the template allows it, row by row where it does not.

    renderer = Renderer(load_template("llama2"))
    refusals = renderer.refusals(conversations)        # row, detail: what cannot be rendered, to be taken out first
    for batch in renderer.batches(renderable):         # in order, without gaps
        batch.start, batch.text, batch.spans, batch.controls
    renderer.check_sample(renderable, seed=42)         # a handful both ways

`text` is a plain Arrow string array; `spans` and `controls` are lists of `start` and `end` in code points, int32.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.common.errors import TemplateError
from dataprep.rendering.columns import SPANS, TooLong, Turns, assemble, flat, shapes_of
from dataprep.rendering.plan import Plan, Planner, Refusal, RowByRow, Way
from dataprep.rendering.probe import require_sound, warnings
from dataprep.rendering.rows import Kept, Rendered, render_row
from dataprep.rendering.template import Template

BATCH_BYTES = 8 << 20  # of contents: large enough to pay for the gather, small enough to stay near the cores
WORKERS = 2
KEPT_BYTES = 64 << 20  # of rows rendered one by one, between `refusals` and `batches`
_MESSAGE_BYTES = 64  # what a message without words costs: its view, its numbers, its constants


@dataclass(frozen=True)
class Batch:
    """Rendered rows of a frame, from row `start` on."""

    start: int
    text: pa.Array
    spans: pa.Array
    controls: pa.Array


class Renderer:
    """A template, proved sound, with the plans of all shapes seen so far."""

    def __init__(self, template: Template) -> None:
        """Raises:
        TemplateError: the template does not end its answers, or refuses even the plainest conversation.
        """
        require_sound(template)
        self.template = template
        self.planner = Planner(template)
        self._kept = Kept(KEPT_BYTES)

    def warnings(self) -> list[str]:
        """What `dataprep templates check` warns of."""
        return warnings(self.template, self.planner)

    def refusals(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The conversations that cannot be rendered.

        Args:
            frame: needs `row` (unique) and `messages` (list<struct<role, content>>).
        Returns:
            A frame of `row` and `detail` (why, a sentence), in the order of `frame`.
        """
        told: dict[int, str] = {}
        for start, part in split(frame["messages"]):
            shape, ways, _ = self._plan(part)
            for number, way in enumerate(ways):
                if isinstance(way, Refusal):
                    told |= dict.fromkeys((np.flatnonzero(shape == number) + start).tolist(), way.detail)
            for at, out in self._by_rows(part, shape, ways):
                if isinstance(out, Rendered):
                    self._kept.keep(part[at].to_list(), out)
                else:
                    told[start + at] = str(out)
        places = sorted(told)
        return pl.DataFrame(
            {"row": frame["row"].gather(places), "detail": pl.Series([told[at] for at in places], dtype=pl.String)}
        )

    def batches(self, frame: pl.DataFrame) -> Iterator[Batch]:
        """All rows of `frame`, rendered, in batches of some tens of megabytes.

        Args:
            frame: needs `messages`; rows that `refusals` names must not be in it.
        Raises:
            TemplateError: a row that cannot be rendered, or whose text is longer than 2 GiB.
        """
        # Polars, Arrow and NumPy let go of Python's lock: one batch is rendered while another is written.
        with ThreadPoolExecutor(WORKERS) as pool:
            ahead: deque[Future[list[Batch]]] = deque()
            for start, part in split(frame["messages"]):
                ahead.append(pool.submit(self._render, start, part))
                if len(ahead) > WORKERS:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()

    def _render(self, start: int, messages: pl.Series) -> list[Batch]:
        try:
            return [Batch(start, *self._rendered(start, messages))]
        except TooLong:
            half = len(messages) // 2
            if not half:
                raise TemplateError(f"The text of row {start} would be longer than 2 GiB: leave it out.") from None
            return self._render(start, messages[:half]) + self._render(start + half, messages[half:])

    def _rendered(self, start: int, messages: pl.Series) -> tuple[pa.Array, pa.Array, pa.Array]:
        shape, ways, turns = self._plan(messages)
        rows = list(self._by_rows(messages, shape, ways))
        faults = [(at, str(out)) for at, out in rows if not isinstance(out, Rendered)]
        faults += [(int(np.argmax(shape == n)), way.detail) for n, way in enumerate(ways) if isinstance(way, Refusal)]
        if faults:
            raise TemplateError(f"Row {start + min(faults)[0]} cannot be rendered: {min(faults)[1]}")
        plans = [way for way in ways if isinstance(way, Plan)]
        plan_of = np.cumsum([isinstance(way, Plan) for way in ways])[shape] - 1
        planned = np.flatnonzero(np.array([isinstance(way, Plan) for way in ways])[shape])
        columns = assemble(turns, planned, plan_of[planned], plans)
        return columns if not rows else _interleaved(columns, planned, rows)

    def _plan(self, messages: pl.Series) -> tuple[np.ndarray, list[Way], Turns]:
        """Each conversation's shape by number, the shapes' ways, and what `assemble` wants."""
        turns = Turns.of(messages)
        shape, shapes = shapes_of(turns)
        return shape, [self.planner.way(one) for one in shapes], turns

    def _by_rows(
        self, messages: pl.Series, shape: np.ndarray, ways: Sequence[Way]
    ) -> Iterator[tuple[int, Rendered | TemplateError]]:
        """The conversations that have to go through Jinja by themselves, by their place in `messages`."""
        numbers = [number for number, way in enumerate(ways) if isinstance(way, RowByRow)]
        for at in np.flatnonzero(np.isin(shape, numbers)).tolist() if numbers else ():
            conversation = messages[at].to_list()
            try:
                yield at, self._kept.take(conversation) or render_row(self.template, conversation)
            except TemplateError as fault:
                yield at, fault

    def check_sample(self, frame: pl.DataFrame, seed: int, size: int = 16) -> None:
        """Render a seeded handful of rows by columns and through Jinja, and compare text, spans and controls.

        Raises:
            TemplateError: names the first row that differs; that would be a bug of ours.
        """
        chosen = np.random.default_rng(seed).permutation(frame.height)[:size]
        sample = frame[np.sort(chosen)]
        for batch in self.batches(sample):
            for at, found in enumerate(rendered_rows(batch), start=batch.start):
                if found != render_row(self.template, sample["messages"][at].to_list()):
                    raise TemplateError(
                        f"Row {int(np.sort(chosen)[at])} comes out differently by columns and through Jinja with the "
                        f"template {self.template.name}: please report it, with that conversation."
                    )


def rendered_rows(batch: Batch) -> list[Rendered]:
    """A batch row by row; for tests and samples."""
    spans, controls = (
        [[(place["start"], place["end"]) for place in places] for places in column.to_pylist()]
        for column in (batch.spans, batch.controls)
    )
    return [Rendered(*row) for row in zip(batch.text.to_pylist(), spans, controls, strict=True)]


def split(messages: pl.Series) -> Iterator[tuple[int, pl.Series]]:
    """`messages` in batches of about `BATCH_BYTES` of contents, each with the place of its first row."""
    if not len(messages):
        return
    offsets, _, contents = flat(messages)
    sizes = contents.str.len_bytes().fill_null(0).to_numpy().astype(np.int64) + _MESSAGE_BYTES
    ends = np.concatenate([[0], np.cumsum(sizes)])[offsets]
    # A batch ends with the row that takes the sum over a multiple of the limit.
    borders = np.flatnonzero(np.diff(ends[1:] // BATCH_BYTES)) + 1
    starts = [0, *borders.tolist()]
    for start, end in zip(starts, [*starts[1:], len(messages)], strict=True):
        yield start, messages[start:end]


def _interleaved(
    columns: tuple[pa.Array, pa.Array, pa.Array], planned: np.ndarray, rows: Sequence[tuple[int, Any]]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """The rows rendered by columns and those rendered one by one, in their order."""
    order = np.argsort(np.concatenate([planned, [at for at, _ in rows]]), kind="stable")
    own = (
        pa.array([row.text for _, row in rows], pa.string()),
        pa.array([_places(row.spans) for _, row in rows], SPANS),
        pa.array([_places(row.controls) for _, row in rows], SPANS),
    )
    text, spans, controls = (pa.concat_arrays(pair).take(pa.array(order)) for pair in zip(columns, own, strict=True))
    return text, spans, controls


def _places(found: Sequence[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"start": start, "end": end} for start, end in found]
