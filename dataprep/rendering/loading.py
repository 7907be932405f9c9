"""Finding and reading chat templates: bundled ones, .jinja files, and what lies beside a model's tokenizer."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from dataprep.common.bundled import templates_folder
from dataprep.common.errors import TemplateError
from dataprep.common.text import nearest
from dataprep.rendering.probe import with_end_token
from dataprep.rendering.template import Template, compiled

CONFIG = "tokenizer_config.json"
BESIDE = "chat_template.jinja"  # where newer transformers puts the template; it counts before the configuration's own

_HEADER = re.compile(r"\A\s*\{#[-+]?(.*?)[-+]?#\}", re.DOTALL)
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_TEXTS = ("source", "bos_token", "eos_token", "end_token")
_LISTS = ("special_tokens", "forbidden")


def list_templates() -> list[str]:
    """Names of the bundled templates."""
    return sorted(path.stem for path in templates_folder().glob("*.jinja"))


def load_template(name_or_path: str | Path) -> Template:
    """A template by its bundled name, or from a .jinja file, a tokenizer_config.json, or a folder that holds one.

    It is well-formed then; that it can be trained on is for `Renderer` to require and for `check_template` to tell.

    Raises:
        TemplateError: an unknown name, a file that cannot be read, a mistake in its header or syntax.
    """
    path = _find(str(name_or_path))
    if path.is_dir():
        path = path / CONFIG if (path / CONFIG).is_file() else path / BESIDE
        if not path.is_file():
            raise TemplateError(f"There is no {CONFIG} and no {BESIDE} in {path.parent}: name a .jinja file.")
    template = _from_config(path) if path.suffix == ".json" else _from_jinja(path)
    compiled(template.source, template.format_source if path.suffix == ".json" else str(path))
    return with_end_token(template)


def _find(name: str) -> Path:
    if name in list_templates():
        return templates_folder() / f"{name}.jinja"
    path = Path(name).expanduser()
    if path.exists():
        return path
    if "/" in name or path.suffix in (".jinja", ".json"):
        raise TemplateError(f"There is no template in {name}: no such file or folder.")
    raise TemplateError(f"Unknown template '{name}'. {nearest(name, list_templates())}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as fault:
        raise TemplateError(f"{path} cannot be read: {fault.strerror}.") from None
    except UnicodeDecodeError as fault:
        raise TemplateError(f"{path} is no UTF-8 text (byte {fault.start}): save it as UTF-8.") from None


def _from_jinja(path: Path) -> Template:
    """A .jinja file with a header; or without one, with a tokenizer's configuration beside it."""
    source = _read(path)
    header = _header(path, source)
    beside = path.parent / CONFIG
    if header is None and beside.is_file():
        return _with_tokens(path.stem if path.name != BESIDE else path.parent.name, source, path, beside)
    header = header or {}
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


def _header(path: Path, source: str) -> dict[str, Any] | None:
    """The TOML in the comment that a template begins with; None where there is none.

    Raises:
        TemplateError: TOML with a mistake, an unknown key, or a value of another type.
    """
    comment = _HEADER.match(source)
    if comment is None or not re.search(rf"^\s*({'|'.join(_TEXTS + _LISTS)})\s*=", comment[1], re.MULTILINE):
        return None
    try:
        header = tomllib.loads(comment[1])
    except tomllib.TOMLDecodeError as fault:
        raise TemplateError(f"The header of {path} is no TOML: {fault}.") from None
    for name, value in header.items():
        if name not in _TEXTS + _LISTS:
            raise TemplateError(f"The header of {path} has an unknown key '{name}'. {nearest(name, _TEXTS + _LISTS)}")
        listed = isinstance(value, list) and all(isinstance(one, str) for one in value)
        if not (listed if name in _LISTS else isinstance(value, str)):
            wanted = "a list of strings" if name in _LISTS else "a string"
            raise TemplateError(f"The header of {path} has {name} = {value!r}: {wanted} is wanted.")
    return header


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path))
    except ValueError as fault:
        raise TemplateError(f"{path} is no JSON: {fault}.") from None
    except RecursionError:
        raise TemplateError(f"{path} is no tokenizer configuration: it is nested too deeply.") from None
    if not isinstance(found, dict):
        raise TemplateError(f"{path} is no tokenizer configuration: it holds no JSON object.")
    return found


def _from_config(path: Path) -> Template:
    """The template of a tokenizer's configuration; the one in the file beside it, where there is one, as in transformers."""
    name, beside = path.resolve().parent.name, path.parent / BESIDE
    if beside.is_file():
        return _with_tokens(name, _read(beside), beside, path)
    source = _json(path).get("chat_template")
    if isinstance(source, list):
        whole = [entry for entry in source if isinstance(entry, dict) and {"name", "template"} <= entry.keys()]
        named = {str(entry["name"]): entry["template"] for entry in whole}
        if "default" not in named:
            raise TemplateError(
                f"{path} has several chat templates and none named 'default'. {nearest('default', named)}"
            )
        source = named["default"]
    if not isinstance(source, str):
        raise TemplateError(f"{path} holds no chat_template, and there is no {BESIDE} beside it: name a .jinja file.")
    return _with_tokens(name, source, path, path)


def _with_tokens(name: str, source: str, found_in: Path, config_file: Path) -> Template:
    """A template with the special tokens of a tokenizer's configuration.

    By name the template gets what transformers hands to it (`special_tokens_map`): the usual seven, what else is called
    `…_token`, and the extra tokens where these have names.
    """
    config = _json(config_file)
    key = (
        "extra_special_tokens" if config.get("extra_special_tokens") else "additional_special_tokens"
    )  # the older word
    extra = config.get(key) or []
    if not isinstance(extra, dict | list):
        raise TemplateError(f"{config_file} has {key} = {extra!r}: a list of tokens, or an object of them, is wanted.")
    named = {name: value for name, value in config.items() if name in _NAMED or _names_token(name, value)}
    named |= extra if isinstance(extra, dict) else {}
    variables = {name: _token(config_file, name, value) for name, value in named.items() if value is not None}
    added = config.get("added_tokens_decoder") or {}
    listed = [*added.values()] if isinstance(added, dict) else []
    if not listed and (config_file.parent / "tokenizer.json").is_file():
        listed = _json(config_file.parent / "tokenizer.json").get("added_tokens") or []
    special = [token for token in listed if isinstance(token, dict) and token.get("special")]
    special += extra if isinstance(extra, list) else []
    texts = [_token(config_file, "special token", token) for token in special]
    tokens = tuple(dict.fromkeys(token for token in (*texts, *variables.values()) if token))
    return Template(name, source, variables, tokens, format_source=str(found_in))


def _names_token(name: str, value: Any) -> bool:
    """`image_token` and the like; not `add_bos_token`, which is a switch."""
    return name.endswith("_token") and isinstance(value, str | dict)


def _token(path: Path, name: str, value: Any) -> str:
    """A token as configurations write it: a string, or an object with `content`.

    Raises:
        TemplateError: it is neither.
    """
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise TemplateError(f"{path} has {name} = {value!r}: a string, or an object with a content, is wanted.")
    return text
