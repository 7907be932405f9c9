"""Publish a data set to the Hugging Face Hub: one commit on top of the current one, then a tag.

So the data set is either as it was or complete. `huggingface_hub` finds the token and the Hub by its own rules
(HF_TOKEN, `hf auth login`, HF_ENDPOINT), and is imported only when the Hub is used.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from dataprep.common.errors import BuildError, PublishError, StoreError
from dataprep.common.files import temporary_folder, write_failure
from dataprep.common.hub import BUSY, WAITS, cause, reason, retried, token
from dataprep.contract import MANIFEST, Build, ManifestData, read_manifest_data
from dataprep.publish.contents import CARD, Published, file_sizes, refuse_failed_gate, tag_of, write_files
from dataprep.publish.data_files import DATA
from dataprep.publish.layouts import Layout

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.hf_api import DatasetInfo

_DATA_FILE = re.compile(rf"{DATA}/[^/]+-\d{{5}}-of-\d{{5}}\.parquet")  # as `data_files` names them
_LOGIN = "set HF_TOKEN to a token with write access, or run `hf auth login`"


def check_repository(name: str) -> str:
    """Return `name` if it is a valid name for a data set on the Hub.

    Raises:
        PublishError: it is not.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
        if "/" not in name:
            raise HFValidationError("it names no user or organization")
    except HFValidationError as fault:
        raise PublishError(
            f"'{name}' is no valid name on the Hub ({str(fault).rstrip('.')}): write org/name, or ./name for a folder."
        ) from None
    return name


def to_hub(build: Build, name: str, layout: Layout, *, private: bool = False, dry_run: bool = False) -> Published:
    """Publish to the data set `name` on the Hub: one commit, then a tag; does nothing if the tag exists.

    Args:
        build: the build.
        name: org/name.
        layout: the layout of the rows.
        private: create a private data set, and refuse a public one.
        dry_run: write nothing, and return what would be sent. Without a token, or with the Hub out of reach, `unasked`
            of the result says why the Hub was not asked what it has.

    Raises:
        PublishError: the Hub refuses or cannot be reached; the data set is as it was, or lacks only the tag.
        GateError: the build failed its gate.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    refuse_failed_gate(build)
    check_repository(name)
    if not dry_run:
        with _as_publish_errors(name):
            return _Repository(name).publish(build, layout, private)
    unasked = "there is no token"
    if token(PublishError):
        with _as_publish_errors(name):
            try:
                return _Repository(name).preview(build, layout, private)
            except (HTTPError, ConnectionError) as fault:
                if isinstance(fault, HfHubHTTPError) and fault.response.status_code not in BUSY:
                    raise
                unasked = _explanation(fault)
    return Published(name, tag_of(build, layout), file_sizes(build, name, layout), unasked=unasked)


class _Repository:
    """A data set on the Hub."""

    def __init__(self, name: str) -> None:
        import huggingface_hub

        if token(PublishError) is None:
            raise PublishError(f"Publishing to {name} needs a token of the Hub, and there is none: {_LOGIN}.")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would report each retry, with addresses
        if not sys.stderr.isatty():
            huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]
        self._name = name
        self._api: HfApi = huggingface_hub.HfApi()

    def publish(self, build: Build, layout: Layout, private: bool) -> Published:
        tag, head = tag_of(build, layout), self._head(private)
        if head and tag in self._tags():
            return Published(self._name, tag, there_already=True)
        with _staged(build, self._name, layout) as (folder, sizes):
            stale = self._stale(head, sizes) if head else ()
            head = head or self._create(private)
            commit = self._commit(folder, sizes, stale, str(head.sha), f"{build.manifest.name} {tag}")
        self._tag(tag, commit)
        return Published(self._name, tag, sizes, commit=commit, removed=stale)

    def preview(self, build: Build, layout: Layout, private: bool) -> Published:
        """Return what `publish` would do, and write nothing."""
        retried(self._api.whoami)  # an invalid token would only be refused when something is written
        tag, head = tag_of(build, layout), self._head(private)
        if head and tag in self._tags():
            return Published(self._name, tag, there_already=True)
        sizes = file_sizes(build, self._name, layout)
        return Published(self._name, tag, sizes, removed=self._stale(head, sizes) if head else ())

    def _head(self, private: bool) -> DatasetInfo | None:
        """Return what the Hub knows of the data set; None where it does not exist."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = retried(lambda: self._api.dataset_info(self._name))
        except RepositoryNotFoundError:
            return None
        if private and not info.private:
            raise PublishError(
                f"{self._name} is public and --private was given: nothing was sent; make it private on the Hub first."
            )
        return info

    def _create(self, private: bool) -> DatasetInfo:
        retried(lambda: self._api.create_repo(self._name, repo_type="dataset", private=private, exist_ok=True))
        info = self._head(private)
        if info is None:
            raise PublishError(f"{self._name} was created on the Hub and cannot be found there: publish again.")
        return info

    def _tags(self) -> set[str]:
        refs = retried(lambda: self._api.list_repo_refs(self._name, repo_type="dataset"))
        return {ref.name for ref in refs.tags}

    def _stale(self, head: DatasetInfo, sizes: Mapping[str, int]) -> tuple[str, ...]:
        """Return the files that only the previous version has: data files, and files that its manifest names.

        Raises:
            PublishError: the repository has files that dataprep did not publish.
        """
        existing = {entry.rfilename for entry in head.siblings or []}
        previous = self._manifest(str(head.sha)) if MANIFEST in existing else None
        if previous is None:
            self._refuse_foreign(existing, sizes, str(head.sha))
            return ()
        outdated = existing - sizes.keys()
        return tuple(sorted(name for name in outdated if name in previous["files"] or _DATA_FILE.fullmatch(name)))

    def _manifest(self, commit: str) -> ManifestData | None:
        """Return the manifest of the version in the repository; None where it is not a build's."""
        try:
            return read_manifest_data(self._download(MANIFEST, commit))
        except BuildError:
            return None

    def _refuse_foreign(self, existing: Set[str], sizes: Mapping[str, int], commit: str) -> None:
        """Refuse to overwrite what others put there; a card without text, as the Hub creates it, may be replaced."""
        folders = (f"{DATA}/", "fates/")
        foreign = sorted(name for name in existing if name.startswith(folders) or (name in sizes and name != CARD))
        if not foreign and CARD in existing:
            text = self._download(CARD, commit).read_text(encoding="utf-8", errors="replace")
            foreign = [CARD] if re.sub(r"\A\s*---\n.*?^---$", "", text, flags=re.DOTALL | re.MULTILINE).strip() else []
        if foreign:
            raise PublishError(
                f"{self._name} has files that dataprep did not publish ({foreign[0]}): nothing was sent; "
                "choose another name, or remove them there first."
            )

    def _download(self, name: str, commit: str) -> Path:
        download = self._api.hf_hub_download
        return Path(retried(lambda: download(self._name, name, repo_type="dataset", revision=commit)))

    def _commit(self, folder: Path, sizes: Mapping[str, int], stale: tuple[str, ...], parent: str, title: str) -> str:
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
                last = self._api.list_repo_commits(self._name, repo_type="dataset")[0]
                if mark in f"{last.title}\n{last.message}":
                    return str(last.commit_id)
            info = self._api.create_commit(
                self._name,
                operations,
                commit_message=title,
                commit_description=mark,
                repo_type="dataset",
                parent_commit=parent,
            )
            return str(info.oid)

        return retried(attempt)

    def _tag(self, tag: str, commit: str) -> None:
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        try:
            retried(
                lambda: self._api.create_tag(self._name, tag=tag, revision=commit, repo_type="dataset", exist_ok=True)
            )
        except (OSError, HTTPError):
            raise PublishError(
                f"The files are in {self._name} (commit {commit[:12]}), but the tag {tag} could not be set: publish again."
            ) from None


@contextmanager
def _staged(build: Build, name: str, layout: Layout) -> Iterator[tuple[Path, dict[str, int]]]:
    """Yield a temporary folder with all published files, and the bytes of each."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        with temporary_folder("dataprep-publish") as folder:
            yield folder, write_files(build, folder, name, layout)
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
        raise PublishError(f"Publishing to {name} failed: {_explanation(fault)}.") from None


def _explanation(fault: BaseException) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    fault = cause(fault)
    if isinstance(fault, HfHubHTTPError):
        status, message = fault.response.status_code, reason(fault)
        if status == 401:
            return f"the Hub refused the token; {_LOGIN}"
        if status in (403, 404):
            quoted = f" (the Hub's message: {message})" if message else ""
            return f"the token has no write access, or there is no such user or organization{quoted}; {_LOGIN}"
        if status in (409, 412):
            return "another commit changed the data set meanwhile, and nothing was written; publish again"
        if status in BUSY:
            return f"the Hub answered with status {status} {len(WAITS) + 1} times, and nothing was written; try later"
        return f"the Hub refused it with status {status} ({message or 'without a message'}), and nothing was written"
    if isinstance(fault, HTTPError | ConnectionError):
        return f"{constants.ENDPOINT} cannot be reached, or the connection broke; nothing was written; try again"
    return reason(fault)
