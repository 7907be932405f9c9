"""Loading of templates: names, .jinja files with headers, tokenizer configurations, and mistakes in all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.errors import TemplateError
from dataprep.rendering import check_template, load_template, render
from tests.support.chats import chat

CONFIG = {
    "bos_token": {"content": "<s>", "lstrip": False},
    "eos_token": "</s>",
    "unk_token": None,
    "added_tokens_decoder": {
        "0": {"content": "<unk>", "special": True},
        "3": {"content": "<end>", "special": True},
        "4": {"content": "<think>", "special": False},
    },
}
SOURCE = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}"
SOURCE += "{% if add_generation_prompt %}<assistant>{% endif %}"


def write_config(folder: Path, **entries: Any) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps({**CONFIG, **entries}))
    return folder


def test_a_tokenizers_configuration_gives_the_template_and_its_tokens(tmp_path: Path) -> None:
    folder = write_config(tmp_path, chat_template=SOURCE)
    for path in (folder, folder / "tokenizer_config.json"):
        template = load_template(str(path))
        assert template.name == tmp_path.name
        assert template.source == SOURCE
        assert (template.bos_token, template.eos_token, template.end_token) == ("<s>", "</s>", "<end>")
        assert template.special_tokens == ("<unk>", "<end>", "<s>", "</s>")
        assert render(template, chat("a", "b")) == "<s><user>a<end><assistant>b<end>"


def test_the_template_named_default_is_taken_from_a_list_of_templates(tmp_path: Path) -> None:
    templates = [{"name": "tools", "template": "x"}, {"name": "default", "template": SOURCE}]
    assert load_template(write_config(tmp_path, chat_template=templates)).source == SOURCE
    with pytest.raises(TemplateError, match="none named 'default'. Available: tools"):
        load_template(write_config(tmp_path, chat_template=templates[:1]))


def test_a_template_file_beside_the_configuration_is_used(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="has no chat_template"):
        load_template(write_config(tmp_path))
    (tmp_path / "chat_template.jinja").write_text(SOURCE)
    assert load_template(tmp_path).end_token == "<end>"
    assert load_template(tmp_path / "chat_template.jinja").end_token == "<end>"


@pytest.mark.parametrize("key", ["extra_special_tokens", "additional_special_tokens"])
def test_a_tokenizers_folder_renders_as_in_transformers(tmp_path: Path, key: str) -> None:
    """The file beside the configuration takes precedence, and all named tokens are passed to the template."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", image_token="<img>"
    )
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    named = "{{ image_token }}{{ boi_token }}{{ add_bos_token }}"
    config |= {"chat_template": "old " + SOURCE, "add_bos_token": True}
    config.pop("extra_special_tokens", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, key: {"boi_token": "<boi>"}}))
    (tmp_path / "chat_template.jinja").write_text(named + SOURCE)
    expected = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(chat("a", "b"), tokenize=False)
    assert expected.startswith("<img><boi><s>")
    for path in (tmp_path, tmp_path / "tokenizer_config.json", tmp_path / "chat_template.jinja"):
        template = load_template(path)
        assert render(template, chat("a", "b")) == expected
        assert {"<s>", "</s>", "<img>", "<boi>"} <= set(template.special_tokens)


def test_special_tokens_are_read_from_tokenizer_json(tmp_path: Path) -> None:
    folder = write_config(tmp_path, chat_template=SOURCE, added_tokens_decoder={})
    added = [{"content": "<end>", "special": True}, {"content": "<no>", "special": False}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert load_template(folder).special_tokens == ("<end>", "<s>", "</s>")


def test_the_digest_covers_source_and_tokens() -> None:
    llama2, mistral = load_template("llama2"), load_template("mistral")
    assert llama2.sha256 == load_template("llama2").sha256
    assert llama2.sha256 != mistral.sha256


def test_the_manifest_entry_has_the_digest_and_the_end_token() -> None:
    llama2 = load_template("llama2")
    assert llama2.to_manifest()["sha256"] == llama2.sha256
    assert llama2.to_manifest()["end_token"] == "</s>"
    assert {"<s>", "[INST]"} <= set(llama2.forbidden_in_content)


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(TemplateError, match="Unknown template 'lama2'. Did you mean 'llama2'\\? Available: alpaca, "):
        load_template("lama2")
    with pytest.raises(TemplateError, match="no such file or folder"):
        load_template("./nowhere.jinja")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first\n{% if x %}\n{{ y }", r"bad\.jinja, line 3: "),
        ("{{ messages | random }}", r"bad\.jinja, line 1: No filter named 'random'"),
        ("{#- end_token = 3 -#}x", "has end_token = 3: it must be a string"),
        ('{#- special_tokens = "x" -#}x', "it must be a list of strings"),
        ('{#- bos_tokn = "x"\nend_token = "y" -#}x', "unknown key 'bos_tokn'. Did you mean 'bos_token'"),
        ("{#- end_token = -#}x", "is not valid TOML"),
        ("{% autoescape true %}{{ x }}{% endautoescape %}", "HTML escaping"),
        ("{{" + "(" * 5000 + ")" * 5000 + "}}", "bad.jinja"),
    ],
)
def test_a_mistake_in_a_template_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text(text)
    with pytest.raises(TemplateError, match=message):
        load_template(path)


def test_a_template_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match="is not UTF-8"):
        load_template(tmp_path / "bad.jinja")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "does not contain a JSON object"),
    ],
    ids=["cut off", "deep", "a list"],
)
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(TemplateError, match=message):
        load_template(tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"additional_special_tokens": 5}, "has additional_special_tokens = 5: it must be a list of tokens"),
        ({"additional_special_tokens": "<a>"}, "has additional_special_tokens = '<a>': it must be a list of tokens"),
        ({"extra_special_tokens": [["<a>"]]}, "has special token = ['<a>']: it must be a string"),
        ({"bos_token": ["a"]}, "has bos_token = ['a']: it must be a string or an object with a content"),
        ({"chat_template": "a\n{% if %}"}, "tokenizer_config.json, line 2: "),
    ],
)
def test_a_mistake_in_a_configuration_is_named(tmp_path: Path, entries: dict[str, Any], message: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(message)):
        load_template(write_config(tmp_path, **{"chat_template": SOURCE, **entries}))


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"bos_token": "x" * 1_000_000}, "has a special token of 1,000,000 characters"),
        ({"additional_special_tokens": ["x" * 1_000_000]}, "has a special token of 1,000,000 characters"),
        ({"additional_special_tokens": [f"<{n}>" for n in range(60_000)]}, "special tokens, and may have 50,000"),
        ({"eos_token": "\ud800"}, "which is not valid Unicode"),
        ({"chat_template": "\udfff" + SOURCE}, "or one that is not Unicode"),
        ({"chat_template": "x" * (2 << 20)}, "has a chat template of over 1 MiB"),
        ({"bos_token": ["x" * 1_000_000]}, "must be a string or an object with a content"),
        ({"x" * 100_000 + "_token": {"a": 1}}, "must be a string or an object with a content"),
        ({"extra_special_tokens": "x" * 1_000_000}, "it must be a list of tokens or an object of tokens"),
        ({"chat_template": [{"name": "x" * 100_000, "template": SOURCE}]}, "none named 'default'"),
    ],
    ids=range(10),
)
def test_oversized_and_malformed_entries_of_a_configuration_are_short_sentences(
    tmp_path: Path, entries: dict[str, Any], sentence: str
) -> None:
    path = write_config(tmp_path, **({"chat_template": SOURCE} | entries))
    with pytest.raises(TemplateError) as error:
        load_template(path)
    assert sentence in str(error.value)
    str(error.value).encode()
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (f'eos_token = "{"x" * 1_000}"', "has a special token of 1,000 characters"),
        (f"special_tokens = {'[' * 3_000}{']' * 3_000}", "is nested too deeply"),
        (f"special_tokens = {'9' * 5_000}", "is not valid TOML"),
        (f'special_tokens = [1, "{"x" * 100_000}"]', "it must be a list of strings"),
    ],
    ids=range(4),
)
def test_oversized_and_malformed_headers_are_short_sentences(tmp_path: Path, header: str, sentence: str) -> None:
    path = tmp_path / "t.jinja"
    path.write_text(f"{{#-\n{header}\n-#}}{SOURCE}")
    with pytest.raises(TemplateError) as error:
        load_template(path)
    assert sentence in str(error.value)
    assert len(str(error.value)) < 600


def test_a_file_that_is_larger_than_any_template_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("x" * (2 << 20))
    with pytest.raises(TemplateError, match="is larger than 1 MiB"):
        load_template(path)


@pytest.mark.parametrize("date", ["yesterday", "2026-13-01", "20260131"])
def test_a_date_of_another_form_is_refused(date: str) -> None:
    with pytest.raises(TemplateError, match="must be a date such as 2026-01-31"):
        load_template("llama2", date)


def test_special_tokens_of_a_bare_file_are_guessed_and_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "bare.jinja"
    path.write_text("{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}")
    template = load_template(path)
    assert template.special_tokens == ("<|end|>",)
    assert template.end_token == "<|end|>"
    warnings = "\n".join(check_template(template).warnings)
    assert "its special tokens were guessed from their spelling: <|end|>" in warnings
    assert "bos_token is not known and is written as nothing" in warnings
