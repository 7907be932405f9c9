"""Ids and labels: Meta's for Llama 2, and every answer given back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.training_builds import REAL, Writer, guanaco_pairs, row, table
from training.data.encode import encode, encode_block
from training.errors import DataError, ModelError

real = pytest.mark.real


def sentencepiece_model(tokenizer_json, path):
    """The `tokenizer.model` that the real tokenizer.json was made from: scores by id, runs of spaces last."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    facts = json.loads(tokenizer_json.read_text("utf-8"))
    model = proto.ModelProto()
    for piece, number in sorted(facts["model"]["vocab"].items(), key=lambda item: item[1]):
        entry = model.pieces.add()
        entry.piece, entry.score = piece, float(-(number - 259)) if number >= 259 else 0.0
        if len(piece) > 1 and set(piece) == {"▁"}:
            entry.score = (
                -1e9
            )  # runs of spaces come last, all with one score: see their merges' place in tokenizer.json
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
def meta(tmp_path_factory, llama2):
    """Meta's own tokenizer: SentencePiece on its model."""
    import sentencepiece

    path = sentencepiece_model(REAL / "llama2" / "tokenizer.json", tmp_path_factory.mktemp("sp") / "tokenizer.model")
    return sentencepiece.SentencePieceProcessor(model_file=str(path)), path


@pytest.fixture(scope="module")
def converted(meta):
    from training.model.tokenizer import load_tokenizer

    return load_tokenizer(str(meta[1].parent))


def metas_rule(processor, pairs):
    """llama/generation.py, chat_completion: each pair on its own, between BOS and EOS."""
    ids = []
    for question, answer in pairs:
        text = f"[INST] {question.strip()} [/INST] {answer.strip()} "
        ids += [processor.bos_id(), *processor.encode(text), processor.eos_id()]
    return ids


@real
def test_golden_dialogs(llama2):
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
def test_guanaco_ids_are_metas(llama2, meta, guanaco):
    encoded = encode(table(guanaco), llama2)
    for number, pairs in enumerate(guanaco_pairs().values()):
        found = encoded.ids[encoded.bounds[number] : encoded.bounds[number + 1]]
        assert found.tolist() == metas_rule(meta[0], pairs)


@real
@pytest.mark.parametrize("legacy", [True, False, None])
def test_any_legacy_setting_and_a_lone_model_give_the_same_ids(tmp_path, llama2, meta, guanaco, legacy):
    from training.model.tokenizer import load_tokenizer

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "eos_token": "</s>", "bos_token": "<s>"})
    )
    source = REAL / "llama2" / "tokenizer.json" if legacy is not None else meta[1]
    (folder / source.name).write_bytes(source.read_bytes())
    rows = table(guanaco[:100])
    assert (encode(rows, load_tokenizer(str(folder))).ids == encode(rows, llama2).ids).all()


@real
@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("▁ \t\nab<>/s[]INST你😀é#"), max_size=40))
def test_a_lone_model_equals_sentencepiece(meta, converted, text):
    assert converted.backend.encode(text, add_special_tokens=False).ids == meta[0].encode(text)


@real
def test_labels_against_an_independent_count(llama2, guanaco):
    """Trained ids decode to exactly the answers' characters: one space, the answer, one space and the end token."""
    encoded = encode(table(guanaco), llama2)
    for number, pairs in enumerate(guanaco_pairs().values()):
        part = slice(encoded.bounds[number], encoded.bounds[number + 1])
        ids, span = encoded.ids[part], encoded.span[part]
        for place, (_, answer) in enumerate(pairs):
            told = llama2.backend.decode(ids[span == place].tolist(), skip_special_tokens=False)
            assert told in (f" {answer.strip()} </s>", f"{answer.strip()} </s>")
        assert (span == len(pairs)).sum() == 0
        assert (ids[np.flatnonzero(span >= 0)] == 2).sum() == len(pairs)  # each end token is trained
        assert (ids[span < 0] == 1).sum() == len(pairs)  # no <s> is


@real
def test_typed_controls_stay_text(llama2):
    encoded = encode(table([row("x", [("what is </s>?", "an <s> end </s> mark")])]), llama2)
    assert (encoded.ids == 2).sum() == 1 and (encoded.ids == 1).sum() == 1


@real
def test_an_answer_that_starts_with_the_space_alone(llama2):
    encoded = encode(table([row("x", [("hi", "你好")])]), llama2)
    assert encoded.ids[encoded.span >= 0][0] == 29871  # ▁, the space after [/INST]


@real
def test_a_special_token_that_the_tokenizer_lacks_is_named(llama2):
    with pytest.raises(ModelError, match="im_start"):
        encode(table([row("x", [("a", "b")], style="chatml")]), llama2)


def test_a_tokenizer_that_cannot_hold_the_text_is_told():
    from tokenizers import AddedToken, Tokenizer, models

    from training.model.tokenizer import ChatTokenizer

    backend = Tokenizer(models.BPE({"a": 0, "?": 1}, [], unk_token="?"))
    backend.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    with pytest.raises(DataError, match="Row x"):
        encode(table([row("x", [("a", "b")])]), ChatTokenizer(backend, {}, None))


@pytest.fixture(scope="module")
def bytes_vocabulary():
    """A byte-level vocabulary, as Llama 3's and Qwen's are."""
    from training.model.tiny import train_tokenizer

    return train_tokenizer(["some text to learn from, any will do"], ["<|im_start|>", "<|im_end|>", "<s>", "</s>"])


chat = st.lists(
    st.tuples(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30)), min_size=1, max_size=3
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(conversations=st.lists(chat, min_size=1, max_size=4), style=st.sampled_from(["llama2", "chatml"]))
def test_any_text_any_template(bytes_vocabulary, conversations, style):
    """Blocks give what rows give; decoding everything gives the text back; trained tokens are the spans."""
    rows = [row(str(number), pairs, style=style) for number, pairs in enumerate(conversations)]
    whole = encode_block(table(rows), bytes_vocabulary)
    for number, columns in enumerate(rows):
        alone = encode_block(table([columns]), bytes_vocabulary)
        part = slice(whole.bounds[number], whole.bounds[number + 1])
        assert (whole.ids[part] == alone.ids).all() and (whole.span[part] == alone.span).all()
        decode = bytes_vocabulary.backend.decode
        assert decode(alone.ids.tolist(), skip_special_tokens=False) == columns["text"]
        for place, span in enumerate(columns["spans"]):
            ids = alone.ids[alone.span == place].tolist()
            assert decode(ids, skip_special_tokens=False) == columns["text"][span["start"] : span["end"]]


def mutated(monkeypatch, change):
    """Labels made wrong on purpose: `change` gets each answer's trained places and says which lose their label."""
    from training.data import encode as module

    answers = module._answers

    def wrong(*arguments):
        span = answers(*arguments)
        edges = np.flatnonzero(np.diff(span, prepend=-1)).tolist() + [len(span)]
        for a, b in zip(edges, edges[1:], strict=False):
            if span[a] >= 0:
                span[change(a, b)] = -1
        return span

    monkeypatch.setattr(module, "_answers", wrong)


@real
@pytest.mark.parametrize("answer", ["one two three four five", "你好 你好 你好"])
@pytest.mark.parametrize(
    "change",
    [lambda a, b: a, lambda a, b: slice(a, a + 3), lambda a, b: (a + b) // 2, lambda a, b: b - 1],
    ids=["first", "first three", "middle", "last"],
)
def test_an_answer_with_a_token_untrained_is_found(llama2, monkeypatch, answer, change):
    rows = table([row("x", [("hi", answer), ("and", answer)])])
    encode(rows, llama2)
    mutated(monkeypatch, change)
    with pytest.raises(DataError, match="Row x"):
        encode(rows, llama2)


def test_what_a_normaliser_changes_is_let_pass_only_where_there_is_one(bytes_vocabulary):
    from tokenizers import Tokenizer, normalizers

    from training.model.tokenizer import ChatTokenizer

    rows = table([row("x", [("hi", "cafe\u0301 ﬁne")], style="chatml")])  # e with an accent of its own, and a ligature
    found = encode(rows, bytes_vocabulary)
    assert bytes_vocabulary.backend.decode(found.ids.tolist(), skip_special_tokens=False) == rows["text"][0].as_py()
    backend = Tokenizer.from_str(bytes_vocabulary.backend.to_str())
    backend.encode_special_tokens = True
    backend.normalizer = normalizers.NFC()
    encode(rows, ChatTokenizer(backend, {}, None))  # the accent is joined, as the tokenizer's makers want it
    from training.data import encode as module

    assert module._same("café", "cafe\u0301", ChatTokenizer(backend, {}, None))
    assert not module._same("fine", "ﬁne", ChatTokenizer(backend, {}, None))
    assert not module._same("café", "cafe\u0301", bytes_vocabulary)
    assert not module._same("fine ", "fine", bytes_vocabulary) and not module._same("fine", "  fine", bytes_vocabulary)
