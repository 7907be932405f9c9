"""A data set on the Hub, written to: one commit on top of the one that was looked at, then a tag."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from dataprep.contract import MANIFEST, Build
from dataprep.errors import PublishError
from dataprep.export import DATA, Layout
from dataprep.publish.files import Published, refuse_failed_gate, sizes, staged, tag_of

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try
LONGEST_WAIT = 60.0  # seconds that a Hub may ask us to wait
_BUSY = (429, 500, 502, 503, 504)
_LOGIN = "set HF_TOKEN to a token that may write, or run `hf auth login`"

Found = TypeVar("Found")


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


class _Hub:
    """A data set on the Hub, written to."""

    def __init__(self, name: str) -> None:
        import huggingface_hub

        if huggingface_hub.get_token() is None:
            raise PublishError(f"Publishing to {name} needs a token of the Hub, and there is none: {_LOGIN}.")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would tell of each try, with addresses
        if not sys.stderr.isatty():
            huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]
        self._name = name
        self._api: HfApi = huggingface_hub.HfApi()

    def publish(self, build: Build, layout: Layout, private: bool) -> Published:
        tag, head = tag_of(build, layout), self._head(private)
        if tag in self._tags():
            return Published(self._name, tag, there_already=True)
        with staged(build, self._name, layout) as folder:
            files = sizes(folder)
            stale = self._stale(head.siblings, files)
            commit = self._commit(folder, files, stale, head.sha, f"{build.manifest.name} {tag}")
        self._tag(tag, commit)
        return Published(self._name, tag, files, commit=commit, removed=stale)

    def _head(self, private: bool) -> Any:
        """What the Hub says of the data set, which is made if it is not there."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = retried(lambda: self._api.dataset_info(self._name))
        except RepositoryNotFoundError:
            retried(lambda: self._api.create_repo(self._name, repo_type="dataset", private=private, exist_ok=True))
            info = retried(lambda: self._api.dataset_info(self._name))
        if private and not info.private:
            raise PublishError(
                f"{self._name} is public and --private was asked for: nothing was sent; make it private on the Hub first."
            )
        return info

    def _tags(self) -> set[str]:
        refs = retried(lambda: self._api.list_repo_refs(self._name, repo_type="dataset"))
        return {ref.name for ref in refs.tags}

    def _stale(self, siblings: Any, files: Mapping[str, int]) -> tuple[str, ...]:
        """Data and fates in the repository that this version has no more; theirs must have been ours."""
        there = [entry.rfilename for entry in siblings or []]
        stale = tuple(name for name in there if name.startswith((f"{DATA}/", "fates/")) and name not in files)
        if stale and MANIFEST not in there:
            raise PublishError(
                f"{self._name} holds data that dataprep did not publish ({stale[0]}): nothing was sent; choose another name."
            )
        return stale

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


def retried(call: Callable[[], Found]) -> Found:
    """What `call` gives, tried again after a while where the Hub is busy or the line was cut; five times at most."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    for wait in WAITS:
        try:
            return call()
        except HfHubHTTPError as fault:
            if fault.response.status_code not in _BUSY:
                raise
            asked = fault.response.headers.get("Retry-After", "")
            time.sleep(min(max(wait, float(asked) if asked.isdigit() else 0.0), LONGEST_WAIT))
        except HTTPError:  # the line, not the Hub
            time.sleep(wait)
    return call()


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turn what the client raises into one sentence; what the Hub answered is not repeated, and no token is."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as fault:
        raise PublishError(f"Publishing to {name} failed: {_why(name, fault)}.") from None


def _why(name: str, fault: BaseException) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    if isinstance(fault, RuntimeError) and fault.__cause__ is not None:  # of an upload, on a thread
        return _why(name, fault.__cause__)
    if isinstance(fault, HfHubHTTPError):
        status = fault.response.status_code
        if status == 401:
            return f"the Hub refused the token; {_LOGIN}"
        if status in (403, 404):
            return f"the token may not write there, or there is no such user or organization; {_LOGIN}"
        if status in (409, 412):
            return "somebody else changed the data set meanwhile, and it is as they left it; publish again"
        busy = f" {len(WAITS) + 1} times" if status in _BUSY else ""
        return f"the Hub answered with status {status}{busy}, and the data set is as it was; try later"
    if isinstance(fault, HTTPError | ConnectionError):
        return f"{constants.ENDPOINT} cannot be reached, or the line was cut; the data set is as it was; try again"
    return str(fault).splitlines()[0] if str(fault) else type(fault).__name__
