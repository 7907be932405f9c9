"""Facts: each changes for a conversation with the fault that it counts, and not for a sound one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tokenizers import Tokenizer

from dataprep.common.personal_data import masked
from dataprep.quality.expressions import message_facts
from dataprep.quality.facts import FACTS, SCHEMA, FactExtractor
from dataprep.rendering import Renderer, load_template
from dataprep.rendering.checks import TemplateChecks
from dataprep.store.splits import shard_batches
from dataprep.tables import CONVERSATIONS, conform

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
    (batch,) = shard_batches(frame, renderer.batches(frame))
    facts = FactExtractor(TemplateChecks(renderer), tokenizer).batch(batch, "train")
    assert dict(facts.schema) == SCHEMA
    return facts.row(0, named=True)


SOUND: dict[str, Any] = {
    **{"id": "a", "split": "train", "lang": "en", "turns": 2, "answers": 1},
    **{"system_chars": 0, "user_chars": 37, "answer_chars": 44, "chars": 81, "longest_message": 44, "tokens": None},
    **{"system_bytes": 0, "user_bytes": 37, "answer_bytes": 44, "bytes": 81, "empty_messages": 0},
    **{"alternates": True, "ends_with_answer": True, "trained_share": 50 / 105, "parses_back": True},  # " … </s>"
    **{"unwritten_system": 0, "unwritten_messages": 0, "unwritten_reasoning": 0},
    **{"begins": 1, "ends": 1, "framed": True, "typed_controls": 0, "extra_controls": 0},
    **{"script_share": 1.0, "script_matches": True, "repeated_lines": 0, "repeated_words": None},
    **{"repeated_questions": 0, "echoes": 0, "refusals": 0, "unfinished": False, "open_fences": 0},
    **dict.fromkeys(["urls", "emails", "phones", "cards", "keys", "active_markup", "replacements"], 0),
    **dict.fromkeys(["control_characters", "bidi_controls", "mojibake"], 0),
}


def test_a_sound_conversation_has_exactly_these_facts() -> None:
    assert facts_of(*GOOD) == SOUND
    assert list(SCHEMA) == list(FACTS) and set(SOUND) == set(FACTS)


def test_the_numbers_of_a_long_russian_conversation_are_exact() -> None:
    messages = [
        {"role": "system", "content": "Sé breve: да."},
        {"role": "user", "content": "Где **дом**, и чей он?\n\u200b"},
        {"role": "assistant", "content": "Где **дом**, и чей он?\n\u200b Там!\n" + "Строка, что повторяется.\n" * 3},
        {"role": "user", "content": " \u200b "},
        {"role": "assistant", "content": "da da 😀 " * 30 + "```"},
    ]
    facts = of_messages(messages, lang="ru", template="chatml")
    contents = [message["content"] for message in messages]
    chars, size = [len(content) for content in contents], [len(content.encode()) for content in contents]
    letters = [letter for letter in "\n".join(contents) if letter.isalpha()]
    words = "\n".join(contents[2::2])[-2000:].replace("\n", " ").split(" ")
    runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    trained = sum(len(content + "<|im_end|>") for content in contents[2::2])
    exact = {
        **{
            "trained_share": trained / len(text),
            "turns": 5,
            "answers": 2,
            "alternates": True,
            "ends_with_answer": True,
            "empty_messages": 1,
            "lang": "ru",
        },
        **{"system_chars": chars[0], "user_chars": chars[1] + chars[3], "answer_chars": chars[2] + chars[4]},
        **{"system_bytes": size[0], "user_bytes": size[1] + size[3], "answer_bytes": size[2] + size[4]},
        **{"chars": sum(chars), "bytes": sum(size), "longest_message": chars[4], "tokens": None},
        **{"repeated_lines": 2, "repeated_questions": 0, "echoes": 1, "open_fences": 1, "unfinished": False},
        **{"begins": None, "ends": 5, "framed": None, "extra_controls": 0, "typed_controls": 0, "parses_back": True},
        **{"script_share": sum("\u0400" <= letter <= "\u04ff" for letter in letters) / len(letters)},
        **{"script_matches": True, "repeated_words": pytest.approx(1 - len(set(runs)) / len(runs))},
    }
    assert {name: facts[name] for name in exact} == exact
    assert 0.4 < facts["script_share"] < 0.9 and facts["repeated_words"] > 0.5
    assert facts["chars"] < facts["bytes"] and facts["longest_message"] < facts["answer_chars"]


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
def test_a_planted_fault_is_counted(fact: str) -> None:
    assert facts_of(*PLANTED[fact])[fact] > 0
    assert facts_of(*GOOD)[fact] == 0


def test_a_number_with_a_wrong_check_digit_is_not_a_credit_card() -> None:
    assert facts_of(GOOD[0], "4111 1111 1111 1112")["cards"] == 0


def test_repeated_words_are_measured_in_texts_of_fifty_words_and_more() -> None:
    assert facts_of(GOOD[0], "round and round it goes " * 40)["repeated_words"] > 0.9
    assert facts_of(GOOD[0], " ".join(f"word{n}" for n in range(80)))["repeated_words"] == 0
    assert facts_of(*GOOD)["repeated_words"] is None


def test_a_long_answer_that_ends_on_a_comma_is_unfinished() -> None:
    assert facts_of(GOOD[0], LONG.strip() + ",")["unfinished"]
    assert not facts_of(GOOD[0], LONG.strip() + ".")["unfinished"]


def test_roles_that_do_not_alternate_are_found() -> None:
    odd = [{"role": r, "content": "x"} for r in ("user", "assistant", "assistant")]
    assert of_messages(odd, template="chatml")["alternates"] is False
    asked = [{"role": r, "content": "x"} for r in ("user", "assistant", "user")]
    facts = of_messages(asked, template="chatml")
    assert (facts["alternates"], facts["ends_with_answer"]) == (True, False)
    led = [{"role": r, "content": "x"} for r in ("system", "user", "assistant")]
    assert of_messages(led)["alternates"] is True
    assert (
        of_messages([{"role": "user", "content": " \u200b"}, {"role": "assistant", "content": "x"}], template="chatml")[
            "empty_messages"
        ]
        == 1
    )


@pytest.mark.parametrize(
    ("roles", "alternate"),
    [
        ("user assistant tool assistant", True),
        ("system user assistant tool tool assistant user assistant", True),
        ("user assistant tool", True),
        ("user assistant tool assistant tool assistant user", True),
        ("user tool assistant", False),
        ("user assistant tool user", False),
        ("assistant tool assistant", False),
        ("user assistant assistant tool", False),
        ("user system assistant tool", False),
    ],
)
def test_results_of_tools_stand_between_two_turns_of_the_assistant(roles: str, alternate: bool) -> None:
    messages = [[{"role": role, "content": "x"} for role in roles.split()]]
    facts = message_facts(pl.DataFrame({"row": [0], "messages": messages}), [])
    assert facts["alternates"].to_list() == [alternate]


def test_a_turn_that_only_calls_a_tool_is_not_empty() -> None:
    messages = [{"role": "assistant", "content": "", "tool_calls": call} for call in ("[]", None)]
    facts = message_facts(pl.DataFrame({"row": [0], "messages": [messages]}), [])
    assert facts["empty_messages"].to_list() == [1]


@pytest.mark.parametrize(
    ("lang", "text", "fits"),
    [("ru", "Привет, как дела?", True), ("ru", "Hello there", False), ("en", "Привет, как дела?", False), ("zh", "你好吗", True), ("pt-BR", "Olá você", True), ("ja", "こんにちは", True), ("xx", "hello", None), (None, "hello", None)],
)  # fmt: skip
def test_the_script_of_a_text_is_compared_with_its_language_tag(lang: str | None, text: str, fits: bool | None) -> None:
    assert facts_of(text, text, lang=lang)["script_matches"] is fits


@pytest.mark.parametrize("template", ["llama2", "chatml", "alpaca", "vicuna", "mistral", "gemma", "zephyr", "llama3"])
def test_texts_of_every_bundled_template_parse_back_unless_a_marker_was_typed(template: str) -> None:
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


def test_a_typed_end_token_breaks_the_frame() -> None:
    assert facts_of("what is </s>?", "c")["framed"] is False
    assert facts_of(*GOOD, template="chatml")["framed"] is None


def test_tokens_are_counted_as_training_counts_them(real: Path) -> None:
    facts = facts_of(*GOOD, tokenizer=str(real / "llama2/tokenizer.json"))
    known = Tokenizer.from_file(str(real / "llama2/tokenizer.json"))
    between = known.encode(f"[INST] {GOOD[0]} [/INST] {GOOD[1]} ", add_special_tokens=False)
    assert facts["tokens"] == len(between) + 2
    assert facts_of(*GOOD)["tokens"] is None


def test_personal_data_is_masked_and_other_numbers_are_kept() -> None:
    texts = ["jane@example.org, sk-abcdefghijklmnopqrstuvwx and me", "5 + 5 = 10, at 12:30 on 2024-01-02"]
    assert masked(texts) == ["[e-mail hidden], [key hidden] and me", texts[1]]
