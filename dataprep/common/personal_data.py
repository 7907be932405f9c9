"""What personal data and secrets look like, for counting them (facts) and for hiding them (reports).

Patterns are those of Rust's regular expressions. Letters of addresses are those of Latin, Greek and Cyrillic:
Chinese and Japanese are written without spaces, and the sentence around an address would be taken for its name.
"""

from __future__ import annotations

from collections.abc import Sequence

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
_PRIVATE = r"[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
KEY = (
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,255}|\bgithub_pat_[A-Za-z0-9_]{22,255}"
    r"|\bsk-[A-Za-z0-9_-]{20,200}|\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,200}|\bhf_[A-Za-z0-9]{30,64}"
    r"|\bglpat-[A-Za-z0-9_-]{20,200}|\bnpm_[A-Za-z0-9]{36}|\bpypi-[A-Za-z0-9_-]{50,250}"
    r"|\bSG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}|\bxox[abprs]-[A-Za-z0-9-]{10,200}|\bAIza[0-9A-Za-z_-]{35}"
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}(?:\.[A-Za-z0-9_-]{10,2000})?"
    r"|\bBearer [A-Za-z0-9_.~+/-]{24,2000}"
    r"|\b(?:[Ss]ecret_?[Aa]ccess_?[Kk]ey|aws_secret_access_key|AWS_SECRET_ACCESS_KEY)[\"' :=]{1,6}[A-Za-z0-9/+]{40}\b"
    rf"|-----BEGIN {_PRIVATE}(?:(?s:.*?)-----END {_PRIVATE}|(?s:.*)$)"  # without an end: all that follows
)
URL = r"https?://[^\s]"

_HIDDEN = {"key": KEY, "e-mail": EMAIL, "card": CARD, "phone": PHONE}  # in this order: a key's body may look like any


def masked(texts: Sequence[str]) -> list[str]:
    """`texts` with e-mail addresses, keys, card and phone numbers replaced by `[e-mail hidden]` and the like.

    All at once: Rust's expressions read a hundred times as fast as Python's, but each call has its price.
    """
    hidden = pl.col("text")
    for name, pattern in _HIDDEN.items():
        hidden = hidden.str.replace_all(ascii_borders(pattern), f"[{name} hidden]")
    return pl.DataFrame({"text": texts}, {"text": pl.String}).select(hidden).to_series().to_list()


def ascii_borders(pattern: str) -> str:
    """`pattern` with ASCII borders of words: with Unicode's, Rust leaves its fast automaton at the first other letter."""
    return pattern.replace(r"\b", r"(?-u:\b)")


def holds_card(content: pl.Expr) -> pl.Expr:
    """Whether a text holds a number with the shape and the check digit (Luhn) of a credit card."""
    return content.str.extract_all(CARD).list.eval(_luhn(pl.element())).list.any()


def _luhn(number: pl.Expr) -> pl.Expr:
    # ISO/IEC 7812-1: from the right, every second digit doubled, digits of the products summed, divisible by ten
    digits = number.str.replace_all("[ -]", "")
    values = [digits.str.slice(-place - 1, 1) for place in range(19)]
    total = pl.lit(0)
    for place, value in enumerate(values):
        digit = pl.when(digits.str.len_bytes() > place).then(value.cast(pl.Int32, strict=False)).otherwise(0)
        total = total + (digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4))
    return (total % 10 == 0) & digits.str.len_bytes().is_between(13, 19)
