"""Splits of the sources: which files and rows are training data, and which are held out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from dataprep.sources.rows import REJECTS

TRAIN = "train"
OTHER_SPLIT = "other_split"
# Synonyms for the names of splits, as `datasets` has them; the first is the standard name.
_SYNONYMS = (
    ("train", "training"),
    ("validation", "valid", "dev", "val"),
    ("test", "testing", "eval", "evaluation"),
)


def standard_name(split: str) -> str:
    """Return the standard name of a split; other names stay as they are."""
    return next((names[0] for names in _SYNONYMS if split.lower() in names), split)


def is_of_split(path: str, split: str) -> bool:
    """Whether a path contains `split` or a synonym as a word: `data/train-00000-of-00001.parquet`."""
    words = set(re.split(r"[^a-z0-9]+", path.lower()))
    return bool(words & set(next((names for names in _SYNONYMS if split.lower() in names), (split.lower(),))))


def split_of(path: str) -> str:
    """Return the split that a path names: the standard name of its last word that is one; empty if there is none.

    The name of the file decides before those of its folders.
    """
    for part in reversed(path.split("/")):
        for word in re.split(r"[^a-z0-9]+", part.lower()):
            if any(word in names for names in _SYNONYMS):
                return standard_name(word)
    return ""


def held_out_rows(frame: pl.DataFrame, split: str, stated_split: bool, keep: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split off the rows whose own `split` is not training data; return the others, and rejects.

    Args:
        frame: conversations, with a column `split` if any record states one.
        split: of the file; empty if it has none.
        stated_split: whether the user named the split of the file, so that all of its rows are wanted.
        keep: keep all rows, each with its split in the column `split`.
    """
    no_rejects = pl.DataFrame(schema=REJECTS)
    own = pl.col("split") if "split" in frame.columns else pl.lit(None, pl.String)
    if keep:
        standard = {word: names[0] for names in _SYNONYMS for word in names}
        name = pl.coalesce(own, pl.lit(split or TRAIN))
        name = name.str.to_lowercase().replace_strict(standard, default=name)
        return frame.with_columns(split=name), no_rejects
    if "split" not in frame.columns:
        return frame, no_rejects
    if stated_split:
        return frame.drop("split"), no_rejects
    held_out = own.str.to_lowercase().is_in([word for names in _SYNONYMS[1:] for word in names]).fill_null(False)
    lost = frame.filter(held_out).select(
        "line",
        "id",
        pl.lit("line").alias("kind"),
        pl.lit(OTHER_SPLIT).alias("rule"),
        pl.format("belongs to the split '{}', which is not trained: --split keep holds it out", own).alias("detail"),
    )
    return frame.filter(~held_out).drop("split"), lost


def left_out_note(source: str, names: Sequence[str]) -> str:
    """Say which files of a source are not read because they belong to other splits than the training split."""
    splits = sorted({split_of(name) for name in names if split_of(name)})
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    if not splits:  # a card assigns files to splits that their names do not tell
        return f"{source}: only its training split is read. Left out: {listed}. --source {source}:SPLIT reads another split."
    return (
        f"{source}: only its training split is read. Left out, as of other splits ({', '.join(splits)}): {listed}. "
        f"--source {source}:{splits[0]} reads one of them, and --split keep holds them out."
    )
