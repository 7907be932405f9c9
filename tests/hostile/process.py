"""Execute hostile cases in a process that is replaced when one of them ends it, and measure each case."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.hostile.cases import CPU_SECONDS, Case, Outcome, Sandbox
from tests.support.paths import ROOT

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_AFTER = 2 * CPU_SECONDS  # CPU seconds after which a case is stopped
_WALL_SECONDS = 600  # without a result, a case hangs
_SAMPLING = 0.05  # seconds between two looks at the processes


class Attacker:
    """Executes cases one after another in a worker process; `with` ends it.

    Args:
        sandbox: the folders of the cases.
        environment: variables besides those of the sandbox.
    """

    def __init__(self, sandbox: Sandbox, **environment: str) -> None:
        self.sandbox = sandbox
        self._environment = environment
        self._worker: subprocess.Popen[str] | None = None

    def __enter__(self) -> Attacker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the worker and the processes that it started."""
        if self._worker:
            for pid in descendants(self._worker.pid):
                _kill(pid)
            self._worker.communicate()
            self._worker = None

    def execute(self, case: Case) -> Outcome:
        """Run a case, whose input is in the sandbox; return what it did."""
        self.sandbox.remember()
        answer, died, seconds, memory = self._run(case)
        outputs = {}
        for name in ("stdout", "stderr"):
            path = self.sandbox.work / name
            outputs[name] = path.read_bytes().decode(errors="replace") if path.exists() else ""
            path.unlink(missing_ok=True)
        return Outcome(
            case, answer.get("code"), died, outputs["stdout"], outputs["stderr"], seconds, memory,
            self.sandbox.input_bytes(), (*answer.get("writes", ()), *self.sandbox.changes()),
        )  # fmt: skip

    def _run(self, case: Case) -> tuple[dict[str, Any], str, float, int]:
        """Return the worker's answer, why it died, the CPU seconds, and the peak bytes above those before."""
        warm_up = self._worker is None
        worker = self._worker = self._worker or self._start()
        assert worker.stdin and worker.stdout
        if warm_up:  # imports are no part of a case
            self._ask(worker, Case.of("", "--help") if case.program == "dataprep" else Case.of_training("", "--help"))
            worker.stdout.readline()
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5")  # the peak of memory starts anew
        before, seconds_before = _memory(worker.pid, "VmRSS"), _cpu_seconds(worker.pid)
        children_before = sum(_memory(pid, "VmRSS") for pid in descendants(worker.pid)[1:])
        self._ask(worker, case)
        deadline, children, died, seconds = time.monotonic() + _WALL_SECONDS, 0, "", 0.0
        while not select.select([worker.stdout], [], [], _SAMPLING)[0]:
            seconds = _cpu_seconds(worker.pid) - seconds_before
            children = max(
                children, sum(_memory(pid, "VmHWM") for pid in descendants(worker.pid)[1:]) - children_before
            )
            if seconds > _STOP_AFTER or time.monotonic() > deadline:
                died = f"stopped after {seconds:.0f} s of CPU time"
                break
        peak = _memory(worker.pid, "VmHWM") - before + children
        line = "" if died else worker.stdout.readline()
        if line:
            return json.loads(line), "", _cpu_seconds(worker.pid) - seconds_before, peak
        if not died:
            worker.wait()
            died = signal.Signals(-worker.returncode).name if worker.returncode < 0 else f"exit {worker.returncode}"
        self.stop()
        return {}, died, seconds, peak

    def _ask(self, worker: subprocess.Popen[str], case: Case) -> None:
        assert worker.stdin
        request = {"program": case.program, "arguments": case.arguments, "folder": str(self.sandbox.work)}
        print(json.dumps(request), file=worker.stdin, flush=True)

    def _start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **self.sandbox.environment(), **self._environment}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.worker"], cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip


def failed(outcome: Outcome, problem: str) -> Outcome:
    """Return the outcome with a further problem, found by the kind of the case itself."""
    return replace(outcome, died="; ".join(filter(None, [outcome.died, problem])))


def descendants(pid: int) -> list[int]:
    """Return the process ids of a process and of all that it started, which still run."""
    found = [pid]
    for parent in found:
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                found += map(int, Path(f"/proc/{parent}/task/{thread}/children").read_text().split())
        except OSError:
            continue
    return found


def _cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of all that it started, whether they still run or not."""
    total = 0
    for process in descendants(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))  # utime, stime, and those of children that ended
        except OSError:
            continue
    return total / _TICKS


def _memory(pid: int, entry: str) -> int:
    """Return an entry of a process's status in bytes; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(f"{entry}:")), 0)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
