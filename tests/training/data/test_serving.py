"""The trained ids are those that serving gives, for tokenizers with the traits of today's model families."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from tests.support.tokenizers import FAMILIES, LLAMA_3, byte_level, sentencepiece_like
from tests.support.training_builds import CHATML, LLAMA2, Style, Writer, row, table
from training.after.prompts import prompt_ids
from training.data.encode import encode
from training.data.serving import serving_difference
from training.model.tokenizer import ChatTokenizer

CONVERSATIONS = [
    [("Hello there", "yes"), ("  two  spaces\n", "\n\nno \n")],
    [("assistant", "assistant user"), ("naïve ﬁne", "café 你好 😀")],
    [("<b>bold</b>\n\n", "Say ```python\nprint('x')\n```")],
    [("a", "b")],
]


def stock(tokenizer: ChatTokenizer) -> Any:
    """transformers' tokenizer, as it is saved with an adapter."""
    return tokenizer.for_transformers("<|im_end|>", None)


@pytest.mark.parametrize("style", ["llama2", "chatml"])
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_the_stock_tokenizer(family: str, style: Style) -> None:
    tokenizer = FAMILIES[family]()
    rows = table([row(f"r{number}", pairs, style=style) for number, pairs in enumerate(CONVERSATIONS)])
    encoded = encode(rows, tokenizer)  # which also checks that the answers decode to their text
    for number, text in enumerate(rows["text"].to_pylist()):
        ids = encoded.ids[encoded.bounds[number] : encoded.bounds[number + 1]].tolist()
        assert ids == stock(tokenizer)(text, add_special_tokens=False)["input_ids"]
    assert serving_difference(rows, encoded, tokenizer, stock(tokenizer), seed=0) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_is_trained_with_its_end_token(family: str) -> None:
    tokenizer = FAMILIES[family]()
    rows = table([row(f"r{number}", pairs, style="chatml") for number, pairs in enumerate(CONVERSATIONS)])
    encoded = encode(rows, tokenizer)
    end = tokenizer.id_of("<|im_end|>")
    assert (encoded.ids[encoded.answer >= 0] == end).sum() == sum(map(len, CONVERSATIONS))


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.text("ab \n<|im_tr/", max_size=12), st.text("ab \n", min_size=1)), min_size=1, max_size=3
    )
)
@pytest.mark.parametrize("family", ["byte-level, rstrip", "Mistral (Metaspace first)", "Phi-3 (Prepend, rstrip)"])
def test_ids_of_any_text_are_those_of_the_stock_tokenizer(family: str, pairs: list[tuple[str, str]]) -> None:
    tokenizer = FAMILIES[family]()
    rows = table([row("r", pairs, style="chatml")])
    text = rows["text"][0].as_py()
    assert encode(rows, tokenizer).ids.tolist() == stock(tokenizer)(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_typed_special_tokens_do_not_become_controls(family: str) -> None:
    tokenizer = FAMILIES[family]()
    rows = table([row("r", [("what is <|im_end|> ?", "an <|im_start|> <|im_end|> mark")], style="chatml")])
    encoded = encode(rows, tokenizer)
    assert (encoded.ids == tokenizer.id_of("<|im_end|>")).sum() == 2
    assert (encoded.ids == tokenizer.id_of("<|im_start|>")).sum() == 2


@pytest.mark.parametrize("style", ["llama2", "chatml"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_ids_of_a_prompt_begin_the_ids_of_its_row(family: str, style: Style) -> None:
    tokenizer = FAMILIES[family]()
    template, special = {"llama2": (LLAMA2, ["<s>", "</s>"]), "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"])}[style]
    manifest = {"special_tokens": special, "bos_token": None, "eos_token": special[1]}
    ids = prompt_ids(template, [{"role": "user", "content": "Hello there"}], manifest, tokenizer)
    trained = encode(table([row("r", [("Hello there", "yes")], style=style)]), tokenizer).ids.tolist()
    assert trained[: len(ids)] == ids


@pytest.mark.parametrize(
    ("family", "answer"),
    [
        ("Phi-3 (Prepend, rstrip)", "  indented\n"),  # `<|im_end|>` absorbs the spaces
        ("lstrip and rstrip", "\n\n"),
        ("Mistral (Metaspace first)", "▁▂▃ a sparkline"),
        ("GPT-2 with prefix space", "yes"),
        ("Qwen (NFKC)", "\u00a0yes\u00a0"),
    ],
)
def test_an_answer_right_after_a_control_keeps_the_ids_of_the_stock_tokenizer(family: str, answer: str) -> None:
    families = FAMILIES | {"Qwen (NFKC)": lambda: byte_level(LLAMA_3, normalizer=normalizers.NFKC())}
    tokenizer, writer = families[family](), Writer()
    writer.control("<|im_end|>")
    start = len(writer.text)
    writer.text += answer
    writer.control("<|im_end|>")
    writer.spans.append((start, len(writer.text)))
    spans, controls = ([{"start": a, "end": b} for a, b in ranges] for ranges in (writer.spans, writer.controls))
    rows = table([row("r", []) | {"text": writer.text, "spans": spans, "controls": controls}])
    assert encode(rows, tokenizer).ids.tolist() == stock(tokenizer)(writer.text, add_special_tokens=False)["input_ids"]


def test_the_first_difference_is_shown_in_one_sentence() -> None:
    tokenizer, other = sentencepiece_like("first"), byte_level()
    rows = table([row("r", [("Hello there", "yes")], style="chatml")])
    difference = serving_difference(rows, encode(rows, tokenizer), tokenizer, stock(other), seed=0)
    assert difference is not None and difference.startswith("Row r: token 0 differs, trained [")


def test_a_control_that_serving_recognises_only_as_a_single_word_is_trained_and_reported() -> None:
    tokenizer = byte_level(single_word=True)
    rows = table([row("r", [("Hello there", "yes")], style="chatml")])
    encoded = encode(rows, tokenizer)
    assert (encoded.ids == tokenizer.id_of("<|im_end|>")).sum() == 2
    assert serving_difference(rows, encoded, tokenizer, stock(tokenizer), seed=0) is not None


def test_rows_with_typed_special_tokens_are_not_compared() -> None:
    tokenizer = byte_level()
    rows = table([row("r", [("what is <|im_end|> ?", "a mark")], style="chatml")])
    assert serving_difference(rows, encode(rows, tokenizer), tokenizer, stock(tokenizer), seed=0) is None
