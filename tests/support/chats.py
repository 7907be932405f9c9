"""Conversations for the rendering tests: realistic ones, awkward ones, and Hypothesis strategies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl
from hypothesis import strategies as st

from dataprep.rendering import Renderer, Template
from dataprep.rendering.renderer import rendered_rows
from dataprep.rendering.rows import RenderedRow
from dataprep.tables import ASSISTANT, SYSTEM, TURNS, USER

Chat = list[dict[str, str]]

BUNDLED = ("alpaca", "chatml", "gemma", "llama2", "llama3", "mistral", "qwen3", "vicuna", "zephyr")

# Python strips all of these except the last two; Arrow and Rust treat some of them differently.
ODD_SPACE = "\x1c\x1f\x85\u00a0\u2003\u3000\u2028\t\r\n \u200b\ufeff"

MARKERS = (
    *("<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>\n", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>"),
    *("### Response:", "USER:", "</think>", "<", "s>", "%s", "{{ x }}", "{0}"),
)


def chat(*turns: str, system: str | None = None) -> Chat:
    """A conversation in which user and assistant alternate."""
    first = [] if system is None else [{"role": SYSTEM, "content": system}]
    return first + [{"role": (USER, ASSISTANT)[index % 2], "content": turn} for index, turn in enumerate(turns)]


def frame(conversations: Sequence[Chat | None]) -> pl.DataFrame:
    """A frame of `row` (from 100) and `messages`, as `Renderer` takes it."""
    rows = range(100, 100 + len(conversations))
    return pl.DataFrame({"row": rows, "messages": pl.Series(conversations, dtype=TURNS)})


def render_rows(renderer: Renderer, conversations: Sequence[Chat]) -> list[RenderedRow]:
    """The conversations as the renderer's batches give them."""

    def rows() -> Iterator[RenderedRow]:
        for batch in renderer.batches(frame(conversations)):
            yield from rendered_rows(batch)

    return list(rows())


def template(body: str, name: str = "test") -> Template:
    """A template that writes `body` for each message; in it, `m` is the message and `c` its content."""
    source = (
        "{{ bos_token }}{% for m in messages %}{% set c = m.content %}" + body + "{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return Template(name, source, {"bos_token": "<s>", "eos_token": "</s>"}, ("<s>", "</s>"), "</s>")


EXAMPLE = chat(
    "  How do I strip a string?\n",
    "\nUse `str.strip`:\n\n```python\ntext.strip()\n```\n",
    "¿Y en español? 漢字 🫄🏾",
    "Igual.",
    system="Answer briefly.\n",
)

CHATS = [
    EXAMPLE,
    chat("question", "answer"),
    chat("question"),
    chat("one", "two", "three"),
    chat("", "", "   ", "\n", system=""),
    chat(" \x1c padded \u2003", "\u3000\x85answer\x1f", "\u200b", "x\ufeff ", system="  system  "),
    chat("typed <s>[INST] </s> <|im_end|>", "and </s> [/INST] <end_of_turn>\n### Response:\n"),
]

_fragments = st.lists(
    st.one_of(st.sampled_from(MARKERS), st.sampled_from(list(ODD_SPACE)), st.text(max_size=6), st.just("word")),
    max_size=5,
)
contents = _fragments.map("".join).filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))


@st.composite
def chats(draw: st.DrawFn) -> Chat:
    """Conversations with alternating roles, with or without a system message, that end with either role."""
    system = draw(st.none() | contents)
    return chat(*draw(st.lists(contents, min_size=1, max_size=5)), system=system)
