"""Finds and reads chat templates: bundled ones, .jinja files, and the templates of models' tokenizers."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from dataprep.common.bundled import templates_folder
from dataprep.common.errors import TemplateError
from dataprep.common.text import excerpt, nearest
from dataprep.rendering.probe import completed
from dataprep.rendering.template import Template, require_valid

CONFIG = "tokenizer_config.json"
# Newer versions of transformers save the template in this file, which takes precedence over the configuration.
TEMPLATE_FILE = "chat_template.jinja"

_HEADER = re.compile(r"\A\s*\{#[-+]?(.*?)[-+]?#\}", re.DOTALL)
_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
# Bounds on what is read; real templates have up to 30 kB, tokenizers up to 40 MB, 6,000 special tokens and 60 characters.
MAX_TEMPLATE_BYTES = 1 << 20
MAX_JSON_BYTES = 256 << 20
MAX_TOKENS = 50_000
MAX_TOKEN_LENGTH = 500  # characters
_STRING_KEYS = ("source", "bos_token", "eos_token", "end_token")
_LIST_KEYS = ("special_tokens", "forbidden")


def list_templates() -> list[str]:
    """The names of the bundled templates."""
    return sorted(path.stem for path in templates_folder().glob("*.jinja"))


def load_template(name_or_path: str | Path, date: str | None = None) -> Template:
    """Load a template: a bundled name, a .jinja file, a tokenizer_config.json, or a folder that contains one.

    The result is well-formed. `Renderer` and `check_template` test whether it can be trained with.

    Args:
        name_or_path: the template.
        date: YYYY-MM-DD, what the template writes where it asks for the current date.
    Raises:
        TemplateError: an unknown name, an unreadable file, or a mistake in its header or syntax.
    """
    if date is not None:
        _check_date(date)
    path = _locate(str(name_or_path))
    if path.is_dir():
        path = path / CONFIG if (path / CONFIG).is_file() else path / TEMPLATE_FILE
        if not path.is_file():
            raise TemplateError(f"{path.parent} contains no {CONFIG} and no {TEMPLATE_FILE}: give a .jinja file.")
    template = _from_config(path) if path.suffix == ".json" else _from_jinja(path)
    if len(template.source) > MAX_TEMPLATE_BYTES or not _is_unicode(template.source):
        raise TemplateError(
            f"{path} has a chat template of over {MAX_TEMPLATE_BYTES >> 20} MiB, or one that is not Unicode."
        )
    require_valid(template, template.format_source if path.suffix == ".json" else str(path))
    return completed(replace(template, date=date))


def _check_date(text: str) -> None:
    try:
        valid = datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        valid = False
    if not valid:
        raise TemplateError(f"--template-date is '{excerpt(text, 80)}', and must be a date such as 2026-01-31.")


def _locate(name: str) -> Path:
    if name in list_templates():
        return templates_folder() / f"{name}.jinja"
    path = Path(name).expanduser()
    if path.exists():
        return path
    if "/" in name or path.suffix in (".jinja", ".json"):
        raise TemplateError(f"Cannot load the template {name}: no such file or folder.")
    raise TemplateError(f"Unknown template '{name}'. {nearest(name, list_templates())}")


def _read(path: Path, max_bytes: int = MAX_TEMPLATE_BYTES) -> str:
    """Read a text file of at most `max_bytes`.

    Raises:
        TemplateError: it cannot be read, is larger, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise TemplateError(f"{path} is larger than {max_bytes >> 20} MiB: that is not a chat template's file.")
        return content.decode()
    except OSError as error:
        raise TemplateError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from None


def _from_jinja(path: Path) -> Template:
    """Load a .jinja file with a header, or one without a header beside a tokenizer's configuration."""
    source = _read(path)
    header = _parse_header(path, source)
    config = path.parent / CONFIG
    if header is None and config.is_file():
        return _with_tokens(path.stem if path.name != TEMPLATE_FILE else path.parent.name, source, path, config)
    if header is None:
        guessed, unknown = guess_special_tokens(source), {"bos_token": "", "eos_token": ""}
        _check_tokens(path, guessed)
        return Template(path.stem, source, unknown, guessed, guessed_tokens=True)
    tokens = [header[name] for name in ("bos_token", "eos_token", "end_token") if header.get(name)]
    return Template(
        name=path.stem,
        source=source,
        variables={name: header[name] for name in ("bos_token", "eos_token") if name in header},
        special_tokens=tuple(dict.fromkeys((*header.get("special_tokens", ()), *tokens))),
        end_token=header.get("end_token"),
        forbidden=tuple(header.get("forbidden", ())),
        format_source=header.get("source", ""),
    )


# Spellings of special tokens that are common enough to be recognised: <|im_end|>, <｜User｜>, <end_of_turn>, <turn|>, </s>.
_TOKEN_SPELLING = re.compile(
    r"<\|[^|<>\s]+\|>|<｜[^｜<>\s]+｜>|</?s>|<(?:bos|eos)>|<(?:start|end)_of_(?:turn|utterance)>"
    r"|<\|?turn\|?>|<\|?(?:tool_)?(?:call|response|channel)\|?>"
)


def guess_special_tokens(source: str) -> tuple[str, ...]:
    """The special tokens in a template without header or tokenizer, recognised by their spelling."""
    return tuple(dict.fromkeys(_TOKEN_SPELLING.findall(source)))


def _parse_header(path: Path, source: str) -> dict[str, Any] | None:
    """Parse the TOML in the comment at the start of a template; None if there is no such header.

    Raises:
        TemplateError: invalid TOML, an unknown key, or a value of the wrong type.
    """
    comment = _HEADER.match(source)
    if comment is None or not re.search(rf"^\s*({'|'.join(_STRING_KEYS + _LIST_KEYS)})\s*=", comment[1], re.MULTILINE):
        return None
    try:
        header = tomllib.loads(comment[1])
    except ValueError as error:  # TOMLDecodeError, or a number of over 4,300 digits
        raise TemplateError(f"The header of {path} is not valid TOML: {excerpt(str(error))}.") from None
    except RecursionError:
        raise TemplateError(f"The header of {path} is nested too deeply.") from None
    for name, value in header.items():
        if name not in _STRING_KEYS + _LIST_KEYS:
            suggestion = nearest(name, _STRING_KEYS + _LIST_KEYS)
            raise TemplateError(f"The header of {path} has an unknown key '{excerpt(name, 80)}'. {suggestion}")
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not (is_list if name in _LIST_KEYS else isinstance(value, str)):
            expected = "a list of strings" if name in _LIST_KEYS else "a string"
            raise TemplateError(f"The header of {path} has {name} = {_quoted(value)}: it must be {expected}.")
    tokens = [header[name] for name in ("bos_token", "eos_token", "end_token") if name in header]
    _check_tokens(path, [*tokens, *header.get("special_tokens", ()), *header.get("forbidden", ())])
    return header


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path, MAX_JSON_BYTES))
    except ValueError as error:
        raise TemplateError(f"{path} is not valid JSON: {excerpt(str(error))}.") from None
    except RecursionError:
        raise TemplateError(f"{path} is not a tokenizer configuration: it is nested too deeply.") from None
    if not isinstance(value, dict):
        raise TemplateError(f"{path} is not a tokenizer configuration: it does not contain a JSON object.")
    return value


def _from_config(path: Path) -> Template:
    """Load the template of a tokenizer's configuration; a template file beside it takes precedence, as in transformers."""
    name, template_file = path.resolve().parent.name, path.parent / TEMPLATE_FILE
    if template_file.is_file():
        return _with_tokens(name, _read(template_file), template_file, path)
    source = _read_json(path).get("chat_template")
    if isinstance(source, list):
        entries = [entry for entry in source if isinstance(entry, dict) and {"name", "template"} <= entry.keys()]
        sources = {str(entry["name"]): entry["template"] for entry in entries}
        if "default" not in sources:
            raise TemplateError(
                f"{path} has several chat templates but none named 'default'. {nearest('default', _short_names(sources))}"
            )
        source = sources["default"]
    if not isinstance(source, str):
        raise TemplateError(
            f"{path} has no chat_template, and there is no {TEMPLATE_FILE} beside it: give a .jinja file."
        )
    return _with_tokens(name, source, path, path)


def _with_tokens(name: str, source: str, format_source: Path, config_path: Path) -> Template:
    """Combine a template with the special tokens of a tokenizer's configuration.

    The template's variables are those that transformers passes to it (`special_tokens_map`): the seven standard ones,
    others whose name ends in `_token`, and named extra tokens.
    """
    config = _read_json(config_path)
    # The second is the older name of the first.
    key = "extra_special_tokens" if config.get("extra_special_tokens") else "additional_special_tokens"
    extra = config.get(key) or []
    if not isinstance(extra, dict | list):
        raise TemplateError(
            f"{config_path} has {key} = {_quoted(extra)}: it must be a list of tokens or an object of tokens."
        )
    named = {name: value for name, value in config.items() if name in _TOKEN_NAMES or _is_token_entry(name, value)}
    named |= extra if isinstance(extra, dict) else {}
    variables = {name: _token_text(config_path, name, value) for name, value in named.items() if value is not None}
    decoder = config.get("added_tokens_decoder") or {}
    added = [*decoder.values()] if isinstance(decoder, dict) else []
    if not added and (config_path.parent / "tokenizer.json").is_file():
        added = _read_json(config_path.parent / "tokenizer.json").get("added_tokens") or []
    special = [token for token in added if isinstance(token, dict) and token.get("special")]
    special += extra if isinstance(extra, list) else []
    texts = [_token_text(config_path, "special token", token) for token in special]
    tokens = tuple(dict.fromkeys(token for token in (*texts, *variables.values()) if token))
    _check_tokens(config_path, tokens)
    return Template(name, source, variables, tokens, format_source=str(format_source))


def _is_token_entry(name: str, value: Any) -> bool:
    """Whether an entry is a token, such as `image_token`, and not a switch, such as `add_bos_token`."""
    return name.endswith("_token") and isinstance(value, str | dict)


def _token_text(path: Path, name: str, value: Any) -> str:
    """The text of a token that a configuration gives as a string or as an object with `content`.

    Raises:
        TemplateError: it is neither.
    """
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise TemplateError(
            f"{path} has {excerpt(name, 80)} = {_quoted(value)}: it must be a string or an object with a content."
        )
    return text


def _check_tokens(path: Path, tokens: Sequence[str]) -> None:
    """Raises:
    TemplateError: there are too many tokens, or one is too long or not valid Unicode.
    """
    if len(tokens) > MAX_TOKENS:
        raise TemplateError(f"{path} has {len(tokens):,} special tokens, and may have {MAX_TOKENS:,}.")
    for token in tokens:
        if len(token) > MAX_TOKEN_LENGTH:
            raise TemplateError(
                f"{path} has a special token of {len(token):,} characters, {_quoted(token)}: {MAX_TOKEN_LENGTH} are allowed."
            )
        if not _is_unicode(token):
            raise TemplateError(f"{path} has the special token {_quoted(token)}, which is not valid Unicode.")


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which JSON's escapes can write and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _short_names(names: Iterable[str]) -> list[str]:
    return [ascii(name)[1:-1] if not _is_unicode(name) else excerpt(name, 80) for name in islice(names, 20)]


def _quoted(value: Any) -> str:
    """A short text of a value of any size, for errors."""
    try:
        return ascii(value) if len(ascii(value)) <= 80 else f"{ascii(value)[:80]}…"
    except (ValueError, RecursionError):  # a number of over 4,300 digits, a list inside of a thousand lists
        return f"a {type(value).__name__}"
