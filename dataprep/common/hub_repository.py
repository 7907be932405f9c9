"""Publish files to a repository of the Hugging Face Hub, a data set or a model: one commit on the current one, then a tag.

So the repository is either as it was or complete. `huggingface_hub` finds the token and the Hub by its own rules
(HF_TOKEN, `hf auth login`, HF_ENDPOINT), and is imported only when the Hub is used. `dataprep` publishes builds with it,
and `training` adapters.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from dataprep.common.errors import PublishError, StoreError
from dataprep.common.files import temporary_folder, write_failure
from dataprep.common.hub import BUSY, LOGIN, check_repository, explanation, retried, token

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

CARD = "README.md"


@dataclass(frozen=True)
class Published:
    """The result of publishing; `files` has the bytes of each file that is (in a dry run: would be) there."""

    place: str
    tag: str
    files: Mapping[str, int] = field(default_factory=dict)
    there_already: bool = False
    commit: str | None = None
    removed: tuple[str, ...] = ()  # files of the version before that this one does not have
    unasked: str = ""  # in a dry run: why the Hub could not be asked what it has


@dataclass(frozen=True)
class Publication:
    """What is published, and how an earlier publication of the same kind is recognised.

    `marker` is a file that every publication has. `published_by_us` reads it, and returns a function that tells which
    other files were published with it; None if the file is somebody else's. Other files in `folders` are never
    overwritten.
    """

    kind: Literal["dataset", "model"]
    tag: str
    title: str  # of the commit
    sizes: Callable[[], dict[str, int]]  # bytes of each file
    write: Callable[[Path], dict[str, int]]  # write all files to a folder, and return the bytes of each
    marker: str
    published_by_us: Callable[[Path], Callable[[str], bool] | None]
    folders: tuple[str, ...] = ()


def publish_to_hub(publication: Publication, name: str, *, private: bool = False, dry_run: bool = False) -> Published:
    """Publish to the repository `name`; does nothing if the tag exists.

    Args:
        publication: the files.
        name: org/name.
        private: create a private repository, and refuse a public one.
        dry_run: write nothing, and return what would be sent. Without a token, or with the Hub out of reach, `unasked`
            of the result says why the Hub was not asked what it has.

    Raises:
        PublishError: the Hub refuses or cannot be reached; the repository is as it was, or lacks only the tag.
        StoreError: the files cannot be written to the temporary folder.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    check_repository(name)
    if not dry_run:
        with _as_publish_errors(name):
            return _Repository(name, publication).publish(private)
    unasked = "there is no token"
    if token(PublishError):
        with _as_publish_errors(name):
            try:
                return _Repository(name, publication).preview(private)
            except (HTTPError, ConnectionError) as fault:
                if isinstance(fault, HfHubHTTPError) and fault.response.status_code not in BUSY:
                    raise
                unasked = explanation(fault)
    return Published(name, publication.tag, publication.sizes(), unasked=unasked)


class _Repository:
    """A repository on the Hub, and what is to be published there."""

    def __init__(self, name: str, publication: Publication) -> None:
        import huggingface_hub

        if token(PublishError) is None:
            raise PublishError(f"Publishing to {name} needs a token of the Hub, and there is none: {LOGIN}.")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would report each retry, with addresses
        if not sys.stderr.isatty():
            huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]
        self._name, self._publication, self._kind = name, publication, publication.kind
        self._api: HfApi = huggingface_hub.HfApi()

    def publish(self, private: bool) -> Published:
        tag, head = self._publication.tag, self._head(private)
        if head and tag in self._tags():
            return Published(self._name, tag, there_already=True)
        with _staged(self._publication) as (folder, sizes):
            stale = self._stale(head, sizes) if head else ()
            head = head or self._create(private)
            commit = self._commit(folder, sizes, stale, str(head.sha))
        self._tag(tag, commit)
        return Published(self._name, tag, sizes, commit=commit, removed=stale)

    def preview(self, private: bool) -> Published:
        """Return what `publish` would do, and write nothing."""
        retried(self._api.whoami)  # an invalid token would only be refused when something is written
        tag, head = self._publication.tag, self._head(private)
        if head and tag in self._tags():
            return Published(self._name, tag, there_already=True)
        sizes = self._publication.sizes()
        return Published(self._name, tag, sizes, removed=self._stale(head, sizes) if head else ())

    def _head(self, private: bool) -> DatasetInfo | ModelInfo | None:
        """Return the last commit and its files; None where there is no such repository.

        Raises:
            PublishError: it is public and `private` was asked for.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        info_of = self._api.dataset_info if self._kind == "dataset" else self._api.model_info
        try:
            info = retried(lambda: info_of(self._name))
        except RepositoryNotFoundError:
            return None
        if private and not info.private:
            raise PublishError(
                f"{self._name} is public and --private was given: nothing was sent; make it private on the Hub first."
            )
        return info

    def _create(self, private: bool) -> DatasetInfo | ModelInfo:
        retried(lambda: self._api.create_repo(self._name, repo_type=self._kind, private=private, exist_ok=True))
        info = self._head(private)
        if info is None:
            raise PublishError(f"{self._name} was created on the Hub and cannot be found there: publish again.")
        return info

    def _tags(self) -> set[str]:
        refs = retried(lambda: self._api.list_repo_refs(self._name, repo_type=self._kind))
        return {ref.name for ref in refs.tags}

    def _stale(self, head: DatasetInfo | ModelInfo, sizes: Mapping[str, int]) -> tuple[str, ...]:
        """Return the files that only the previous publication has.

        Raises:
            PublishError: the repository has files that this program did not publish.
        """
        existing = {entry.rfilename for entry in head.siblings or []}
        marker = self._publication.marker
        published = (
            self._publication.published_by_us(self._download(marker, str(head.sha))) if marker in existing else None
        )
        if published is None:
            self._refuse_foreign(existing, sizes, str(head.sha))
            return ()
        return tuple(sorted(filter(published, existing - sizes.keys())))

    def _refuse_foreign(self, existing: Set[str], sizes: Mapping[str, int], commit: str) -> None:
        """Refuse to overwrite what others put there; a card without text, as the Hub creates it, may be replaced."""
        folders = self._publication.folders
        foreign = sorted(name for name in existing if name.startswith(folders) or (name in sizes and name != CARD))
        if not foreign and CARD in existing:
            text = self._download(CARD, commit).read_text(encoding="utf-8", errors="replace")
            foreign = [CARD] if re.sub(r"\A\s*---\n.*?^---$", "", text, flags=re.DOTALL | re.MULTILINE).strip() else []
        if foreign:
            raise PublishError(
                f"{self._name} has files that this program did not publish ({foreign[0]}): nothing was sent; "
                "choose another name, or remove them there first."
            )

    def _download(self, name: str, commit: str) -> Path:
        download = self._api.hf_hub_download
        return Path(retried(lambda: download(self._name, name, repo_type=self._kind, revision=commit)))

    def _commit(self, folder: Path, sizes: Mapping[str, int], stale: tuple[str, ...], parent: str) -> str:
        """Commit on top of `parent`, and return the commit's id.

        A commit whose response was lost may exist: each carries a random mark, by which it is recognised.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        mark = f"upload {uuid4().hex[:12]}"
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, str(folder / name)) for name in sizes),
            *(CommitOperationDelete(name) for name in stale),
        ]
        attempts = 0

        def attempt() -> str:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                last = self._api.list_repo_commits(self._name, repo_type=self._kind)[0]
                if mark in f"{last.title}\n{last.message}":
                    return str(last.commit_id)
            info = self._api.create_commit(
                self._name,
                operations,
                commit_message=self._publication.title,
                commit_description=mark,
                repo_type=self._kind,
                parent_commit=parent,
            )
            return str(info.oid)

        return retried(attempt)

    def _tag(self, tag: str, commit: str) -> None:
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        try:
            retried(
                lambda: self._api.create_tag(self._name, tag=tag, revision=commit, repo_type=self._kind, exist_ok=True)
            )
        except (OSError, HTTPError):
            raise PublishError(
                f"The files are in {self._name} (commit {commit[:12]}), but the tag {tag} could not be set: publish again."
            ) from None


@contextmanager
def _staged(publication: Publication) -> Iterator[tuple[Path, dict[str, int]]]:
    """Yield a temporary folder with all published files, and the bytes of each."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        with temporary_folder("dataprep-publish") as folder:
            yield folder, publication.write(folder)
    except OSError as fault:
        if isinstance(fault, HTTPError):
            raise
        raise StoreError(
            f"The files could not be written below {tempfile.gettempdir()} ({write_failure(fault)}): nothing was sent; "
            "free some space there or set TMPDIR."
        ) from None


@contextmanager
def _as_publish_errors(name: str) -> Iterator[None]:
    """Turn the client's exceptions into one sentence, which repeats neither the Hub's page nor a token."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as fault:
        raise PublishError(f"Publishing to {name} failed: {explanation(fault)}.") from None
