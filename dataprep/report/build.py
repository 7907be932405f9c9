"""What a build's report shows: aggregates over all rows, and a seeded sample of conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.card import rebuild_command
from dataprep.config import flag
from dataprep.conversations import DROPPED
from dataprep.personal import masked
from dataprep.report import charts
from dataprep.report.page import page, percent

REPORT_FILE = "report.html"

SHOWN = 200  # conversations to browse
_SAMPLE_CHARS = 1_200_000  # code points of these together: the page stays below 5 MB
_TEXT_CHARS = 6_000  # code points of one of them
_EXAMPLES, _PAIRS, _LANGUAGES, _DETAIL = 3, 12, 12, 240
_LENGTHS = [0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000]
_BUCKETS = (("short", 1_000), ("medium", 4_000), ("long", None))

Clean = Callable[[str], str]


class Shown:
    """What a report shows of a build's rows, taken as they pass by: numbers of all, and a seeded sample of them."""

    def __init__(self, rows: int, seed: int) -> None:
        """`rows` in all will be seen."""
        self._drawn = np.sort(np.random.default_rng(seed).choice(rows, min(SHOWN, rows), replace=False))
        self._numbers: list[pl.DataFrame] = []
        self._passed: dict[str, int] = {}  # rows of each split
        self.sample: list[tuple[str, int, dict[str, Any]]] = []  # split, row in it, the row

    @classmethod
    def of(cls, tables: Mapping[str, pa.Table], seed: int) -> Shown:
        """Of whole splits."""
        shown = cls(sum(table.num_rows for table in tables.values()), seed)
        for split, table in tables.items():
            for batch in table.to_batches():
                shown.see(batch, split)
        return shown

    def see(self, batch: pa.RecordBatch, split: str) -> None:
        """Take what is needed from the next rows (`contract.SHARD_SCHEMA`) of `split`."""
        before, row = sum(self._passed.values()), self._passed.get(split, 0)
        inside = self._drawn[(self._drawn >= before) & (self._drawn < before + batch.num_rows)] - before
        for at in inside.tolist():  # a few of them
            self.sample.append((split, row + at, batch.slice(at, 1).to_pylist()[0]))
        self._passed[split] = row + batch.num_rows
        self._numbers.append(_measured(batch))

    @property
    def numbers(self) -> pl.DataFrame:
        """answers, chars, trained: of each row the answers, and code points of its text in all and trained."""
        return pl.concat(self._numbers)


def _measured(batch: pa.RecordBatch) -> pl.DataFrame:
    place = pl.element().struct
    spans = pl.col("spans").list
    covered = spans.eval(place.field("end") - place.field("start")).list.sum()
    wanted = {"answers": spans.len(), "chars": pl.col("text").str.len_chars(), "trained": covered}
    return pl.DataFrame(batch.select(["text", "spans"])).select(**wanted)


def build_report(
    manifest: Mapping[str, Any],
    shown: Shown,
    fates: pl.DataFrame,
    pairs: pl.DataFrame | None,
    quality: Mapping[str, Any],
    show_personal_data: bool = False,
) -> str:
    """The report as HTML.

    Args:
        manifest: the build's facts.
        shown: what is needed of the rows.
        fates: columns of `conversations.FATES`.
        pairs: near-duplicates with both texts, columns of `build.duplicate_pairs`; None where there are none.
        quality: what quality.json holds.
        show_personal_data: leave e-mail addresses, keys, card and phone numbers in the texts.
    """
    clean: Clean = str if show_personal_data else masked
    numbers = shown.numbers
    return page(
        "report.html.jinja",
        {
            "manifest": manifest,
            "quality": quality,
            "failing": sum(not check["passed"] for check in quality["checks"]),
            "trained": float(numbers["trained"].sum()) / max(int(numbers["chars"].sum()), 1),
            "median": int(numbers.select(pl.col("chars").median().fill_null(0)).item()),
            "charts": _charts(numbers, manifest),
            "funnel": _funnel(manifest["funnel"]),
            "rules": _rules(fates, clean),
            "pairs": _pairs(pairs, clean),
            "clusters": _clusters(fates),
            **_near(manifest.get("near_dup") or {}),
            "sample": _sample(shown, clean),
            "languages": sorted(manifest["languages"]),
            "buckets": [name for name, _ in _BUCKETS],
            "recipe": [
                (flag(key), value) for key, value in manifest["recipe"].items() if value not in (None, [], False)
            ],
            "rebuild": rebuild_command(manifest["recipe"], manifest["name"]),
            "masked": not show_personal_data,
        },
    )


def _charts(numbers: pl.DataFrame, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Charts, each with the numbers that it draws."""
    answers = numbers["answers"].clip(upper_bound=10).value_counts().sort("answers").rows()
    lengths = np.histogram(numbers["chars"].to_numpy(), [*_LENGTHS, np.inf])[0].tolist()
    share = (numbers["trained"] / numbers["chars"]).fill_nan(0).to_numpy()
    shares = np.histogram(share, np.linspace(0, 1, 11))[0].tolist()
    languages = sorted(manifest["languages"].items(), key=lambda item: -item[1])
    rest = sum(count for _, count in languages[_LANGUAGES:])
    top = languages[:_LANGUAGES] + ([("other", rest)] if rest else [])
    drawn: list[tuple[str, str, list[tuple[str, int]]]] = [
        ("Answers in a conversation", "answers", [("10+" if n == 10 else str(n), count) for n, count in answers]),
        ("Length", "characters of the rendered text, up to", list(zip(_length_names(), lengths, strict=True))),
        ("Trained share", "percent of the characters, up to", [(f"{10 * n + 10}", c) for n, c in enumerate(shares)]),
    ]
    made = [{"title": t, "unit": unit, "rows": rows, "svg": charts.columns(rows)} for t, unit, rows in drawn]
    return [*made, {"title": "Languages", "unit": "conversations", "rows": top, "svg": charts.bars(top)}]


def _length_names() -> list[str]:
    return [f"{n / 1000:g}k" if n >= 1000 else str(n) for n in _LENGTHS[1:]] + ["more"]


def _funnel(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stages with `width`, the share of all records that leave them."""
    total = max(stages[0]["in"], 1) if stages else 1
    return [{**stage, "width": 100 * stage["out"] / total} for stage in stages]


def _rules(fates: pl.DataFrame, clean: Clean) -> list[dict[str, Any]]:
    """Rules that dropped something, the most frequent first, each with its first records; not the parts of conversations."""
    dropped = fates.filter((pl.col("fate") == DROPPED) & (pl.col("rule") != "on_path"))
    first = (
        dropped.sort("row")
        .group_by("stage", "rule")
        .agg(
            count=pl.len(),
            examples=pl.struct("id", "source", "line", "detail", "survivor", "similarity").head(_EXAMPLES),
        )
    )
    rows = first.sort("count", "rule", descending=[True, False]).to_dicts()
    for row in rows:
        for example in row["examples"]:
            example["detail"] = _short(clean(example["detail"] or ""), _DETAIL)
            example["id"] = clean(example["id"] or "without id")
    return rows


def _pairs(pairs: pl.DataFrame | None, clean: Clean) -> list[dict[str, Any]]:
    """Near-duplicates with both texts, the least alike first: these are the ones to look at."""
    if pairs is None or pairs.is_empty():
        return []
    found = pairs.sort("similarity", "id").head(_PAIRS).to_dicts()
    for pair in found:
        for side in ("messages", "survivor_messages"):
            text = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in pair[side] or [])
            pair[side] = _short(clean(text), 1_500)
    return found


def _clusters(fates: pl.DataFrame) -> dict[str, int]:
    """How many conversations stand for others, how many these are, and the largest group."""
    duplicates = fates.filter(pl.col("survivor").is_not_null() & (pl.col("kind") == "conversation"))
    groups = duplicates.group_by("survivor").len()
    members, largest = groups.select(members=pl.col("len").sum(), largest=pl.col("len").max().fill_null(0) + 1).row(0)
    return {"count": groups.height, "members": members, "largest": largest}


def _near(found: Mapping[str, Any]) -> dict[str, Any]:
    """`near`: what was done against near-duplicates; `near_tables`: the error budget that was measured for it."""
    told = [
        (key, value) for key, value in found.items() if isinstance(value, str | int | float) and key != "max_memory"
    ]
    budget = found.get("error_budget") or {}
    recall = [
        {
            "similarity": f"{band['low']:g} to {band['high']:g}",
            "pairs planted": band["planted"],
            "found": band["found"],
            "recall": percent(band["found"] / band["planted"] if band["planted"] else None),
        }
        for band in budget.get("recall", [])
    ]
    return {"near": told, "near_tables": {"measured_error_budget": recall} if recall else {}}


def _sample(shown: Shown, clean: Clean) -> list[dict[str, Any]]:
    """The conversations to browse, each text in segments, as far as there is room."""
    told, room = [], _SAMPLE_CHARS
    for split, row, record in shown.sample:
        if room > 0:
            told.append(_conversation(record, split, row, min(_TEXT_CHARS, room), clean))
            room -= len(record["text"][:_TEXT_CHARS])
    return told


def _conversation(record: Mapping[str, Any], split: str, row: int, room: int, clean: Clean) -> dict[str, Any]:
    text, spans, controls = record["text"], record["spans"], record["controls"]
    trained = sum(span["end"] - span["start"] for span in spans)
    question = next((turn["content"] for turn in record["messages"] if turn["role"] == "user"), "")
    length = next(name for name, bound in _BUCKETS if bound is None or len(text) <= bound)
    return {
        "id": record["id"],
        "split": split,
        "row": row,
        "lang": record["lang"] or "unknown",
        "length": length,
        "chars": len(text),
        "answers": len(spans),
        "trained": trained / max(len(text), 1),
        "title": _short(clean(" ".join(question[:1_000].split())), 140),
        "segments": _segments(text, spans, controls, room, clean),
        "hidden": max(len(text) - room, 0),
    }


def _segments(
    text: str, spans: Sequence[Mapping[str, int]], controls: Sequence[Mapping[str, int]], room: int, clean: Clean
) -> list[dict[str, Any]]:
    """The first `room` code points in pieces: `text`, `trained`, `control`."""
    cuts = {0, min(len(text), room), *(edge for part in (*spans, *controls) for edge in (part["start"], part["end"]))}
    edges = sorted(cut for cut in cuts if cut <= room)
    starts = {control["start"] for control in controls}
    pieces = []
    for start, end in zip(edges, edges[1:], strict=False):
        trained = any(span["start"] <= start < span["end"] for span in spans)
        pieces.append({"text": clean(text[start:end]), "trained": trained, "control": start in starts})
    return pieces


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else text[:room] + " …"
