"""A data set on the Hub, written to: one commit on top of the one that was looked at, then a tag."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dataprep.common.errors import BuildError, PublishError
from dataprep.common.hub import BUSY, WAITS, cause, reason, retried, token
from dataprep.contract import MANIFEST, Build, Manifest, read_manifest
from dataprep.publish.export import DATA, Layout
from dataprep.publish.folder import CARD, Published, refuse_failed_gate, sizes, staged, tag_of

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

_ROWS = re.compile(rf"{DATA}/[^/]+-\d{{5}}-of-\d{{5}}\.parquet")  # as `export` names them
_LOGIN = "set HF_TOKEN to a token that may write, or run `hf auth login`"


def check_repository(name: str) -> str:
    """`name`, if the Hub would take it for a data set.

    Raises:
        PublishError: it would not.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
        if "/" not in name:
            raise HFValidationError("it names no user or organization")
    except HFValidationError as fault:
        raise PublishError(
            f"'{name}' is no name that the Hub takes ({str(fault).rstrip('.')}): write org/name, or ./name for a folder."
        ) from None
    return name


def to_hub(build: Build, name: str, layout: Layout, *, private: bool = False) -> Published:
    """Publish to the data set `name` on the Hub: one commit, then a tag; does nothing where the tag is already.

    Raises:
        PublishError: the Hub, or the way to it, does not let us; the data set is as it was, or lacks only the tag.
        GateError: the build's gate failed.
    """
    refuse_failed_gate(build)
    check_repository(name)
    with _telling(name):
        return _Hub(name).publish(build, layout, private)


def hub_preview(build: Build, name: str, layout: Layout, *, private: bool = False) -> Published:
    """What `to_hub` would do; the Hub is asked what it has, if there is a token and a way to it.

    Raises:
        PublishError, GateError: as `to_hub`.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    refuse_failed_gate(build)
    check_repository(name)
    unasked = "there is no token"
    if token(PublishError):
        with _telling(name):
            try:
                return _Hub(name).publish(build, layout, private, dry_run=True)
            except (HTTPError, ConnectionError) as fault:
                if isinstance(fault, HfHubHTTPError) and fault.response.status_code not in BUSY:
                    raise
                unasked = _why(fault)
    with staged(build, name, layout) as folder:
        return Published(name, tag_of(build, layout), sizes(folder), unasked=unasked)


class _Hub:
    """A data set on the Hub, written to."""

    def __init__(self, name: str) -> None:
        import huggingface_hub

        if token(PublishError) is None:
            raise PublishError(f"Publishing to {name} needs a token of the Hub, and there is none: {_LOGIN}.")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would tell of each try, with addresses
        if not sys.stderr.isatty():
            huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]
        self._name = name
        self._api: HfApi = huggingface_hub.HfApi()

    def publish(self, build: Build, layout: Layout, private: bool, dry_run: bool = False) -> Published:
        if dry_run:
            retried(self._api.whoami)  # a token that is refused would be so only when something is written
        tag, head = tag_of(build, layout), self._head(private)
        if head and tag in self._tags():
            return Published(self._name, tag, there_already=True)
        with staged(build, self._name, layout) as folder:
            files = sizes(folder)
            stale = self._stale(head, files) if head else ()
            if dry_run:
                return Published(self._name, tag, files, removed=stale)
            head = head or self._made(private)
            commit = self._commit(folder, files, stale, head.sha, f"{build.manifest.name} {tag}")
        self._tag(tag, commit)
        return Published(self._name, tag, files, commit=commit, removed=stale)

    def _head(self, private: bool) -> Any:
        """What the Hub says of the data set; None where it is not there."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = retried(lambda: self._api.dataset_info(self._name))
        except RepositoryNotFoundError:
            return None
        if private and not info.private:
            raise PublishError(
                f"{self._name} is public and --private was asked for: nothing was sent; make it private on the Hub first."
            )
        return info

    def _made(self, private: bool) -> Any:
        """What the Hub says of the data set, once it has been made."""
        retried(lambda: self._api.create_repo(self._name, repo_type="dataset", private=private, exist_ok=True))
        return self._head(private)

    def _tags(self) -> set[str]:
        refs = retried(lambda: self._api.list_repo_refs(self._name, repo_type="dataset"))
        return {ref.name for ref in refs.tags}

    def _stale(self, head: Any, files: Mapping[str, int]) -> tuple[str, ...]:
        """What the version before has and this one has not: rows, and what its manifest names.

        Raises:
            PublishError: what is there was not published by dataprep.
        """
        there = {entry.rfilename for entry in head.siblings or []}
        before = self._manifest(head.sha) if MANIFEST in there else None
        if before is None:
            self._refuse_others(there, files, head.sha)
            return ()
        return tuple(sorted(name for name in there - files.keys() if name in before.files or _ROWS.fullmatch(name)))

    def _manifest(self, commit: str) -> Manifest | None:
        """The manifest of the version in the repository; None where it is none of ours."""
        try:
            return read_manifest(self._file(MANIFEST, commit).parent)
        except BuildError:
            return None

    def _refuse_others(self, there: Set[str], files: Mapping[str, int], commit: str) -> None:
        """Refuse to write over what others put there; a card without a text, as the Hub makes it, is nobody's."""
        rows = (f"{DATA}/", "fates/")
        others = sorted(name for name in there if name.startswith(rows) or (name in files and name != CARD))
        if not others and CARD in there:
            text = self._file(CARD, commit).read_text(encoding="utf-8", errors="replace")
            others = [CARD] if re.sub(r"\A\s*---\n.*?^---$", "", text, flags=re.DOTALL | re.MULTILINE).strip() else []
        if others:
            raise PublishError(
                f"{self._name} holds what dataprep did not publish ({others[0]}): nothing was sent; "
                "choose another name, or remove it there first."
            )

    def _file(self, name: str, commit: str) -> Path:
        download = self._api.hf_hub_download
        return Path(retried(lambda: download(self._name, name, repo_type="dataset", revision=commit)))

    def _commit(self, folder: Path, files: Mapping[str, int], stale: tuple[str, ...], parent: str, title: str) -> str:
        """One commit on top of `parent`; its id.

        A commit whose answer was lost may have been made: each carries a mark by which it is known again.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        mark = f"upload {uuid4().hex[:12]}"
        adds = [CommitOperationAdd(name, str(folder / name)) for name in files]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *adds,
            *(CommitOperationDelete(name) for name in stale),
        ]
        tries = 0

        def attempt() -> str:
            nonlocal tries
            tries += 1
            if tries > 1:
                last = self._api.list_repo_commits(self._name, repo_type="dataset")[0]
                if mark in f"{last.title}\n{last.message}":
                    return str(last.commit_id)
            made = self._api.create_commit(
                self._name,
                operations,
                commit_message=title,
                commit_description=mark,
                repo_type="dataset",
                parent_commit=parent,
            )
            return str(made.oid)

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
def _telling(name: str) -> Iterator[None]:
    """Turn what the client raises into one sentence; what the Hub answered is not repeated, and no token is."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as fault:
        raise PublishError(f"Publishing to {name} failed: {_why(fault)}.") from None


def _why(fault: BaseException) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    fault = cause(fault)
    if isinstance(fault, HfHubHTTPError):
        status, said = fault.response.status_code, reason(fault)
        if status == 401:
            return f"the Hub refused the token; {_LOGIN}"
        if status in (403, 404):
            told = f" (it says: {said})" if said else ""
            return f"the token may not write there, or there is no such user or organization{told}; {_LOGIN}"
        if status in (409, 412):
            return "somebody else changed the data set meanwhile, and it is as they left it; publish again"
        if status in BUSY:
            return f"the Hub answered with status {status} {len(WAITS) + 1} times, and the data set is as it was; try later"
        return f"the Hub refused it with status {status} ({said or 'it says no more'}), and the data set is as it was"
    if isinstance(fault, HTTPError | ConnectionError):
        return f"{constants.ENDPOINT} cannot be reached, or the line was cut; the data set is as it was; try again"
    return reason(fault)
