"""The worker process of `isolation`: answers calls from its parent, under limits on CPU time and memory."""

from __future__ import annotations

import importlib
import math
import os
import pickle
import resource
import signal
from typing import IO, Any

from dataprep.rendering import isolation
from dataprep.rendering.isolation import MAX_RESULT_BYTES, MEMORY_BYTES, limit_for, read_message, write_message


def serve() -> None:
    """Answer calls from stdin on stdout until stdin ends; the main function of a worker.

    A call is (CPU seconds, module, name of a function, template, arguments, keywords). The answer begins with `a` (a pickle of
    whether the call succeeded, and its result or exception), or is one letter: `m` if memory ran out, `l` if the result
    is too large.
    """
    isolation.in_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent ends its workers itself
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)  # a template has no files to write
    at_start = _address_space()
    while True:
        try:
            request = read_message(requests)
        except EOFError:
            return
        _limit(resource.RLIMIT_AS, at_start + limit_for(request, MEMORY_BYTES))
        largest = limit_for(request, MAX_RESULT_BYTES)
        cpu_seconds, module, name, template, args, kwargs = pickle.loads(request)
        del request
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + cpu_seconds)
        try:
            value = (True, getattr(importlib.import_module(module), name)(template, *args, **kwargs))
        except MemoryError:
            value = None
        except Exception as error:
            value = (False, (type(error), error.args, vars(error)))
        _answer(answers, value, largest)


def _answer(answers: IO[bytes], value: tuple[bool, Any] | None, largest: int) -> None:
    try:
        answer = pickle.dumps(value, pickle.HIGHEST_PROTOCOL) if value else None
    except MemoryError:
        answer = None
    if answer is None or len(answer) > largest:
        answers.write(b"m" if answer is None else b"l")
        answers.flush()
    else:
        answers.write(b"a")
        write_message(answers, answer)


def _limit(kind: int, amount: int) -> None:
    """Set the soft limit, and the hard one where the soft one need not be raised again."""
    _, hard = resource.getrlimit(kind)
    soft = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(kind, (soft, hard if kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU) else soft))


def _address_space() -> int:
    """Bytes of this process's address space; 0 where the system does not tell, and does not enforce a limit either."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 50
