"""Text for people: suggestions for unknown names, plurals, excerpts, and untrusted characters made harmless.

This module imports the standard library only, so that `training` may use it too.
"""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Iterable
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from typing import TextIO

# A character that a reader can see. Python's and Rust's regular expressions (Polars) read it alike: U+001C to U+001F
# are white space in Python and not in Rust, U+200B and U+FEFF are white space in neither.
VISIBLE_CHARACTER = r"[^\s\x1c-\x1f\u200b\ufeff]"

# Characters that can steer a terminal or reorder the text around them: C0 (less tab and newline), DEL, C1, the marks,
# embeddings, overrides and isolates of the bidirectional algorithm (UAX #9), line and paragraph separators, surrogates.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return `text` with unsafe characters written out, such as `<U+001B>` for ESC; newlines and tabs stay."""
    return _UNSAFE.sub(lambda match: f"<U+{ord(match[0]):04X}>", text)


def without_credentials(text: str) -> str:
    """Return `text` with the user, the password and the query of every URL in it removed: they may hold a token."""
    # one slash is enough: a path made of a URL has lost the other
    without_user = re.sub(r"([A-Za-z][\w+.-]+:/{1,2})[^\s/]*@", r"\1", text)
    return re.sub(r"([A-Za-z][\w+.-]+:/{1,2}[^\s?#]*)[?#]\S*", r"\1", without_user)


def json_text(value: object, indent: int | None = None) -> str:
    r"""Return `value` as JSON that is safe to print: readable Unicode, with unsafe characters escaped as in `\u001b`."""
    written = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    # json.dumps escapes C0 itself, so what is left stands inside of strings.
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", written)


def nearest(name: str, available: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: `Did you mean 'x'? Available: x, y, z.`"""
    names = sorted(available)
    return f"{suggestion(name, names)}Available: {', '.join(names)}." if names else "None is available."


def suggestion(name: str, available: Iterable[str], cutoff: float = 0.5) -> str:
    """Return `Did you mean 'x'? `, or nothing where no name has a similarity (0 to 1) of at least `cutoff`."""
    close = get_close_matches(name, list(available), n=1, cutoff=cutoff)
    return f"Did you mean '{close[0]}'? " if close else ""


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return a count with its noun: `1 row`, `2,000 rows`; `nouns` is the plural where it is not `noun` + s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def size_text(count: float) -> str:
    """Return a number of bytes as people read it: `512 B`, `1.4 MB`."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"


def time_ago(moment: datetime, now: datetime) -> str:
    """Return how long ago a moment was, in its largest unit: `just now`, `5 minutes ago`, `3 days ago`."""
    seconds = (now - moment).total_seconds()
    for unit, length in (("year", 31_557_600), ("month", 2_629_800), ("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return f"{plural(int(seconds // length), unit)} ago"
    return "just now"


def duration(seconds: float) -> str:
    """Return a time span as people read it: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"


def fit(text: str, stream: TextIO, indent: int = 0) -> str:
    """Return lines wrapped between words at the width of a terminal; unchanged where `stream` is none.

    Args:
        indent: columns before the further lines of a line that was wrapped.
    """
    if not stream.isatty():
        return text
    width, space = shutil.get_terminal_size().columns, " " * indent
    wrap = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    return "\n".join(wrap(line, subsequent_indent=space) for line in text.split("\n"))


def agree(count: int, singular: str, other: str) -> str:
    """Return the verb that agrees with a count: `agree(1, "has", "have")`."""
    return singular if count == 1 else other


MAX_NAME = 100  # characters of a key or another name of the data that a sentence repeats


def excerpt(text: str, limit: int = 300) -> str:
    """Return `text` on one line, cut after `limit` characters: for values of unknown length in error messages."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit and len(text) <= 4 * limit else f"{line[:limit]}…"


def next_steps(steps: Iterable[tuple[str, str]]) -> str:
    """Return commands that a user may run next, each on a line of its own so that it can be copied.

    Args:
        steps: (what it does, command).
    """
    steps = list(steps)
    width = max((len(purpose) for purpose, _ in steps), default=0)
    return "\n".join(["Next:", *(f"  {purpose.ljust(width)}  {command}" for purpose, command in steps)])
