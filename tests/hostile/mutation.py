"""Seeded mutations of bytes and of JSON values."""

from __future__ import annotations

import json
import random
import re
import struct
from typing import Any

_INT32 = (2**31 - 1, -(2**31), -1, -5, 0, 1, 10**9, 2**30)
_INT64 = (2**63 - 1, -(2**63), -1, -8, 0, 10**9, 2**40)

HOSTILE_TEXTS = (
    "", " ", "../x", "../../outside/file", "/etc/passwd", "a\0b", "\ud800", "x" * 300, "\x1b[2J\x1b]0;t\x07", "\u202e\u061c\x9b31m",
    "\n\n---\nlanguage: x", "<script>alert(1)</script>", "![](http://127.0.0.1/x)", "{{ 7 * 7 }}", "{% for x in y %}", "</s>",
    "hf://a/b", "https://user:secret@example.org/x", "~/x", "$HOME", "`id`", "%s%n", "\r", "[INST] <<SYS>>", "NaN", "auto",
)  # fmt: skip
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1.5, 10**30, -(10**30), 2**63, 1e308, float("nan"), float("inf"), [], {}, [[]], [None], {"": {}},
    {"a": [1, "b"]}, [1, "a", None], ["\ud800"], {"\ud800": 1}, *HOSTILE_TEXTS,
)  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes:
    """`content` with a few bits, bytes or integers changed, bytes removed or repeated, and sometimes cut."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if len(data) <= 8:
            break
        at = rng.randrange(len(data) - 8)
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 10, 34, 123, 127, 128, 255))
        elif kind == 2:
            struct.pack_into("<i", data, at & ~3, rng.choice(_INT32))
        elif kind == 3:
            struct.pack_into("<q", data, at & ~7, rng.choice(_INT64))
        elif kind == 4:
            del data[at : at + rng.randrange(1, 8)]
        elif kind == 5:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
        elif rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
    return bytes(data)


def mutated_json(value: Any, rng: random.Random) -> Any:
    """`value` with one part replaced, removed, renamed or repeated somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        change = rng.random()
        if change < 0.1:
            return {name: child for name, child in value.items() if name != key}
        if change < 0.2:
            new = rng.choice(HOSTILE_TEXTS)
            return {(new if name == key else name): child for name, child in value.items()}
        return value | {key: mutated_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        if rng.random() < 0.1:
            return [*value[:at], *([value[at]] * 3), *value[at + 1 :]]
        return [*value[:at], mutated_json(value[at], rng), *value[at + 1 :]]
    return rng.choice(HOSTILE_VALUES)


def json_bytes(value: Any, rng: random.Random) -> bytes:
    """JSON of `value`, as ASCII or as UTF-8 (lone surrogates as three bytes, which no UTF-8 has)."""
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def hostile_json(value: Any, rng: random.Random) -> bytes:
    """A JSON file like that of `value`: some values changed, or its text damaged or replaced."""
    if rng.random() < 0.65:
        for _ in range(rng.choice((1, 1, 2, 3))):
            value = mutated_json(value, rng)
        return json_bytes(value, rng)
    text = json.dumps(value, indent=rng.choice((None, 2))).encode()
    return rng.choice(_TEXT_CHANGES)(text, rng)


def _replaced_value(text: bytes, rng: random.Random, new: bytes) -> bytes:
    """`text` with one of its scalar values replaced."""
    places = list(re.finditer(rb'(?<=[:\[,] )("[^"]*"|[\d.]+|null|true|false)(?=[,\]}\n])', text))
    if not places:
        return new
    place = rng.choice(places)
    return text[: place.start()] + new + text[place.end() :]


_TEXT_CHANGES = (
    lambda text, rng: mutated(text, rng),
    lambda text, rng: text[: rng.randrange(len(text))],
    lambda text, rng: _replaced_value(text, rng, b"[" * rng.choice((100, 5_000, 200_000))),
    lambda text, rng: _replaced_value(text, rng, b'{"a":' * rng.choice((100, 5_000)) + b"1" + b"}" * 5_000),
    lambda text, rng: _replaced_value(text, rng, b"[" * 900 + b"]" * 900),
    lambda text, rng: _replaced_value(text, rng, rng.choice((b"", b"-")) + b"9" * rng.choice((400, 5_000))),
    lambda text, rng: _replaced_value(text, rng, b'"' + b"x" * rng.choice((10_000, 1_500_000)) + b'"'),
    lambda text, rng: _replaced_value(text, rng, b'"\\ud800"'),
    lambda text, rng: _replaced_value(text, rng, b'"\xff\xfe"'),
    lambda text, rng: _replaced_value(text, rng, b"1e999"),
    lambda text, rng: _replaced_value(text, rng, b"NaN"),
    lambda text, rng: text + text,
    lambda text, rng: text.decode().encode("utf-16"),
    lambda text, rng: b"\xef\xbb\xbf" + text,
    lambda text, rng: rng.choice((b"", b"null", b"3", b"[]", b"{}", b'"a"', b"\0" * 100, b"\xff" * 100)),
)
