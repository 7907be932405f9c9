"""Conversations for tests of rendering: real-looking ones, awkward ones, and Hypothesis strategies."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from hypothesis import strategies as st

from dataprep.rendering.template import Template
from dataprep.tables import ASSISTANT, SYSTEM, TURNS, USER

Chat = list[dict[str, str]]

BUNDLED = ("alpaca", "chatml", "gemma", "llama2", "llama3", "mistral", "vicuna", "zephyr")

# Python strips all of these but the last two; Arrow and Rust disagree with it about some.
ODD_SPACE = "\x1c\x1f\x85\u00a0\u2003\u3000\u2028\t\r\n \u200b\ufeff"

MARKERS = ("<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>\n", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>")
MARKERS += ("### Response:", "USER:", "</think>", "<", "s>", "%s", "{{ x }}", "{0}")


def chat(*turns: str, system: str | None = None) -> Chat:
    """User and assistant in turn."""
    first = [] if system is None else [{"role": SYSTEM, "content": system}]
    return first + [{"role": (USER, ASSISTANT)[at % 2], "content": turn} for at, turn in enumerate(turns)]


def frame(chats: Sequence[Chat | None]) -> pl.DataFrame:
    """`row` and `messages`, as `Renderer` wants them."""
    return pl.DataFrame({"row": range(100, 100 + len(chats)), "messages": pl.Series(chats, dtype=TURNS)})


def template(body: str, name: str = "test") -> Template:
    """A template of one line a message, with `m` the message and `c` its content, around `body`."""
    source = (
        "{{ bos_token }}{% for m in messages %}{% set c = m.content %}" + body + "{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return Template(name, source, {"bos_token": "<s>", "eos_token": "</s>"}, ("<s>", "</s>"), "</s>")


SHOWN = chat(
    "  How do I strip a string?\n",
    "\nUse `str.strip`:\n\n```python\ntext.strip()\n```\n",
    "¿Y en español? 漢字 🫄🏾",
    "Igual.",
    system="Answer briefly.\n",
)

CHATS = [
    SHOWN,
    chat("question", "answer"),
    chat("question"),
    chat("one", "two", "three"),
    chat("", "", "   ", "\n", system=""),
    chat(" \x1c padded \u2003", "\u3000\x85answer\x1f", "\u200b", "x\ufeff ", system="  system  "),
    chat("typed <s>[INST] </s> <|im_end|>", "and </s> [/INST] <end_of_turn>\n### Response:\n"),
]

_pieces = st.lists(
    st.one_of(st.sampled_from(MARKERS), st.sampled_from(list(ODD_SPACE)), st.text(max_size=6), st.just("word")),
    max_size=5,
)
contents = _pieces.map("".join).filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))


@st.composite
def chats(draw: st.DrawFn) -> Chat:
    """Alternating conversations, with or without a system text, that end on either side."""
    system = draw(st.none() | contents)
    return chat(*draw(st.lists(contents, min_size=1, max_size=5)), system=system)
