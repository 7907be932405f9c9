"""Options that are given as text and mean more: sizes, thresholds, splits, names; each is parsed once, into a type."""

from __future__ import annotations

import re
from typing import NamedTuple

from dataprep.common.errors import RecipeError
from dataprep.common.text import excerpt, nearest

ROLE_NAMES = ("system", "user", "assistant", "tool")

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class HeldOut(NamedTuple):
    """The test split: a share of the rows, a number of rows, or the sources' own; none of them without a test split."""

    share: float | None = None
    rows: int | None = None
    keep: bool = False


def parse_size(text: str) -> int:
    """Return the bytes meant by `256MB` or `1.5GiB`.

    Raises:
        RecipeError: not a size, or one without a unit.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([KMG]?i?B?)\s*", text, re.IGNORECASE | re.ASCII)
    if match and not match[2]:
        raise RecipeError(f"The size {match[1]} has no unit: write {match[1]}MB, or B, KB, GB, KiB, MiB or GiB.")
    unit = match[2].upper() if match else ""
    unit = unit if unit.endswith("B") else unit + "B"
    if not match or unit not in _UNITS or float(match[1]) * _UNITS[unit] < 1:
        raise RecipeError(
            f"'{excerpt(text, 80)}' is not a size: give a number with B, KB, MB, GB, KiB, MiB or GiB, such as 256MB."
        )
    return int(float(match[1]) * _UNITS[unit])


def parse_similarity(text: str) -> float | None:
    """Return the threshold meant by `0.8`, or None for `off`.

    Raises:
        RecipeError: not a similarity above 0 and up to 1.
    """
    if text == "off":
        return None
    number = float(text) if re.fullmatch(r"\d{0,15}\.?\d{1,15}", text, re.ASCII) else 0.0
    if not 0 < number <= 1:
        raise RecipeError(f"--near-dup is '{excerpt(text, 80)}', and must be off, or a similarity above 0 and up to 1.")
    return number


def normal_split(text: str | None) -> str | None:
    """Return a split in its full form: `0.1` and `200` mean `test=0.1` and `test=200`."""
    return f"test={text}" if text and re.fullmatch(r"[\d.]+", text, re.ASCII) else text


def parse_split(text: str | None) -> HeldOut:
    """Return the test split meant by `test=0.05`, `test=200` or `keep`.

    Raises:
        RecipeError: neither a share above 0 and below 1, nor a positive number of rows, nor `keep`.
    """
    if text is None:
        return HeldOut()
    if text == "keep":
        return HeldOut(keep=True)
    match = re.fullmatch(r"test=(?:(?P<rows>\d{1,15})|(?P<share>\d{0,15}\.\d{1,15}))", text, re.ASCII)
    if match and match["rows"] and int(match["rows"]) > 0:
        return HeldOut(rows=int(match["rows"]))
    if match and match["share"] and 0 < float(match["share"]) < 1:
        return HeldOut(share=float(match["share"]))
    raise RecipeError(
        f"--split is '{excerpt(text, 80)}', and must be a share such as 0.05, a number of rows such as 200, or keep."
    )


def parse_renames(texts: tuple[str, ...], field: str) -> dict[str, str]:
    """Return the new names meant by `old=new` texts, by the old names.

    Raises:
        RecipeError: a text of another form, an old name given twice, or two old names with one new name for columns.
    """
    renames: dict[str, str] = {}
    for text in texts:
        old, equals, new = (part.strip() for part in text.partition("="))
        if not (old and equals and new):
            raise RecipeError(
                f"{flag(field)} has '{excerpt(text, 80)}', and must have OLD=NEW, such as model=assistant."
            )
        if old in renames:
            raise RecipeError(f"{flag(field)} gives '{excerpt(old, 80)}' two new names.")
        renames[old] = new
    if field == "columns" and len(set(renames.values())) < len(renames):
        raise RecipeError(f"{flag(field)} gives two keys the same name: {excerpt(', '.join(texts), 200)}.")
    if field == "roles" and (unknown := set(renames.values()) - set(ROLE_NAMES)):
        raise RecipeError(f"Unknown role '{excerpt(min(unknown), 80)}' in --roles. {nearest(min(unknown), ROLE_NAMES)}")
    return renames


def flag(field: str) -> str:
    """Return the flag of a field: `--max-bad` for `max_bad`."""
    return "--" + field.replace("_", "-")
