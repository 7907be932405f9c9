"""Select the files of a Hub repository to read, by its card's configurations or by the names of the files.

The card is untrusted: its size, its nesting and its patterns are bounded, and every value is checked for its type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from dataprep.sources.containers import EXTENSIONS, JSON_EXTENSIONS
from dataprep.sources.splits import TRAIN, is_of_split

_MAX_CARD_BYTES = 1_000_000
_MAX_DEPTH = 30  # levels of nesting in the card's YAML
_MAX_NODES = 200_000  # values in the card's YAML, counting those that an alias repeats
_MAX_PATTERNS = 1_000  # patterns of a configuration, and characters of a pattern
_TREES_SUFFIX = "ready.trees.jsonl.gz"
# Groups of extensions, in order of preference; only files of the first group present are read, because repositories
# with several kinds of files have the same rows in each.
_JSON = tuple(end for end in EXTENSIONS if end.startswith(JSON_EXTENSIONS))
_OTHER = tuple(end for end in EXTENSIONS if end not in (*_JSON, ".parquet", ".arrow"))
_PREFERRED = ((".parquet",), _JSON, _OTHER, (".arrow",))


def latest_trees(names: Sequence[str]) -> list[str]:
    """Return the last file of ready trees, if there is one: exports are named by date, and each holds the earlier ones."""
    return sorted(name for name in names if name.endswith(_TREES_SUFFIX))[-1:]


def card_configs(card: bytes) -> list[dict[str, Any]]:
    """Return the `configs` of a card's YAML metadata; empty if it has none, or if its YAML is invalid.

    Raises:
        ValueError: the card is too large or too deeply nested, or its `configs` are not a list of mappings.
    """
    import yaml  # type: ignore[import-untyped]  # a dependency of the Hub's client

    if len(card) > _MAX_CARD_BYTES:
        raise ValueError(f"its card README.md has {len(card):,} bytes, more than {_MAX_CARD_BYTES:,}")
    front_matter = re.match(r"\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", card.decode(errors="replace"), re.S | re.M)
    if not front_matter:
        return []
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_yaml(yaml.parse(front_matter[1], loader))
        metadata = yaml.load(front_matter[1], loader)  # noqa: S506  # a safe loader: it makes plain values only
    except yaml.YAMLError:
        return []
    configs = metadata.get("configs") if isinstance(metadata, dict) else None
    if configs is None:
        return []
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        raise ValueError("the entry `configs` of its card README.md is not a list of mappings")
    return configs


def _check_yaml(events: Iterator[Any]) -> None:
    """Check nesting and size of a YAML document before its values are made: an alias repeats all that it names.

    Raises:
        ValueError: the document is nested too deeply or has too many values.
    """
    sizes: dict[str, int] = {}  # values below each anchor
    open_nodes: list[tuple[str | None, int]] = []  # anchor of each open collection, and the values counted before it
    nodes = 0
    for event in events:
        kind, anchor = type(event).__name__, getattr(event, "anchor", None)
        if kind in ("SequenceStartEvent", "MappingStartEvent"):
            open_nodes.append((anchor, nodes))
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            opened, before = open_nodes.pop()
            if opened:
                sizes[opened] = nodes - before
        elif kind == "AliasEvent":
            nodes += sizes.get(anchor or "", _MAX_NODES)  # an alias to a collection that is still open has no end
        elif kind == "ScalarEvent":
            nodes += 1
            if anchor:
                sizes[anchor] = 1
        if len(open_nodes) > _MAX_DEPTH or nodes > _MAX_NODES:
            raise ValueError("the metadata of its card README.md is nested too deeply or has too many values")


def select_files(
    names: Sequence[str], split: str | None, configs: Sequence[Mapping[str, Any]] = (), all_splits: bool = False
) -> list[str]:
    """Select the files of a repository to read.

    If its card has `configs`, these are the files of the default configuration. Otherwise they are all data files of one
    kind, Parquet before JSON before others. Without `split`, the files of `train` are selected if file names tell splits
    apart, otherwise all; with `all_splits`, all.

    Raises:
        ValueError: no file can be read, or no file belongs to `split`.
    """
    if configs:
        return _configured_files(names, split, _default_config(configs), all_splits)
    for extensions in _PREFERRED:
        data = sorted(name for name in names if name.endswith(extensions) and _is_data(name))
        if data:
            selected = [name for name in data if is_of_split(name, split or TRAIN)]
            if split and not selected:
                raise ValueError(f"it has no split '{split}': no file's name contains that word")
            return data if all_splits else selected or data
    kinds = sorted({f".{name.rsplit('.', 1)[-1]}" for name in names if "." in name.rsplit("/", 1)[-1].lstrip(".")})
    listed = f"its files end in {', '.join(kinds[:10])}" if kinds else "it has no files"
    raise ValueError(f"no file in it can be read: {listed}, and files that can be read end in {', '.join(EXTENSIONS)}")


def _default_config(configs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    marked = [config for config in configs if config.get("default") is True]
    named = [config for config in configs if config.get("config_name") == "default"]
    for candidates in (marked, named, configs):
        if len(candidates) == 1:
            return candidates[0]
    names = ", ".join(str(config.get("config_name"))[:60] for config in configs[:10])
    raise ValueError(
        f"its card has several configurations and no default one ({names}): download the files and name them"
    )


def _configured_files(
    names: Sequence[str], split: str | None, config: Mapping[str, Any], all_splits: bool
) -> list[str]:
    """Return the files of a configuration that only names files."""
    options = config.keys() - {"config_name", "data_files", "default"}
    if options:
        listed = ", ".join(sorted(map(str, options)))[:200]
        raise ValueError(
            f"its card sets {listed} for the data files, which is not supported: download them and name them"
        )
    patterns = _patterns_by_split(config.get("data_files"))
    if sum(map(len, patterns.values())) > _MAX_PATTERNS:
        raise ValueError(f"its card has more than {_MAX_PATTERNS:,} patterns of data files")
    if split is not None or TRAIN in patterns and not all_splits:
        wanted = {name: globs for name, globs in patterns.items() if is_of_split(name, split or TRAIN)}
        if not wanted:
            raise ValueError(f"it has no split '{split}'; its splits are: {', '.join(sorted(patterns))[:200]}")
        patterns = wanted
    selected = sorted({name for globs in patterns.values() for glob in globs for name in _matching(names, glob)})
    unreadable = [name for name in selected if not name.endswith(EXTENSIONS)]
    if unreadable:
        raise ValueError(f"its card names {unreadable[0][:200]}; files that can be read end in {', '.join(EXTENSIONS)}")
    if not selected:
        raise ValueError("no file in it matches the patterns in its card README.md")
    return selected


def _patterns_by_split(files: Any) -> dict[str, list[str]]:
    """Return the globs of each split in a card's `data_files`: a glob, a list of globs, or a list of splits with theirs.

    Raises:
        ValueError: `data_files` has another shape.
    """
    if _is_glob_or_globs(files):
        return {TRAIN: _as_list(files)}
    entries = files if isinstance(files, list) else []
    patterns: dict[str, list[str]] = {}
    for entry in entries:
        split, path = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(split, str) or not _is_glob_or_globs(path):
            patterns.clear()
            break
        patterns.setdefault(split, []).extend(_as_list(path))
    if not patterns:
        raise ValueError("the entry `data_files` of its card README.md names no files in a known way")
    return patterns


def _is_glob_or_globs(value: Any) -> bool:
    globs = value if isinstance(value, list) else [value]
    return bool(globs) and all(isinstance(glob, str) and len(glob) <= _MAX_PATTERNS for glob in globs)


def _as_list(globs: Any) -> list[str]:
    return [globs] if isinstance(globs, str) else globs


def _matching(names: Sequence[str], glob: str) -> list[str]:
    """Return the names that a glob matches; `*` does not match a slash, `**` does."""
    if not re.search(r"[*?]", glob):
        return [name for name in names if name == glob]
    # Rust's regular expressions take linear time for every pattern; Python's backtrack
    expression = f"^(?s:{_glob_to_regex(glob)})$"
    try:
        is_match = pl.Series(names, dtype=pl.String).str.contains(expression)
    except pl.exceptions.ComputeError:
        raise ValueError(f"its card has a pattern that is too large: {glob[:60]}…") from None
    return [name for name, matches in zip(names, is_match, strict=True) if matches]


def _glob_to_regex(pattern: str) -> str:
    translations = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(translations.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))


def _is_data(name: str) -> bool:
    return not name.rsplit("/", 1)[-1].startswith((".", "dataset_info"))
