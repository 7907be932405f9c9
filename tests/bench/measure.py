"""Run programs of a benchmark, measure their time and memory, and print figures beside their targets."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SAMPLE_SECONDS = 0.2  # between two readings of the memory


class Usage(NamedTuple):
    """What a program took, with all processes that it started."""

    seconds: float
    cpu_seconds: float  # of the program and those of its processes that it waited for
    anonymous: int  # peak bytes of memory that no file backs
    mapped: int  # peak bytes of mapped files in memory at any time: the kernel drops them where memory is short
    output: str  # its stdout


def pin_to_two_cores() -> int:
    """Keep this process and those that it starts on two cores; return how many it has then."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:2])
    return len(cores[:2])


def print_figure(name: str, value: float, at_least: float | None = None, at_most: float | None = None) -> None:
    """Print a figure, and whether it meets its target."""
    met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    target = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    print(f"{name}: {value:.2f} (target {target}: {'met' if met else 'MISSED'})", flush=True)


def measured(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Usage:
    """Run a command that must succeed, and measure it. Memory is sampled, so that short peaks can be missed.

    Args:
        command: the program and its arguments.
        folder: its working directory.
        environment: variables beside those of this process.

    Raises:
        SystemExit: the command fails; says how, with the end of its stderr.
    """
    os.sync()  # what earlier commands left to be written must not count here
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    sampler = _MemorySampler(process.pid)
    sampler.start()
    output, errors = _read_both(process)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    sampler.stop.set()
    sampler.join()
    if status:
        reason = " ".join(errors.split())[-400:]
        raise SystemExit(f"{' '.join(command[:6])} … ended with {os.waitstatus_to_exitcode(status)}: {reason}")
    return Usage(seconds, usage.ru_utime + usage.ru_stime, sampler.anonymous, sampler.mapped, output)


def _read_both(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return stdout and stderr to their ends, without waiting for the process, whose usage `wait4` is to return."""
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[str] = []
    reader = threading.Thread(target=lambda stream: errors.append(stream.read()), args=[process.stderr])
    reader.start()
    output = process.stdout.read()
    reader.join()
    return output, "".join(errors)


class _MemorySampler(threading.Thread):
    """Keeps the peak of the memory of a process and its descendants, from the proportional sizes that Linux gives."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.stop = pid, threading.Event()
        self.anonymous = self.mapped = 0

    def run(self) -> None:
        while not self.stop.wait(SAMPLE_SECONDS):
            sizes = [_sizes(pid) for pid in _family(self.pid)]
            self.anonymous = max(self.anonymous, sum(anonymous for anonymous, _ in sizes))
            self.mapped = max(self.mapped, sum(mapped for _, mapped in sizes))


def _sizes(pid: int) -> tuple[int, int]:
    """Return (anonymous bytes, bytes of mapped files) of a process; zeros if it has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        fields = {name: int(value.split()[0]) * 1024 for name, value in (line.split(":") for line in lines)}
        anonymous = fields["Pss_Anon"] + fields["Pss_Shmem"] + fields["SwapPss"]
        return anonymous, fields["Pss_File"]
    return 0, 0


def _family(pid: int) -> list[int]:
    """Return the process and all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    family = [pid]
    for member in family:  # grows while it is walked
        family += children.get(member, [])
    return family
