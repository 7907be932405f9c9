"""Fetch data sets from the Hugging Face Hub: `org/name[@revision][:split]`, pinned to a commit.

Files that our readers support are downloaded unchanged, by name and commit: OASST's trees (`…ready.trees.jsonl.gz`) if a
repository has them, otherwise the files of its card's default configuration, otherwise its Parquet, JSON or other data
files. Code in a repository is never run, and a repository without such files is refused. `huggingface_hub` honours
HF_ENDPOINT, HF_HOME and the usual places of a token; it is imported only if a source is a Hub id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dataprep.common.errors import InputError
from dataprep.common.hub import BUSY, WAITS, cause, reason, retried, token
from dataprep.sources.hub_files import card_configs, latest_trees, select_files
from dataprep.sources.splits import left_out_note

_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<split>\w+))?")
_COMMIT = re.compile("[0-9a-f]{40}")
_CARD = "README.md"


class HubFile(NamedTuple):
    """A file of a repository, downloaded as it is in `commit`; `note` says which other files are left out."""

    name: str
    path: Path
    commit: str
    note: str = ""


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
    if _COMMIT.fullmatch(parts["revision"] or ""):
        return source
    with _one_sentence_errors(parts["repo"], parts["revision"]):
        commit = _info(parts["repo"], parts["revision"]).sha
    return f"{parts['repo']}@{commit}" + (f":{parts['split']}" if parts["split"] else "")


def files(source: str, all_splits: bool = False) -> list[HubFile]:
    """Return the data files of the repository `source`, downloaded or from the Hub's cache.

    These are the files of the split that `source` names, or else of the training split, or of `all_splits`.

    Raises:
        InputError: the repository, revision or split does not exist or is not accessible, or the Hub is unreachable.
    """
    parts = _ID.fullmatch(source)
    assert parts is not None
    with _one_sentence_errors(parts["repo"], parts["revision"]):
        return _fetch(parts["repo"], parts["revision"], parts["split"], all_splits)


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

    try:
        return retried(lambda: huggingface_hub.HfApi().dataset_info(repo, revision=revision))
    except (LookupError, TypeError, AttributeError) as fault:  # of the client, where it does not find what it expects
        raise ValueError("the Hub's response describes no data set") from fault


def _fetch(repo: str, revision: str | None, split: str | None, all_splits: bool) -> list[HubFile]:
    info = _info(repo, revision)
    commit = str(info.sha)
    if _COMMIT.fullmatch(revision or "") and commit != revision:
        raise ValueError(f"the Hub answers with the commit {commit[:40]} instead")
    names = [entry.rfilename for entry in info.siblings or []]
    names = [name for name in names if not name.startswith("/") and ".." not in name.split("/")]  # safe as local paths
    selected = latest_trees(names) if split is None else []
    left_out: list[str] = []
    if not selected:
        configs = card_configs(_download(repo, _CARD, commit).read_bytes()) if _CARD in names else []
        selected = select_files(names, split, configs, all_splits)
        if split is None:
            left_out = sorted(set(select_files(names, None, configs, all_splits=True)) - set(selected))
    files = [HubFile(f"{repo}:{name}", _download(repo, name, commit), commit) for name in selected]
    return [files[0]._replace(note=left_out_note(repo, left_out) if left_out else ""), *files[1:]]


def _download(repo: str, name: str, commit: str) -> Path:
    import huggingface_hub

    return Path(retried(lambda: huggingface_hub.hf_hub_download(repo, name, repo_type="dataset", revision=commit)))


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
