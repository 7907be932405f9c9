"""What personal data and secrets look like, for counting them (facts) and for hiding them (report).

Patterns that Rust's regular expressions and Python's both read.
"""

from __future__ import annotations

import re

import polars as pl

EMAIL = r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}"
PHONE = (
    r"(?:\+[1-9][0-9]{0,2}[ .-]?)?(?:\([0-9]{2,4}\)|\b[0-9]{3})[ .-][0-9]{3}[ .-][0-9]{4}\b"
    r"|\+[1-9][0-9]{1,2}(?:[ .-]?[0-9]{2,4}){3,4}\b"
)
CARD = r"\b[3-6][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{1,7}\b"
KEY = (
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,255}|\bgithub_pat_[A-Za-z0-9_]{22,255}"
    r"|\bsk-[A-Za-z0-9_-]{20,200}|\bhf_[A-Za-z0-9]{30,64}|\bxox[abprs]-[A-Za-z0-9-]{10,200}|\bAIza[0-9A-Za-z_-]{35}"
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[A-Za-z0-9+/=\s]{0,8000}-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
)
URL = r"https?://[^\s]"

_NAMES = {"e-mail": EMAIL, "key": KEY, "card": CARD, "phone": PHONE}
_ANY = re.compile("|".join(f"(?P<{name.replace('-', '')}>{pattern})" for name, pattern in _NAMES.items()))
_TOLD = {name.replace("-", ""): f"[{name} hidden]" for name in _NAMES}


def masked(text: str) -> str:
    """`text` with e-mail addresses, keys, card and phone numbers replaced by `[e-mail hidden]` and the like."""
    return _ANY.sub(lambda found: _TOLD[str(found.lastgroup)], text)


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
