"""Data sets on the Hugging Face Hub: `org/name[@revision][:split]`, pinned to a commit.

Files that our own readers know are downloaded as they are: OASST's trees (`…ready.trees.jsonl.gz`) where a repository
has them, else its Parquet or JSON files. A repository of nothing of that sort goes through `datasets`. No code of a
repository is ever run. `huggingface_hub` honours HF_ENDPOINT, HF_HOME and the usual places of a token, and is imported
only when a Hub id is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dataprep.errors import InputError
from dataprep.sources.containers import EXTENSIONS, JSON_EXTENSIONS

_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<split>\w+))?")
_TREES = "ready.trees.jsonl.gz"
_TRAIN = "train"
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
        import huggingface_hub

        commit = huggingface_hub.HfApi().dataset_info(parts["repo"], revision=parts["revision"]).sha
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

    try:
        yield
    except (OSError, ValueError, errors.HTTPError) as fault:  # type: ignore[attr-defined]
        raise InputError(_told(repo, revision, fault)) from None


def _fetched(repo: str, revision: str | None, split: str | None) -> list[HubFile]:
    import huggingface_hub

    info = huggingface_hub.HfApi().dataset_info(repo, revision=revision)
    commit = str(info.sha)
    names = chosen([entry.rfilename for entry in info.siblings or []], split)
    if not names:
        return _through_datasets(repo, commit, split)
    paths = [huggingface_hub.hf_hub_download(repo, name, repo_type="dataset", revision=commit) for name in names]
    return [HubFile(f"{repo}:{name}", Path(path), commit, "") for name, path in zip(names, paths, strict=True)]


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


def _told(repo: str, revision: str | None, fault: Exception) -> str:
    """One sentence about why a repository cannot be read. What the Hub answers is not repeated: it may be a page."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is that of the HTTP client it uses
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

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
        why = f"was refused by the Hub with status {status}" + (f": {login}" if status in (401, 403) else "")
    elif isinstance(fault, HTTPError | ConnectionError):
        why = f"cannot be fetched, because {constants.ENDPOINT} cannot be reached"
    else:
        why = f"cannot be read ({str(fault).splitlines()[0] if str(fault) else type(fault).__name__})"
    return f"The data set {repo} {why}; there is no local file or folder {repo} either."


def chosen(names: Sequence[str], split: str | None) -> list[str]:
    """Which of a repository's files are read: its ready trees, else all of the one kind of data file it has.

    Without a `split`, those of `train` where the names tell splits apart, all otherwise. Parquet comes before JSON,
    since repositories that have both have the same rows in each.
    """
    trees = sorted(name for name in names if name.endswith(_TREES))
    if trees and split is None:
        return trees[-1:]  # exports are named by date, and the last one holds the earlier ones
    for extensions in ((".parquet",), tuple(end for end in EXTENSIONS if end.startswith(JSON_EXTENSIONS))):
        data = sorted(name for name in names if name.endswith(extensions) and _is_data(name))
        if data:
            return [name for name in data if _is_of(name, split or _TRAIN)] or ([] if split else data)
    return []


def _is_data(name: str) -> bool:
    return not name.rsplit("/", 1)[-1].startswith((".", "dataset_info"))


def _is_of(name: str, split: str) -> bool:
    """Whether a path has `split`, or another word for it, as a word: `data/train-00000-of-00001.parquet`."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return bool(words & next((names for names in _SPLIT_WORDS if split.lower() in names), {split.lower()}))
