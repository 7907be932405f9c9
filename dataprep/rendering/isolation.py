"""Runs foreign templates in worker processes with limits on CPU time and memory.

A chat template is a program, and templates are passed between people. Jinja's immutable sandbox, inside of the worker,
keeps a template from Python's internals; it cannot bound time and memory, because a template needs neither a loop nor a
call to exhaust them. The operating system can: `resource` bounds the process, and a process that dies is one sentence.

Functions marked with `isolated` take a template as their first argument. For a bundled template they run in this process.
Workers serve any template, one call at a time, and are started when they are needed, at most one for each CPU.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from dataprep.common.bundled import templates_folder
from dataprep.common.errors import TemplateError
from dataprep.common.text import plural

if TYPE_CHECKING:
    from dataprep.rendering.template import Template

CPU_SECONDS = 10  # of one call; a conversation of 4,000 messages takes 2
# Above what the worker takes before its first call. A build that runs one on each of two CPUs stays below 1 GiB.
MEMORY_BYTES = 384 << 20
MAX_RESULT_BYTES = 128 << 20  # of one call
BYTES_PER_ARGUMENT_BYTE = 8  # added to both limits for each byte of a call's arguments: large records need more

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class TemplateStopped(TemplateError):
    """A template exceeded a limit, or its process died: it is not run again.

    Limits depend on the machine, so this is an error of a build, never the fate of a conversation.
    """


in_worker = False


def isolated(function: Callable[Concatenate[Template, P], R]) -> Callable[Concatenate[Template, P], R]:
    """Mark a function of a module that runs its first argument, a template: it runs in a worker unless that is bundled.

    Arguments and results must be picklable, and the function must be found under its name in its module.
    """

    @functools.wraps(function)
    def run(template: Template, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if in_worker or is_bundled(template.source):
            return function(template, *args, **kwargs)
        result: R = _call(function, template, args, kwargs)
        return result

    return run


def map_isolated(function: Callable[[T], R], template: Template, items: Sequence[T]) -> list[R]:
    """Apply `function`, which calls an isolated function of `template`, to all items: on all CPUs if that is foreign."""
    if len(items) < 2 or in_worker or is_bundled(template.source):
        return list(map(function, items))
    with ThreadPoolExecutor(_max_workers()) as pool:
        return list(pool.map(function, items))


@functools.cache
def _bundled_sources() -> frozenset[str]:
    return frozenset(path.read_text(encoding="utf-8") for path in templates_folder().glob("*.jinja"))


def is_bundled(source: str) -> bool:
    """Whether a template's text is that of a template which comes with dataprep."""
    return source in _bundled_sources()


_stopped: dict[str, str] = {}  # the reason, by the template's source
_lock = threading.Lock()


def _call(function: Callable[..., Any], template: Template, args: Any, kwargs: Any) -> Any:
    """Call `function` in a worker.

    Raises:
        TemplateStopped: it exceeded a limit, now or in an earlier call.
        Exception: whatever the function raised.
    """
    if template.source in _stopped:
        raise TemplateStopped(f"The template {template.name} was stopped: {_stopped[template.source]}.")
    request = pickle.dumps(
        (CPU_SECONDS, function.__module__, function.__qualname__, template, args, kwargs), pickle.HIGHEST_PROTOCOL
    )
    with _pool.worker() as worker:
        reason, answer = worker.call(request)
    if reason:
        _stopped[template.source] = reason
        raise TemplateStopped(f"The template {template.name} was stopped: {reason}.")
    succeeded, value = pickle.loads(answer)
    if succeeded:
        return value
    kind, arguments, attributes = value
    error: Exception = kind.__new__(kind)  # not its constructor, which may take other arguments
    error.args, error.__dict__ = arguments, attributes
    raise error


class _Worker:
    """One worker process."""

    def __init__(self) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from dataprep.rendering.worker import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def call(self, request: bytes) -> tuple[str, bytes]:
        """Return the reason why the worker had to be stopped (empty if it answered) and its answer."""
        assert self._process.stdin and self._process.stdout
        try:
            write_message(self._process.stdin, request)
            kind = self._process.stdout.read(1)
            answer = read_message(self._process.stdout) if kind == b"a" else b""
        except (OSError, EOFError):
            kind, answer = b"", b""
        if kind == b"a":
            return "", answer
        self.stop()
        if kind == b"m":
            return f"it needs more than {limit_for(request, MEMORY_BYTES) >> 20} MiB of memory", b""
        if kind == b"l":
            return f"its result is larger than {limit_for(request, MAX_RESULT_BYTES) >> 20} MiB", b""
        return _reason_of_death(self._process.returncode), b""

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def limit_for(request: bytes, limit: int) -> int:
    """Return a limit in bytes, raised for a call of large arguments."""
    return limit + BYTES_PER_ARGUMENT_BYTE * len(request)


def _reason_of_death(return_code: int) -> str:
    if return_code == -signal.SIGXCPU:
        return f"it takes more than {plural(CPU_SECONDS, 'second')} of CPU time"
    return f"its process ended with {f'signal {-return_code}' if return_code < 0 else f'exit code {return_code}'}"


class _Lease:
    """Takes a worker from the pool for one call."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool

    def __enter__(self) -> _Worker:
        self._pool.slots.acquire()
        with _lock:
            worker = self._pool.idle.pop() if self._pool.idle else None
        try:
            self._worker = worker if worker and worker.is_running else _Worker()
        except BaseException:
            self._pool.slots.release()
            raise
        return self._worker

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # interrupted in the middle of a call: its answer must not be read as the next one's
            self._worker.stop()
        if self._worker.is_running:
            with _lock:
                self._pool.idle.append(self._worker)
        self._pool.slots.release()


class _Pool:
    """The workers that wait for a call, and the number of those that may run."""

    def __init__(self) -> None:
        self.idle: list[_Worker] = []
        self.slots = threading.BoundedSemaphore(_max_workers())

    def worker(self) -> _Lease:
        return _Lease(self)

    def stop(self) -> None:
        with _lock:
            workers, self.idle = self.idle, []
        for worker in workers:
            worker.stop()


def _max_workers() -> int:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


_pool = _Pool()
atexit.register(_pool.stop)


def write_message(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(8, "big"))
    stream.write(message)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes:
    """Read one message.

    Raises:
        EOFError: the stream ended.
    """
    length = stream.read(8)
    message = stream.read(int.from_bytes(length, "big"))
    if len(length) < 8 or len(message) < int.from_bytes(length, "big"):
        raise EOFError
    return message
