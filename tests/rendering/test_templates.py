"""The bundled templates against transformers, golden texts and Meta's own rule; loading of others; bad templates."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dataprep.cli import templates
from dataprep.common.bundled import templates_folder
from dataprep.common.errors import InputError, TemplateError
from dataprep.rendering import Renderer, check_template, list_templates, load_template, render
from dataprep.rendering.rows import render_row
from tests.support.chats import BUNDLED, CHATS, SHOWN, chat, frame

GOLDEN = Path(__file__).parents[1] / "golden" / "templates"


def test_all_are_there_and_described() -> None:
    assert set(BUNDLED) <= set(list_templates())
    readme = (templates_folder() / "README.md").read_text(encoding="utf-8")
    for name in list_templates():
        assert f"`{name}`" in readme


@pytest.mark.parametrize("name", BUNDLED)
def test_is_sound_and_goes_by_columns(name: str) -> None:
    template = load_template(name)
    found = check_template(template)
    assert found.sound and found.way == "by columns" and not found.problems and not found.warnings
    assert template.format_source and template.end_token in template.special_tokens
    assert template.eos_token in template.special_tokens


@pytest.mark.parametrize("name", BUNDLED)
def test_renders_as_transformers_does(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    template = load_template(name)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=template.bos_token or None, eos_token=template.eos_token, unk_token="<unk>"
    )
    tokenizer.chat_template = template.source
    for messages in CHATS:
        for ask in (False, True):
            theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
            assert render(template, messages, add_generation_prompt=ask) == theirs


@pytest.mark.parametrize("name", BUNDLED)
def test_golden(name: str) -> None:
    """The text a person can read, with `▶…◀` around what is trained and `⟦…⟧` around control tokens."""
    rendered = render_row(load_template(name), SHOWN)
    marked = rendered.text
    inserts = [(start, "▶") for start, _ in rendered.spans] + [(end, "◀") for _, end in rendered.spans]
    inserts += [(start, "⟦") for start, _ in rendered.controls] + [(end, "⟧") for _, end in rendered.controls]
    # At one place: what ends comes first, a control inside of a span.
    for place, mark in sorted(inserts, key=lambda insert: (insert[0], "⟧◀▶⟦".index(insert[1])), reverse=True):
        marked = marked[:place] + mark + marked[place:]
    assert marked == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["llama2", "mistral", "vicuna", "alpaca", "gemma"])
def test_roles_that_do_not_alternate_are_refused(name: str) -> None:
    template = load_template(name)
    wrong = [chat("a") + chat("b"), [{"role": "assistant", "content": "a"}], [{"role": "tool", "content": "a"}]]
    for messages in wrong:
        with pytest.raises(TemplateError, match="alternate"):
            render(template, messages)
    assert Renderer(template).refusals(frame([*wrong, SHOWN]))["row"].to_list() == [100, 101, 102]


def test_tokens_can_be_given() -> None:
    text = render(load_template("llama2"), chat("a", "b"), bos_token="<B>", eos_token="<E>")
    assert text == "<B>[INST] a [/INST] b <E>"


# --- Meta's rule


def _tokenizer(real: Path) -> Any:
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(real / "llama2" / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # what is typed is text, as for Meta
    return tokenizer


def _ids(tokenizer: Any, text: str, controls: list[tuple[int, int]]) -> list[int]:
    """Cut at the controls, pieces encoded one by one, ids of the controls put in by hand."""
    ids: list[int] = []
    place = 0
    for start, end in [*controls, (len(text), len(text))]:
        if start > place:
            ids += tokenizer.encode(text[place:start], add_special_tokens=False).ids
        if end > start:
            ids.append(tokenizer.token_to_id(text[start:end]))
        place = end
    return ids


@pytest.mark.real
def test_llama2_gives_metas_golden_ids(real: Path) -> None:
    tokenizer, template = _tokenizer(real), load_template("llama2")
    dialogs = json.loads((real / "llama2" / "golden_dialog_token_ids.json").read_text())
    assert len(dialogs) >= 9 and sum(dialog["unsafe"] for dialog in dialogs) >= 2
    for dialog in dialogs:
        rendered = render_row(template, dialog["dialog"])
        assert _ids(tokenizer, rendered.text, rendered.controls) == dialog["meta_ids"]


@pytest.mark.real
def test_llama2_follows_metas_rule_on_all_of_guanaco(real: Path) -> None:
    tokenizer = _tokenizer(real)
    lines = (real / "guanaco" / "openassistant_best_replies_eval.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [re.split(r"### (?:Human|Assistant):", json.loads(line)["text"])[1:] for line in lines]
    chats = [chat(*row[: len(row) // 2 * 2]) for row in turns if len(row) > 1]
    assert len(chats) > 500
    for batch in Renderer(load_template("llama2")).batches(frame(chats)):
        for messages, text, spans, controls in zip(
            chats[batch.start :],
            batch.text.to_pylist(),
            batch.spans.to_pylist(),
            batch.controls.to_pylist(),
            strict=False,
        ):
            expected: list[int] = []
            for user, answer in zip(messages[::2], messages[1::2], strict=True):
                pair = f"[INST] {user['content'].strip()} [/INST] {answer['content'].strip()} "
                expected += [1, *tokenizer.encode(pair, add_special_tokens=False).ids, 2]
            assert _ids(tokenizer, text, [(c["start"], c["end"]) for c in controls]) == expected
            trained = [text[span["start"] : span["end"]] for span in spans]
            assert trained == [f" {answer['content'].strip()} </s>" for answer in messages[1::2]]


# --- Loading


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
BODY = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}"
BODY += "{% if add_generation_prompt %}<assistant>{% endif %}"


def _folder(path: Path, **config: Any) -> Path:
    (path / "tokenizer_config.json").write_text(json.dumps({**CONFIG, **config}))
    return path


def test_from_a_tokenizers_configuration(tmp_path: Path) -> None:
    folder = _folder(tmp_path, chat_template=BODY)
    for place in (folder, folder / "tokenizer_config.json"):
        template = load_template(str(place))
        assert template.name == tmp_path.name and template.source == BODY
        assert (template.bos_token, template.eos_token, template.end_token) == ("<s>", "</s>", "<end>")
        assert template.special_tokens == ("<unk>", "<end>", "<s>", "</s>")
        assert render(template, chat("a", "b")) == "<s><user>a<end><assistant>b<end>"


def test_from_a_list_of_templates_or_a_file_beside(tmp_path: Path) -> None:
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": BODY}]
    assert load_template(_folder(tmp_path, chat_template=several)).source == BODY
    with pytest.raises(TemplateError, match="none named 'default'. Available: tools"):
        load_template(_folder(tmp_path, chat_template=several[:1]))
    with pytest.raises(TemplateError, match="holds no chat_template"):
        load_template(_folder(tmp_path))
    (tmp_path / "chat_template.jinja").write_text(BODY)
    for place in (tmp_path, tmp_path / "chat_template.jinja"):
        assert load_template(_folder(place) if place.is_dir() else place).end_token == "<end>"


@pytest.mark.parametrize("key", ["extra_special_tokens", "additional_special_tokens"])
def test_a_tokenizers_folder_gives_what_transformers_renders(tmp_path: Path, key: str) -> None:
    """The file beside the configuration counts before it, and all named tokens are handed to the template."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", image_token="<img>"
    )
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    named = "{{ image_token }}{{ boi_token }}{{ add_bos_token }}"
    config |= {"chat_template": "old " + BODY, "add_bos_token": True}
    config.pop("extra_special_tokens", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, key: {"boi_token": "<boi>"}}))
    (tmp_path / "chat_template.jinja").write_text(named + BODY)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(chat("a", "b"), tokenize=False)
    assert theirs.startswith("<img><boi><s>")
    for place in (tmp_path, tmp_path / "tokenizer_config.json", tmp_path / "chat_template.jinja"):
        template = load_template(place)
        assert render(template, chat("a", "b")) == theirs
        assert {"<s>", "</s>", "<img>", "<boi>"} <= set(template.special_tokens)


def test_special_tokens_from_tokenizer_json(tmp_path: Path) -> None:
    folder = _folder(tmp_path, chat_template=BODY, added_tokens_decoder={})
    added = [{"content": "<end>", "special": True}, {"content": "<no>", "special": False}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert load_template(folder).special_tokens == ("<end>", "<s>", "</s>")


def test_the_hash_knows_the_tokens() -> None:
    one, other = load_template("llama2"), load_template("mistral")
    assert one.sha256 == load_template("llama2").sha256 != other.sha256
    assert one.facts()["sha256"] == one.sha256 and one.facts()["end_token"] == "</s>"
    assert {"<s>", "[INST]"} <= set(one.forbidden_in_content)


# --- Bad templates


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(TemplateError, match="Unknown template 'lama2'. Did you mean 'llama2'\\? Available: alpaca, "):
        load_template("lama2")
    with pytest.raises(TemplateError, match="no such file or folder"):
        load_template("./nowhere.jinja")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("first\n{% if x %}\n{{ y }", r"bad\.jinja, line 3: "),
        ("{{ messages | random }}", r"bad\.jinja, line 1: No filter named 'random'"),
        ("{#- end_token = 3 -#}x", "has end_token = 3: a string is wanted"),
        ('{#- special_tokens = "x" -#}x', "a list of strings is wanted"),
        ('{#- bos_tokn = "x"\nend_token = "y" -#}x', "unknown key 'bos_tokn'. Did you mean 'bos_token'"),
        ("{#- end_token = -#}x", "is no TOML"),
        ("{% autoescape true %}{{ x }}{% endautoescape %}", "HTML escaping"),
        ("{{" + "(" * 5000 + ")" * 5000 + "}}", "bad.jinja"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text(text)
    with pytest.raises(TemplateError, match=told):
        load_template(path)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "bad.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match="no UTF-8"):
        load_template(tmp_path / "bad.jinja")
    for text, told in (("{", "no JSON"), ("[" * 100_000, "nested too deeply"), ("[]", "no JSON object")):
        (tmp_path / "tokenizer_config.json").write_text(text)
        with pytest.raises(TemplateError, match=told):
            load_template(tmp_path)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"additional_special_tokens": 5}, "has additional_special_tokens = 5: a list of tokens"),
        ({"additional_special_tokens": "<a>"}, "has additional_special_tokens = '<a>': a list of tokens"),
        ({"extra_special_tokens": [["<a>"]]}, "has special token = ['<a>']: a string"),
        ({"bos_token": ["a"]}, "has bos_token = ['a']: a string, or an object with a content, is wanted"),
        ({"chat_template": "a\n{% if %}"}, "tokenizer_config.json, line 2: "),
    ],
)
def test_mistakes_in_a_configuration(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(told)):
        load_template(_folder(tmp_path, **{"chat_template": BODY, **config}))


HEADER = '{#- bos_token = "<s>"\neos_token = "</s>"\nspecial_tokens = ["<s>", "</s>"] -#}'
LOOP = "{% for m in messages %}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEADER + LOOP + "{{ m.content }}\n{% endfor %}", "never learn to stop"),
        (LOOP + "{{ m.content }}</s>{% endfor %}", "none is known: state them in its header"),
        (HEADER + LOOP + "{{ m.role }}</s>{% endfor %}", "does not write the assistant's answer"),
        (HEADER + "{{ ''.__class__.__mro__ }}", "leave its sandbox"),
        (HEADER + "{{ messages.append(1) }}", "leave its sandbox"),
        (HEADER + "{% set ns = namespace(_x=1) %}", "leave its sandbox"),
        (HEADER + "{% for x in range(999999999) %}{% endfor %}", "Range too big"),
        (HEADER + "{% for x in range(9999) %}{% for y in range(9999) %}{% endfor %}{% endfor %}", "300,000 steps"),
        (HEADER + "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(60) }}", "300,000 steps"),
        (
            HEADER + "{% for x in [1] recursive %}{{ loop(range(90000)) if loop.depth < 3 }}{% endfor %}",
            "300,000 steps",
        ),
        (HEADER + "{{ 'a' * 99999999999 }}", "longer than 1,000,000 with `*`"),
        (HEADER + "{{ 9 ** 99999999 }}", "longer than 1,000,000 with `**`"),
        (HEADER + "{{ strftime_now('%Y') }}", "asks for the day's date ('strftime_now' is undefined"),
        (HEADER + "{{ raise_exception('not today') }}", "refuses this conversation: not today."),
        (HEADER + "{{ 1 / 0 }}", "fails on this conversation"),
        (
            HEADER
            + LOOP
            + "<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}",
            "does not lead into an answer as it asks for one",
        ),
    ],
)
def test_unsound_templates_are_not_built_with(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "unsound.jinja"
    path.write_text(text)
    template = load_template(path)
    with pytest.raises(TemplateError, match=re.escape(told)):
        Renderer(template)
    found = check_template(template)
    assert not found.sound and told in found.problems[0] and found.way is None
    assert "not usable" in found.told() and json.dumps(found.facts())


def test_a_check_warns(tmp_path: Path) -> None:
    path = tmp_path / "weak.jinja"
    path.write_text(HEADER + LOOP + "<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}")
    warnings = "\n".join(check_template(load_template(path)).warnings)
    assert "'<|assistant|>' before each answer is trained" in warnings
    assert "<|assistant|> <|user|> may be typed" in warnings
    path.write_text(
        HEADER + LOOP + "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ strftime_now('%Y') if strftime_now is defined else 2024 }}{{ m.content }}</s>{% endfor %}"
    )
    found = load_template(path)
    warnings = "\n".join(check_template(found).warnings)
    assert "conversations with a system text are dropped" in warnings
    assert "`strftime_now` is not there" in warnings
    assert Renderer(found).warnings() == list(check_template(found).warnings)


# --- The command `templates render`


def test_a_message_of_tool_calls_needs_no_content(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    body = "{% for m in messages %}<{{ m.role }}>{{ m.tool_calls[0].name if m.tool_calls else m.content }}{% endfor %}"
    (tmp_path / "tools.jinja").write_text(body)
    found = [*chat("a"), {"role": "assistant", "tool_calls": [{"name": "f"}]}]
    (tmp_path / "chat.json").write_text(json.dumps(found))
    templates.render(str(tmp_path / "tools.jinja"), messages=tmp_path / "chat.json")
    assert capsysbinary.readouterr().out == b"<user>a<assistant>f"


@pytest.mark.parametrize(
    ("text", "told"),
    [("[" * 100_000, "nested too deeply"), ("{", "is no JSON"), ('[{"content": "a"}]', "holds no conversation")],
)
def test_files_that_hold_no_conversation(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "chat.json").write_text(text)
    with pytest.raises(InputError, match=told):
        templates.render("llama2", messages=tmp_path / "chat.json")
