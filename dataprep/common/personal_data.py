"""Patterns of personal data and secrets, for counting them (quality facts) and for masking them (reports).

The patterns are regular expressions of Rust's regex crate, as Polars uses. Letters of e-mail addresses are Latin, Greek
or Cyrillic: Chinese and Japanese have no spaces, so the sentence around an address would be taken for part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

_LETTERS = "A-Za-z\u00c0-\u024f\u0370-\u052f"
EMAIL = (
    rf"[{_LETTERS}0-9._%+-]{{1,64}}@[{_LETTERS}0-9\u0900-\U0010ffff-]{{1,63}}"
    rf"(?:\.[{_LETTERS}0-9\u0900-\U0010ffff-]{{1,63}})*\.[{_LETTERS}]{{2,24}}"
)
PHONE = (
    r"(?:\+[1-9][0-9]{0,2}[ .-]?)?(?:\([0-9]{2,4}\)|\b[0-9]{3})[ .-][0-9]{3}[ .-][0-9]{4}\b"
    r"|\+[1-9][0-9]{1,2}(?:[ .-]?[0-9]{2,4}){3,4}\b"
)
CARD = r"\b[3-6][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{1,7}\b"
_CARD_DIGITS = 19  # most that the pattern allows
_PRIVATE = r"[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
KEY = (
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,255}|\bgithub_pat_[A-Za-z0-9_]{22,255}"
    r"|\bsk-[A-Za-z0-9_-]{20,200}|\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,200}|\bhf_[A-Za-z0-9]{30,64}"
    r"|\bglpat-[A-Za-z0-9_-]{20,200}|\bnpm_[A-Za-z0-9]{36}|\bpypi-[A-Za-z0-9_-]{50,250}"
    r"|\bSG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}|\bxox[abprs]-[A-Za-z0-9-]{10,200}|\bAIza[0-9A-Za-z_-]{35}"
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}(?:\.[A-Za-z0-9_-]{10,2000})?"
    r"|\bBearer [A-Za-z0-9_.~+/-]{24,2000}"
    r"|\b(?:[Ss]ecret_?[Aa]ccess_?[Kk]ey|aws_secret_access_key|AWS_SECRET_ACCESS_KEY)[\"' :=]{1,6}[A-Za-z0-9/+]{40}\b"
    rf"|-----BEGIN {_PRIVATE}(?:(?s:.*?)-----END {_PRIVATE}|(?s:.*)$)"  # without an END line: the rest of the text
)
URL = r"https?://[^\s]"

# In this order: the body of a key may look like any of the others.
_MASKED_KINDS = {"key": KEY, "e-mail": EMAIL, "card": CARD, "phone": PHONE}


def masked(texts: Sequence[str]) -> list[str]:
    """Return `texts` with keys, e-mail addresses, card and phone numbers replaced, such as by `[e-mail hidden]`.

    All texts go into one call: Rust's expressions are a hundred times as fast as Python's, but each call has overhead.
    """
    masked_text = pl.col("text")
    for kind, pattern in _MASKED_KINDS.items():
        masked_text = masked_text.str.replace_all(ascii_word_boundaries(pattern), f"[{kind} hidden]")
    return pl.DataFrame({"text": texts}, {"text": pl.String}).select(masked_text).to_series().to_list()


def ascii_word_boundaries(pattern: str) -> str:
    """Return `pattern` with ASCII word boundaries: with Unicode's, Rust leaves its fast automaton at any other letter."""
    return pattern.replace(r"\b", r"(?-u:\b)")


def holds_card(content: pl.Series) -> pl.Series:
    """Return whether each text has a number with the shape and the check digit (Luhn) of a credit card."""
    numbers = content.str.extract_all(CARD)
    text_of = np.repeat(np.arange(len(content)), numbers.list.len().fill_null(0).to_numpy())
    result = np.zeros(len(content), bool)
    result[text_of[_has_check_digit(numbers.explode(empty_as_null=False, keep_nulls=False))]] = True
    return pl.Series(result)


def _has_check_digit(numbers: pl.Series) -> npt.NDArray[np.bool_]:
    # ISO/IEC 7812-1: from the right, double every second digit and add up all digits; the sum is divisible by ten.
    padded = numbers.str.replace_all("[ -]", "").str.zfill(_CARD_DIGITS)
    digits = np.frombuffer("".join(padded).encode(), np.uint8).reshape(-1, _CARD_DIGITS) - ord("0")
    doubled = 2 * digits[:, -2::-2]
    sums = digits[:, ::-2].sum(axis=1) + (doubled - 9 * (doubled > 9)).sum(axis=1)
    valid: npt.NDArray[np.bool_] = sums % 10 == 0
    return valid
