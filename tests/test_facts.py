"""Facts: each can be seen to change with a conversation that has the fault, and stays with one that has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataprep.build import shard_batches
from dataprep.conversations import CONVERSATIONS, conform
from dataprep.facts import FACTS, SCHEMA, FactsOf
from dataprep.personal import masked
from dataprep.rendering import Renderer, load_template

GOOD = ["How do I boil an egg, in a few words?", "Put it into boiling water for eight minutes."]
LONG = "The water has to boil before the egg goes in, and the egg should be at room temperature by then " * 3


def facts_of(
    *turns: str, lang: str | None = "en", template: str = "llama2", tokenizer: str | None = None
) -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    return of_messages(messages, lang, template, tokenizer)


def of_messages(
    messages: list[dict[str, str]], lang: str | None = "en", template: str = "llama2", tokenizer: str | None = None
) -> dict[str, Any]:
    frame = conform(
        pl.DataFrame(
            {"row": [0], "id": ["a"], "lang": [lang], "messages": [messages]}, schema_overrides={"lang": pl.String}
        ),
        CONVERSATIONS,
    )
    renderer = Renderer(load_template(template))
    (batch,) = shard_batches(frame, renderer)
    found = FactsOf(renderer, tokenizer).batch(batch, "train")
    assert dict(found.schema) == SCHEMA
    return found.row(0, named=True)


def test_sound_conversation() -> None:
    found = facts_of(*GOOD)
    assert (found["turns"], found["answers"], found["user_chars"], found["answer_chars"]) == (2, 1, 37, 44)
    assert (found["begins"], found["ends"], found["framed"], found["parses_back"]) == (1, 1, True, True)
    assert found["alternates"] and found["ends_with_answer"] and found["script_matches"]
    assert 0.4 < found["trained_share"] < 0.7
    faults = [
        n
        for n in FACTS
        if n.endswith(("s", "fences"))
        and isinstance(found[n], int)
        and n
        not in (
            "turns",
            "answers",
            "chars",
            "bytes",
            "system_chars",
            "user_chars",
            "answer_chars",
            "begins",
            "ends",
            "alternates",
            "parses_back",
            "script_matches",
        )
    ]
    assert {name: found[name] for name in faults} == dict.fromkeys(faults, 0)
    assert len(faults) > 12


PLANTED = {
    "typed_controls": ["what is [INST]?", GOOD[1]],
    "extra_controls": ["what is </s>?", GOOD[1]],
    "repeated_lines": [GOOD[0], "The very same line here.\n" * 4],
    "repeated_questions": [*GOOD, *GOOD],
    "echoes": [GOOD[0], GOOD[0] + " Well."],
    "refusals": [GOOD[0], "As an AI language model, I can not boil."],
    "open_fences": [GOOD[0], "```python\nprint()"],
    "urls": ["see https://example.org/x", GOOD[1]],
    "emails": [GOOD[0], "write to jane.doe@example.org"],
    "phones": [GOOD[0], "call +49 170 1234567 or (555) 123-4567"],
    "cards": [GOOD[0], "4111 1111 1111 1111"],
    "keys": ["AKIAIOSFODNN7EXAMPLE", GOOD[1]],
    "active_markup": ["<ScRipt>alert(1)</script>", GOOD[1]],
    "replacements": ["broken \ufffd", GOOD[1]],
    "control_characters": ["bell \x07", GOOD[1]],
    "bidi_controls": ["abc \u202e fed", GOOD[1]],
    "mojibake": ["cafÃ©", GOOD[1]],
}


@pytest.mark.parametrize("fact", PLANTED)
def test_planted_fault_is_counted(fact: str) -> None:
    assert facts_of(*PLANTED[fact])[fact] > 0
    assert facts_of(*GOOD)[fact] == 0


def test_card_needs_its_check_digit() -> None:
    assert facts_of(GOOD[0], "4111 1111 1111 1112")["cards"] == 0


def test_loops_at_the_end() -> None:
    assert facts_of(GOOD[0], "round and round it goes " * 40)["repeated_words"] > 0.9
    assert facts_of(GOOD[0], " ".join(f"word{n}" for n in range(80)))["repeated_words"] == 0
    assert facts_of(*GOOD)["repeated_words"] is None


def test_unfinished() -> None:
    assert facts_of(GOOD[0], LONG.strip() + ",")["unfinished"]
    assert not facts_of(GOOD[0], LONG.strip() + ".")["unfinished"]


def test_roles() -> None:
    odd = [{"role": r, "content": "x"} for r in ("user", "assistant", "assistant")]
    assert of_messages(odd, template="chatml")["alternates"] is False
    asked = [{"role": r, "content": "x"} for r in ("user", "assistant", "user")]
    found = of_messages(asked, template="chatml")
    assert (found["alternates"], found["ends_with_answer"]) == (True, False)
    led = [{"role": r, "content": "x"} for r in ("system", "user", "assistant")]
    assert of_messages(led)["alternates"] is True
    assert (
        of_messages([{"role": "user", "content": " \u200b"}, {"role": "assistant", "content": "x"}], template="chatml")[
            "empty_messages"
        ]
        == 1
    )


@pytest.mark.parametrize(
    ("lang", "text", "fits"),
    [("ru", "Привет, как дела?", True), ("ru", "Hello there", False), ("en", "Привет, как дела?", False), ("zh", "你好吗", True), ("pt-BR", "Olá você", True), ("ja", "こんにちは", True), ("xx", "hello", None), (None, "hello", None)],
)  # fmt: skip
def test_script(lang: str | None, text: str, fits: bool | None) -> None:
    assert facts_of(text, text, lang=lang)["script_matches"] is fits


@pytest.mark.parametrize("template", ["llama2", "chatml", "alpaca", "vicuna", "mistral", "gemma", "zephyr", "llama3"])
def test_every_template_parses_back_and_says_where_it_does_not(template: str) -> None:
    messages = [
        {"role": "system", "content": "be\n\ngood"},
        *(
            {"role": r, "content": c}
            for r, c in zip(("user", "assistant") * 2, [*GOOD, "and\nthen?", " ok "], strict=True)
        ),
    ]
    assert of_messages(messages, template=template)["parses_back"] is True
    renderer = Renderer(load_template(template))
    text = next(iter(renderer.batches(pl.DataFrame({"messages": [messages[1:3]]})))).text[0].as_py()
    between = text.split(GOOD[0])[1].split(GOOD[1])[0]  # a marker of the template, typed in a question
    typed = [{"role": "user", "content": f"a{between}b"}, {"role": "assistant", "content": "c"}]
    assert of_messages(typed, template=template)["parses_back"] is False


def test_framed_fails_where_somebody_typed_an_end_token() -> None:
    assert facts_of("what is </s>?", "c")["framed"] is False
    assert facts_of(*GOOD, template="chatml")["framed"] is None


def test_tokens_are_those_of_training(real: Path) -> None:
    found = facts_of(*GOOD, tokenizer=str(real / "llama2/tokenizer.json"))
    assert 25 < found["tokens"] < 45
    assert facts_of(*GOOD)["tokens"] is None


def test_masked() -> None:
    assert masked("jane@example.org, sk-abcdefghijklmnopqrstuvwx and me") == "[e-mail hidden], [key hidden] and me"
    assert masked("5 + 5 = 10, at 12:30 on 2024-01-02") == "5 + 5 = 10, at 12:30 on 2024-01-02"
