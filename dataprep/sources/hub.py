"""Data sets on the Hugging Face Hub: `org/name[@revision][:split]`, pinned to a commit.

Files that our own readers know are downloaded as they are: OASST's trees (`…ready.trees.jsonl.gz`) where a repository
has them, else the files of its card's default configuration, else its Parquet or JSON files. A repository of nothing of
that sort goes through `datasets`. No code of a repository is ever run. `huggingface_hub` honours HF_ENDPOINT, HF_HOME
and the usual places of a token, and is imported only when a Hub id is named.
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
_TREES = "ready.trees.jsonl.gz"
_TRAIN = "train"
_CARD = "README.md"
_READ = ((".parquet",), tuple(end for end in EXTENSIONS if end.startswith(JSON_EXTENSIONS)))
# The words that `datasets` knows for one split.
_SPLIT_WORDS = (
    {"train", "training"},
    {"validation", "valid", "dev", "val"},
    {"test", "testing", "eval", "evaluation"},
)


class HubFile(NamedTuple):
    """One file of a repository, here. `digest` is empty where the file's bytes are the repository's own."""

    name: str
    path: Path
    commit: str
    digest: str


def is_id(source: str) -> bool:
    """Whether `source` has the form of a Hub id."""
    return _ID.fullmatch(source) is not None


def pinned(source: str) -> str:
    """`org/name@<commit>[:split]`: the Hub id `source` with the commit that its revision names now.

    Raises:
        InputError: as `files`.
    """
    parts = _ID.fullmatch(source)
    assert parts is not None
    if re.fullmatch("[0-9a-f]{40}", parts["revision"] or ""):
        return source
    with _telling(parts["repo"], parts["revision"]):
        commit = _info(parts["repo"], parts["revision"]).sha
    return f"{parts['repo']}@{commit}" + (f":{parts['split']}" if parts["split"] else "")


def files(source: str) -> list[HubFile]:
    """The data files of the repository that `source` names, downloaded or found in the Hub's cache.

    Raises:
        InputError: no such repository, revision or split; no access to it; or no way to the Hub.
    """
    parts = _ID.fullmatch(source)
    assert parts is not None
    with _telling(parts["repo"], parts["revision"]):
        return _fetched(parts["repo"], parts["revision"], parts["split"])


@contextmanager
def _telling(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what the client raises into one sentence about the repository."""
    from huggingface_hub import errors

    token(InputError)
    try:
        yield
    except (OSError, ValueError, errors.HTTPError) as fault:  # type: ignore[attr-defined]
        raise InputError(_told(repo, revision, fault)) from None


def _info(repo: str, revision: str | None) -> Any:
    import huggingface_hub

    return retried(lambda: huggingface_hub.HfApi().dataset_info(repo, revision=revision))


def _fetched(repo: str, revision: str | None, split: str | None) -> list[HubFile]:
    info = _info(repo, revision)
    commit = str(info.sha)
    there = [entry.rfilename for entry in info.siblings or []]
    names = trees(there) if split is None else []
    names = names or chosen(there, split, _configs(repo, commit) if _CARD in there else [])
    if not names:
        return retried(lambda: _through_datasets(repo, commit, split))
    return [HubFile(f"{repo}:{name}", _download(repo, name, commit), commit, "") for name in names]


def _download(repo: str, name: str, commit: str) -> Path:
    import huggingface_hub

    return Path(retried(lambda: huggingface_hub.hf_hub_download(repo, name, repo_type="dataset", revision=commit)))


def _configs(repo: str, commit: str) -> list[Any]:
    """The configurations that the card names: which files are the data set, and of which split."""
    import yaml  # type: ignore[import-untyped]  # which the Hub's client needs
    from huggingface_hub import metadata_load

    try:
        found = (metadata_load(_download(repo, _CARD, commit)) or {}).get("configs")
    except (ValueError, yaml.YAMLError):
        return []
    return found if isinstance(found, list) else []


def _through_datasets(repo: str, commit: str, split: str | None) -> list[HubFile]:
    """The Arrow files that `datasets` makes of a repository; their bytes depend on its version, the commit does not."""
    import datasets

    try:
        splits = datasets.load_dataset(repo, revision=commit)
    except (datasets.exceptions.DatasetsError, RuntimeError) as fault:  # the latter for a repository that is a script
        raise ValueError(f"`datasets` refuses it: {fault}") from None
    wanted = [split] if split else [_TRAIN] if _TRAIN in splits else sorted(splits)
    if split and split not in splits:
        raise ValueError(f"it has no split '{split}'; there are: {', '.join(sorted(splits))}")
    return [
        HubFile(f"{repo}:{name}", Path(file["filename"]), commit, f"{commit}:{name}/{number}")
        for name in wanted
        for number, file in enumerate(splits[name].cache_files)
    ]


def _told(repo: str, revision: str | None, fault: BaseException) -> str:
    """One sentence about why a repository cannot be read."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is that of the HTTP client it uses
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
        why = f"is gated: accept its terms at {page}, then {login}"
    elif isinstance(fault, RevisionNotFoundError):
        why = f"has no revision '{revision}': see {page}"
    elif isinstance(fault, RepositoryNotFoundError):
        why = f"is not on the Hub under that name, or is private ({login} if it is yours)"
    elif isinstance(fault, OfflineModeIsEnabled):
        why = "cannot be fetched, because HF_HUB_OFFLINE is set"
    elif isinstance(fault, HfHubHTTPError):
        status = fault.response.status_code
        busy = f" {len(WAITS) + 1} times" if status in BUSY else ""
        why = f"was refused by the Hub with status {status}{busy}" + (f": {login}" if status in (401, 403) else "")
    elif isinstance(fault, HTTPError | ConnectionError):
        why = f"cannot be fetched, because {constants.ENDPOINT} cannot be reached"
    else:
        why = f"cannot be read ({reason(fault)})"
    return f"The data set {repo} {why}; there is no local file or folder {repo} either."


def trees(names: Sequence[str]) -> list[str]:
    """The ready trees of a repository, if it has any: exports are named by date, and the last one holds the earlier ones."""
    return sorted(name for name in names if name.endswith(_TREES))[-1:]


def chosen(names: Sequence[str], split: str | None, configs: Sequence[Any] = ()) -> list[str]:
    """Which of a repository's files are read; none where only `datasets` can tell.

    Where its card has `configs`, those of the default one; else all of the one kind of data file that it has, Parquet
    before JSON, since repositories that have both have the same rows in each. Without a `split`, those of `train` where
    splits are told apart, all otherwise.
    """
    if configs:
        return _configured(names, split, configs)
    for extensions in _READ:
        data = sorted(name for name in names if name.endswith(extensions) and _is_data(name))
        if data:
            return [name for name in data if _is_of(name, split or _TRAIN)] or ([] if split else data)
    return []


def _configured(names: Sequence[str], split: str | None, configs: Sequence[Any]) -> list[str]:
    """The files of the default configuration, if it only names files and we read them."""
    whole = [config for config in configs if isinstance(config, dict)]
    default = [config for config in whole if config.get("default") or config.get("config_name") == "default"]
    [config] = default if len(default) == 1 else whole if len(whole) == 1 else [{}]
    if not config.keys() <= {"config_name", "data_files", "default"}:
        return []
    patterns = _patterns(config.get("data_files"))
    if split is None and _TRAIN not in patterns:
        wanted = [pattern for some in patterns.values() for pattern in some]
    else:
        wanted = [pattern for name, some in patterns.items() if _is_of(name, split or _TRAIN) for pattern in some]
    found = sorted({name for pattern in wanted for name in names if re.fullmatch(_as_regex(pattern), name)})
    return found if all(name.endswith(tuple(end for some in _READ for end in some)) for name in found) else []


def _patterns(files: Any) -> dict[str, list[str]]:
    """`data_files` of a card (a glob, several, or some for each split) by split; empty where it is of another shape."""
    if isinstance(files, str | list) and all(isinstance(entry, str) for entry in files):
        return {_TRAIN: [files] if isinstance(files, str) else files}
    try:
        return {entry["split"]: list(_patterns(entry["path"]).values())[0] for entry in files}
    except (LookupError, TypeError):
        return {}


def _as_regex(pattern: str) -> str:
    """A glob of a card: `*` stays in its folder, `**` does not."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(words.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))


def _is_data(name: str) -> bool:
    return not name.rsplit("/", 1)[-1].startswith((".", "dataset_info"))


def _is_of(name: str, split: str) -> bool:
    """Whether a path has `split`, or another word for it, as a word: `data/train-00000-of-00001.parquet`."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return bool(words & next((names for names in _SPLIT_WORDS if split.lower() in names), {split.lower()}))
