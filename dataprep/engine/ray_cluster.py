"""An executor that runs tasks on a Ray cluster: the one at an address, or one that it starts on this machine.

Placement, retries and the handling of failed workers and machines are Ray's. Texts go through files that all machines can
read, so the store must lie on a shared file system; what tasks take and return beside them goes through Ray's object store.
"""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from dataprep.common.errors import DataprepError, RecipeError, StoreError
from dataprep.common.executor import Result, Task
from dataprep.engine.executors import available_cpus

MAX_RETRIES = 10  # of a task whose worker died
# A machine that is busy with other work answers late; a cluster on it would take it for dead after some seconds.
PATIENT = {"health_check_timeout_ms": 60_000, "health_check_failure_threshold": 10}
_STARTS = 2  # times that a cluster on this machine is tried to start
_PROBES = 2  # tasks for each worker that look for a file of this machine


class RayExecutor:
    """Runs tasks as Ray Core tasks; `close` ends the connection, and the cluster if it was started here."""

    in_process = False

    def __init__(self, address: str | None, workers: int | None) -> None:
        """Connect to the cluster at `address`, or start one on this machine with `workers` CPUs.

        Raises:
            RecipeError: Ray is not installed.
            StoreError: there is no cluster at `address`.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use over the network by default
        try:
            import ray
        except ImportError:
            raise RecipeError("--engine ray needs Ray: pip install 'dataprep[ray]', or leave --engine out.") from None
        self._ray: Any = ray
        cpus = workers or available_cpus()
        own = {"num_cpus": cpus, "include_dashboard": False, "_system_config": PATIENT}
        if address:
            self._connect(address, 1)
        else:
            self._connect("local", _STARTS, **own)
        self._ray.util.register_serializer(pl.DataFrame, serializer=_to_bytes, deserializer=_from_bytes)
        self.workers = workers or max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        self._run = self._ray.remote(max_retries=MAX_RETRIES)(_run)

    def _connect(self, address: str, tries: int, **options: Any) -> None:
        """Connect to a cluster, or start one, up to `tries` times: a start fails if one of Ray's processes is lost.

        Raises:
            StoreError: the last try failed.
        """
        for left in reversed(range(tries)):
            try:
                self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
                return
            except Exception as fault:  # Ray raises plain exceptions where one of its processes did not start
                self._ray.shutdown()
                if not left:
                    where = "be started on this machine" if address == "local" else f"be reached at {address}"
                    raise StoreError(f"Ray cannot {where} ({_first_line(fault)}).") from None

    def close(self) -> None:
        """Disconnect."""
        self._ray.shutdown()

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result]:
        """Yield `function(task)` of each task in order; at most one task more than there are workers is under way.

        Raises:
            DataprepError: what a task raised; or Ray gave a task up.
        """
        from ray.exceptions import LocalRayletDiedError, RayError, RayTaskError

        pending: deque[Any] = deque()
        try:
            for task in tasks:
                pending.append(self._run.remote(function, task))
                if len(pending) > self.workers:
                    yield self._ray.get(pending.popleft())
            while pending:
                yield self._ray.get(pending.popleft())
        except RayTaskError as fault:
            if isinstance(fault.cause, DataprepError | OSError):  # a full disk is an OSError
                raise fault.cause from None
            raise
        except LocalRayletDiedError:
            raise StoreError("Ray's own process on this machine was lost: build again.") from None
        except RayError as fault:
            raise StoreError(
                f"Ray gave a task up after {MAX_RETRIES} retries ({_first_line(fault)}): build again, with fewer --workers "
                "if their memory did not suffice."
            ) from None
        finally:
            for reference in pending:
                self._ray.cancel(reference, force=False)

    def require_shared(self, folder: Path) -> None:
        """Check that tasks can read files in `folder`.

        Raises:
            StoreError: a worker cannot.
        """
        probe, content = folder / f"probe-{uuid4().hex[:12]}", uuid4().hex
        probe.write_text(content)
        try:
            for answer in self.map(_look_for, [(probe.resolve(), content)] * (_PROBES * self.workers)):
                if answer:
                    raise StoreError(
                        f"The Ray worker on {answer} cannot read {folder}: give a --store on a file system that all "
                        "machines of the cluster share."
                    )
        finally:
            probe.unlink()


def _run(function: Callable[[Any], Any], task: Any) -> Any:
    return function(task)


def _look_for(probe: tuple[Path, str]) -> str | None:
    """Return the name of this machine if it has no file of this content, else None."""
    path, content = probe
    try:
        return None if path.read_text() == content else os.uname().nodename
    except OSError:
        return os.uname().nodename


def _to_bytes(frame: pl.DataFrame) -> bytes:
    """Write a frame with its own texts only: pickling a slice would write all texts of the frame that it is cut from."""
    buffer = io.BytesIO()
    frame.write_ipc(buffer, compression="uncompressed")
    return buffer.getvalue()


def _from_bytes(data: bytes) -> pl.DataFrame:
    return pl.read_ipc(io.BytesIO(data)).rechunk()


def _first_line(fault: BaseException) -> str:
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__).rstrip(".")
