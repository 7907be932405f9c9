"""Fetch data sets from the Hugging Face Hub: `org/name[@revision][:split]`, pinned to a commit.

Files that our readers support are downloaded unchanged: OASST's trees (`…ready.trees.jsonl.gz`) if a repository has
them, otherwise the files of its card's default configuration, otherwise its Parquet or JSON files. `datasets` loads
any other repository. Code in a repository is never run. `huggingface_hub` honours HF_ENDPOINT, HF_HOME and the usual
places of a token; it is imported only if a source is a Hub id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dataprep.common.errors import InputError
from dataprep.common.hub import BUSY, WAITS, cause, reason, retried, token
from dataprep.sources.containers import EXTENSIONS, JSON_EXTENSIONS

_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<split>\w+))?")
_TREES_SUFFIX = "ready.trees.jsonl.gz"
_TRAIN = "train"
_CARD = "README.md"
# Groups of extensions, in order of preference; only files of the first group present are read.
_PREFERRED = ((".parquet",), tuple(end for end in EXTENSIONS if end.startswith(JSON_EXTENSIONS)))
# Synonyms for the names of splits, as `datasets` has them.
_SPLIT_SYNONYMS = (
    {"train", "training"},
    {"validation", "valid", "dev", "val"},
    {"test", "testing", "eval", "evaluation"},
)


class HubFile(NamedTuple):
    """A downloaded file of a repository. `digest` is empty if its bytes are those in the repository."""

    name: str
    path: Path
    commit: str
    digest: str


def is_id(source: str) -> bool:
    """Whether `source` has the form of a Hub id."""
    return _ID.fullmatch(source) is not None


def pinned(source: str) -> str:
    """Return `org/name@<commit>[:split]`: the Hub id `source` with the commit that its revision names now.

    Raises:
        InputError: as `files`.
    """
    parts = _ID.fullmatch(source)
    assert parts is not None
    if re.fullmatch("[0-9a-f]{40}", parts["revision"] or ""):
        return source
    with _one_sentence_errors(parts["repo"], parts["revision"]):
        commit = _info(parts["repo"], parts["revision"]).sha
    return f"{parts['repo']}@{commit}" + (f":{parts['split']}" if parts["split"] else "")


def files(source: str) -> list[HubFile]:
    """Return the data files of the repository `source`, downloaded or from the Hub's cache.

    Raises:
        InputError: the repository, revision or split does not exist or is not accessible, or the Hub is unreachable.
    """
    parts = _ID.fullmatch(source)
    assert parts is not None
    with _one_sentence_errors(parts["repo"], parts["revision"]):
        return _fetch(parts["repo"], parts["revision"], parts["split"])


@contextmanager
def _one_sentence_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Turn the client's exceptions into one sentence about the repository."""
    from huggingface_hub import errors

    token(InputError)
    try:
        yield
    except (OSError, ValueError, errors.HTTPError) as fault:  # type: ignore[attr-defined]
        raise InputError(_describe(repo, revision, fault)) from None


def _info(repo: str, revision: str | None) -> Any:
    import huggingface_hub

    return retried(lambda: huggingface_hub.HfApi().dataset_info(repo, revision=revision))


def _fetch(repo: str, revision: str | None, split: str | None) -> list[HubFile]:
    info = _info(repo, revision)
    commit = str(info.sha)
    names = [entry.rfilename for entry in info.siblings or []]
    selected = latest_trees(names) if split is None else []
    selected = selected or select_files(names, split, _configs(repo, commit) if _CARD in names else [])
    if not selected:
        return retried(lambda: _load_with_datasets(repo, commit, split))
    return [HubFile(f"{repo}:{name}", _download(repo, name, commit), commit, "") for name in selected]


def _download(repo: str, name: str, commit: str) -> Path:
    import huggingface_hub

    return Path(retried(lambda: huggingface_hub.hf_hub_download(repo, name, repo_type="dataset", revision=commit)))


def _configs(repo: str, commit: str) -> list[Any]:
    """Return the configurations in the card, which say which files belong to the data set and its splits."""
    import yaml  # type: ignore[import-untyped]  # a dependency of the Hub's client
    from huggingface_hub import metadata_load

    try:
        configs = (metadata_load(_download(repo, _CARD, commit)) or {}).get("configs")
    except (ValueError, yaml.YAMLError):
        return []
    return configs if isinstance(configs, list) else []


def _load_with_datasets(repo: str, commit: str, split: str | None) -> list[HubFile]:
    """Return the Arrow files to which `datasets` converts a repository.

    Their bytes depend on the version of `datasets`, so the commit identifies them instead of a hash.
    """
    import datasets

    try:
        splits = datasets.load_dataset(repo, revision=commit)
    except (datasets.exceptions.DatasetsError, RuntimeError) as fault:  # RuntimeError: the repository is a script
        raise ValueError(f"`datasets` cannot load it: {fault}") from None
    selected = [split] if split else [_TRAIN] if _TRAIN in splits else sorted(splits)
    if split and split not in splits:
        raise ValueError(f"it has no split '{split}'; its splits are: {', '.join(sorted(splits))}")
    return [
        HubFile(f"{repo}:{name}", Path(file["filename"]), commit, f"{commit}:{name}/{number}")
        for name in selected
        for number, file in enumerate(splits[name].cache_files)
    ]


def _describe(repo: str, revision: str | None, fault: BaseException) -> str:
    """Say in one sentence why a repository cannot be read."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is its HTTP client's
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    fault = cause(fault)
    login = "set HF_TOKEN or run `hf auth login`"
    page = f"{constants.ENDPOINT}/datasets/{repo}"
    if isinstance(fault, GatedRepoError):
        problem = f"is gated: accept its terms at {page}, then {login}"
    elif isinstance(fault, RevisionNotFoundError):
        problem = f"has no revision '{revision}': see {page}"
    elif isinstance(fault, RepositoryNotFoundError):
        problem = f"is not on the Hub under that name, or is private ({login} if it is yours)"
    elif isinstance(fault, OfflineModeIsEnabled):
        problem = "cannot be fetched, because HF_HUB_OFFLINE is set"
    elif isinstance(fault, HfHubHTTPError):
        status = fault.response.status_code
        busy = f" {len(WAITS) + 1} times" if status in BUSY else ""
        problem = f"was refused by the Hub with status {status}{busy}" + (f": {login}" if status in (401, 403) else "")
    elif isinstance(fault, HTTPError | ConnectionError):
        problem = f"cannot be fetched, because {constants.ENDPOINT} cannot be reached"
    else:
        problem = f"cannot be read ({reason(fault)})"
    return f"The data set {repo} {problem}; there is no local file or folder {repo} either."


def latest_trees(names: Sequence[str]) -> list[str]:
    """Return the last file of ready trees, if there is one: exports are named by date, and each holds the earlier ones."""
    return sorted(name for name in names if name.endswith(_TREES_SUFFIX))[-1:]


def select_files(names: Sequence[str], split: str | None, configs: Sequence[Any] = ()) -> list[str]:
    """Select the files of a repository to read; none if only `datasets` can load it.

    If its card has `configs`, these are the files of the default configuration. Otherwise they are all data files of one
    kind, Parquet before JSON, because repositories with both have the same rows in each. Without `split`, the files of
    `train` are selected if file names tell splits apart, otherwise all.
    """
    if configs:
        return _configured_files(names, split, configs)
    for extensions in _PREFERRED:
        data = sorted(name for name in names if name.endswith(extensions) and _is_data(name))
        if data:
            return [name for name in data if _is_of_split(name, split or _TRAIN)] or ([] if split else data)
    return []


def _configured_files(names: Sequence[str], split: str | None, configs: Sequence[Any]) -> list[str]:
    """Return the files of the default configuration, if it only names files and all of them can be read."""
    well_formed = [config for config in configs if isinstance(config, dict)]
    default = [config for config in well_formed if config.get("default") or config.get("config_name") == "default"]
    [config] = default if len(default) == 1 else well_formed if len(well_formed) == 1 else [{}]
    if not config.keys() <= {"config_name", "data_files", "default"}:
        return []
    patterns = _patterns_by_split(config.get("data_files"))
    if split is not None or _TRAIN in patterns:
        patterns = {name: globs for name, globs in patterns.items() if _is_of_split(name, split or _TRAIN)}
    expressions = [_glob_to_regex(pattern) for globs in patterns.values() for pattern in globs]
    matches = sorted({name for pattern in expressions for name in names if re.fullmatch(pattern, name)})
    readable = tuple(extension for extensions in _PREFERRED for extension in extensions)
    return matches if all(name.endswith(readable) for name in matches) else []


def _patterns_by_split(files: Any) -> dict[str, list[str]]:
    """Return the globs of each split in a card's `data_files` (a glob, a list, or one for each split).

    The result is empty if `data_files` has another shape.
    """
    if isinstance(files, str | list) and all(isinstance(entry, str) for entry in files):
        return {_TRAIN: [files] if isinstance(files, str) else files}
    try:
        return {entry["split"]: list(_patterns_by_split(entry["path"]).values())[0] for entry in files}
    except (LookupError, TypeError):
        return {}


def _glob_to_regex(pattern: str) -> str:
    """Translate a glob of a card: `*` does not match a slash, `**` does."""
    translations = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(translations.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))


def _is_data(name: str) -> bool:
    return not name.rsplit("/", 1)[-1].startswith((".", "dataset_info"))


def _is_of_split(name: str, split: str) -> bool:
    """Whether a path contains `split` or a synonym as a word: `data/train-00000-of-00001.parquet`."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return bool(words & next((names for names in _SPLIT_SYNONYMS if split.lower() in names), {split.lower()}))
