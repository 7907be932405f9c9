"""Text for people: suggestions for unknown names, plurals, excerpts, and untrusted characters made harmless.

This module imports the standard library only, so that `training` may use it too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches

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
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Available: {', '.join(names)}." if names else "None is available."


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return a count with its noun: `1 row`, `2,000 rows`; `nouns` is the plural where it is not `noun` + s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def excerpt(text: str, limit: int = 300) -> str:
    """Return `text` on one line, cut after `limit` characters: for values of unknown length in error messages."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit and len(text) <= 4 * limit else f"{line[:limit]}…"
