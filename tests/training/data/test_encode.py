"""Encoding: Llama 2's ids follow Meta's rule, and the ids of every answer decode to its text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.paths import REAL
from tests.support.training_builds import Pairs, Row, Writer, guanaco_pairs, row, table
from training.data.encode import encode, encode_block
from training.errors import DataError, ModelError
from training.model.tokenizer import ChatTokenizer, load_tokenizer

real = pytest.mark.real

Chooser = Callable[[int, int], int | slice]


class Meta(NamedTuple):
    """Meta's own tokenizer and the path of its model."""

    processor: Any
    path: Path


def text(answer: str | None) -> str:
    """An answer as Meta's rule renders it."""
    assert answer is not None
    return answer.strip()


def sentencepiece_model(tokenizer_json: Path, path: Path) -> Path:
    """Write the `tokenizer.model` that the real tokenizer.json was made from: scores by id, runs of spaces last."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    content = json.loads(tokenizer_json.read_text("utf-8"))
    model = proto.ModelProto()  # type: ignore[attr-defined]
    for piece, number in sorted(content["model"]["vocab"].items(), key=lambda item: item[1]):
        entry = model.pieces.add()
        entry.piece, entry.score = piece, float(-(number - 259)) if number >= 259 else 0.0
        if len(piece) > 1 and set(piece) == {"▁"}:
            entry.score = -1e9  # all runs of spaces have one score, the lowest, as their merges in tokenizer.json show
        kinds = {"<unk>": entry.UNKNOWN, "<s>": entry.CONTROL, "</s>": entry.CONTROL}
        entry.type = kinds.get(piece, entry.BYTE if piece.startswith("<0x") and number < 259 else entry.NORMAL)
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(model.pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.add_dummy_prefix = True
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory, llama2: ChatTokenizer) -> Meta:
    """Meta's own tokenizer, SentencePiece, and the path of its model."""
    import sentencepiece

    path = sentencepiece_model(REAL / "llama2" / "tokenizer.json", tmp_path_factory.mktemp("sp") / "tokenizer.model")
    return Meta(sentencepiece.SentencePieceProcessor(model_file=str(path)), path)


@pytest.fixture(scope="module")
def converted(meta: Meta) -> ChatTokenizer:
    return load_tokenizer(str(meta.path.parent))


def ids_by_metas_rule(processor: Any, pairs: Pairs) -> list[int]:
    """Encode each pair on its own, between BOS and EOS, as chat_completion in llama/generation.py does."""
    ids: list[int] = []
    for question, answer in pairs:
        prompt = f"[INST] {question.strip()} [/INST] {text(answer)} "
        ids += [processor.bos_id(), *processor.encode(prompt), processor.eos_id()]
    return ids


@real
def test_ids_of_dialogs_equal_the_golden_ids_of_metas_rule(llama2: ChatTokenizer) -> None:
    for case in json.loads((REAL / "llama2" / "golden_dialog_token_ids.json").read_text("utf-8")):
        turns = [(message["role"], message["content"]) for message in case["dialog"]]
        system = turns.pop(0)[1] if turns[0][0] == "system" else None
        writer = Writer()
        for number in range(0, len(turns), 2):
            question = turns[number][1]
            if system is not None and number == 0:
                question = f"<<SYS>>\n{system}\n<</SYS>>\n\n{question}"
            writer.llama2(question, turns[number + 1][1] if number + 1 < len(turns) else None)
        columns = row("x", []) | {
            "text": writer.text,
            "controls": [{"start": a, "end": b} for a, b in writer.controls],
            "spans": [{"start": a, "end": b} for a, b in writer.spans],
        }
        assert encode(table([columns]), llama2).ids.tolist() == case["meta_ids"], case["dialog"]


@real
def test_ids_of_real_conversations_follow_metas_rule(llama2: ChatTokenizer, meta: Meta, guanaco: list[Row]) -> None:
    encoded = encode(table(guanaco), llama2)
    for number, pairs in enumerate(guanaco_pairs().values()):
        ids = encoded.ids[encoded.bounds[number] : encoded.bounds[number + 1]]
        assert ids.tolist() == ids_by_metas_rule(meta.processor, pairs)


@real
@pytest.mark.parametrize("legacy", [True, False, None])
def test_ids_do_not_depend_on_the_legacy_setting_or_on_a_lone_tokenizer_model(
    tmp_path: Path, llama2: ChatTokenizer, meta: Meta, guanaco: list[Row], legacy: bool | None
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "eos_token": "</s>", "bos_token": "<s>"})
    )
    source = REAL / "llama2" / "tokenizer.json" if legacy is not None else meta.path
    (folder / source.name).write_bytes(source.read_bytes())
    rows = table(guanaco[:100])
    assert (encode(rows, load_tokenizer(str(folder))).ids == encode(rows, llama2).ids).all()


@real
@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("▁ \t\nab<>/s[]INST你😀é#"), max_size=40))
def test_a_converted_sentencepiece_model_gives_sentencepieces_ids(
    meta: Meta, converted: ChatTokenizer, text: str
) -> None:
    assert converted.backend.encode(text, add_special_tokens=False).ids == meta.processor.encode(text)


@real
def test_the_ids_of_an_answer_decode_to_the_answer_and_the_end_token(llama2: ChatTokenizer, guanaco: list[Row]) -> None:
    """One space, the answer's characters, one space and the end token."""
    encoded = encode(table(guanaco), llama2)
    for number, pairs in enumerate(guanaco_pairs().values()):
        part = slice(encoded.bounds[number], encoded.bounds[number + 1])
        ids, answers = encoded.ids[part], encoded.answer[part]
        for turn, (_, answer) in enumerate(pairs):
            decoded = llama2.backend.decode(ids[answers == turn].tolist(), skip_special_tokens=False)
            assert decoded in (f" {text(answer)} </s>", f"{text(answer)} </s>")
        assert (answers == len(pairs)).sum() == 0
        assert (ids[answers >= 0] == 2).sum() == len(pairs)  # each end token is trained
        assert (ids[answers < 0] == 1).sum() == len(pairs)  # no <s> is trained


@real
def test_special_tokens_typed_by_a_user_are_encoded_as_text(llama2: ChatTokenizer) -> None:
    encoded = encode(table([row("x", [("what is </s>?", "an <s> end </s> mark")])]), llama2)
    assert (encoded.ids == 2).sum() == 1 and (encoded.ids == 1).sum() == 1


@real
def test_an_answer_may_begin_with_a_token_that_is_only_a_space(llama2: ChatTokenizer) -> None:
    encoded = encode(table([row("x", [("hi", "你好")])]), llama2)
    assert encoded.ids[encoded.answer >= 0][0] == 29871  # ▁, the space after [/INST]


@real
def test_a_special_token_that_the_tokenizer_lacks_is_named(llama2: ChatTokenizer) -> None:
    with pytest.raises(ModelError, match="im_start"):
        encode(table([row("x", [("a", "b")], style="chatml")]), llama2)


def test_a_tokenizer_that_cannot_represent_the_text_is_an_error() -> None:
    from tokenizers import AddedToken, Tokenizer, models

    backend = Tokenizer(models.BPE({"a": 0, "?": 1}, [], unk_token="?"))
    backend.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    with pytest.raises(DataError, match="Row x"):
        encode(table([row("x", [("a", "b")])]), ChatTokenizer(backend, {}, None))


@pytest.fixture(scope="module")
def byte_level() -> ChatTokenizer:
    """A byte-level tokenizer, like those of Llama 3 and Qwen."""
    from training.model.tiny import train_tokenizer

    return train_tokenizer(["some text to learn from, any will do"], ["<|im_start|>", "<|im_end|>", "<s>", "</s>"])


chat = st.lists(
    st.tuples(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30)), min_size=1, max_size=3
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(conversations=st.lists(chat, min_size=1, max_size=4), style=st.sampled_from(["llama2", "chatml"]))
def test_any_text_decodes_to_itself_and_its_answers_to_their_spans(
    byte_level: ChatTokenizer, conversations: list[list[tuple[str, str]]], style: Literal["llama2", "chatml"]
) -> None:
    """And a row of a block has the ids that it has alone."""
    rows = [row(str(number), pairs, style=style) for number, pairs in enumerate(conversations)]
    whole = encode_block(table(rows), byte_level)
    for number, columns in enumerate(rows):
        alone = encode_block(table([columns]), byte_level)
        part = slice(whole.bounds[number], whole.bounds[number + 1])
        assert (whole.ids[part] == alone.ids).all() and (whole.answer[part] == alone.answer).all()
        decode = byte_level.backend.decode
        assert decode(alone.ids.tolist(), skip_special_tokens=False) == columns["text"]
        for turn, span in enumerate(columns["spans"]):
            ids = alone.ids[alone.answer == turn].tolist()
            assert decode(ids, skip_special_tokens=False) == columns["text"][span["start"] : span["end"]]


def remove_labels(monkeypatch: pytest.MonkeyPatch, choose: Chooser) -> None:
    """Make the encoder lose labels: `choose` gets the bounds of each answer's tokens and returns those to lose."""
    from training.data import encode as module

    original = module._answer_numbers

    def with_lost_labels(*arguments: Any) -> NDArray[np.int32]:
        answers = original(*arguments)
        edges = np.flatnonzero(np.diff(answers, prepend=-1)).tolist() + [len(answers)]
        for a, b in zip(edges, edges[1:], strict=False):
            if answers[a] >= 0:
                answers[choose(a, b)] = -1
        return answers

    monkeypatch.setattr(module, "_answer_numbers", with_lost_labels)


@real
@pytest.mark.parametrize("answer", ["one two three four five", "你好 你好 你好"])
@pytest.mark.parametrize(
    "choose",
    [lambda a, b: a, lambda a, b: slice(a, a + 3), lambda a, b: (a + b) // 2, lambda a, b: b - 1],
    ids=["first", "first three", "middle", "last"],
)
def test_an_answer_with_an_untrained_token_is_an_error(
    llama2: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, answer: str, choose: Chooser
) -> None:
    rows = table([row("x", [("hi", answer), ("and", answer)])])
    encode(rows, llama2)
    remove_labels(monkeypatch, choose)
    with pytest.raises(DataError, match="Row x"):
        encode(rows, llama2)


def test_normalised_text_is_allowed_only_for_a_tokenizer_that_normalises(byte_level: ChatTokenizer) -> None:
    from tokenizers import Tokenizer, normalizers

    rows = table([row("x", [("hi", "cafe\u0301 ﬁne")], style="chatml")])  # e with a combining accent, and a ligature
    encoded = encode(rows, byte_level)
    assert byte_level.backend.decode(encoded.ids.tolist(), skip_special_tokens=False) == rows["text"][0].as_py()
    backend = Tokenizer.from_str(byte_level.backend.to_str())
    backend.encode_special_tokens = True
    backend.normalizer = normalizers.NFC()
    encode(rows, ChatTokenizer(backend, {}, None))  # the normaliser composes the accent
    from training.data import encode as module

    assert module._equal_text("café", "cafe\u0301", ChatTokenizer(backend, {}, None))
    assert not module._equal_text("fine", "ﬁne", ChatTokenizer(backend, {}, None))
    assert not module._equal_text("café", "cafe\u0301", byte_level)
    assert not module._equal_text("fine ", "fine", byte_level) and not module._equal_text("fine", "  fine", byte_level)


@pytest.mark.parametrize("dummy_prefix", [True, False])
def test_a_converted_model_with_user_defined_pieces_gives_sentencepieces_ids(
    tmp_path: Path, dummy_prefix: bool
) -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some <b>text</b> to learn from\tany will do"] * 20), model_writer=model,
        model_type="bpe", vocab_size=330, byte_fallback=True, user_defined_symbols=["<b>", "</b>", "\n\n"],
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=dummy_prefix,
        minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "config.json").write_text("{}")
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    converted = load_tokenizer(str(tmp_path))
    samples = ["a <b>text</b> to\n\nlearn", "any", "two  spaces <b> "]
    if (
        not dummy_prefix
    ):  # with it, SentencePiece adds a prefix even before a space or a piece; rows begin with a control
        samples += ["<b>x</b>", "\n\n\n some", "  two  spaces"]
    for sample in samples:
        assert converted.backend.encode(sample, add_special_tokens=False).ids == processor.encode(sample), sample
