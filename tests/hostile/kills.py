"""Commands that are killed at random moments, and so are the processes that they started: what is left is whole."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from dataprep.common.errors import DataprepError
from dataprep.common.lookup import latest_version, versions
from dataprep.contract import MANIFEST
from dataprep.store.verification import verify_build
from tests.hostile.builds import NAME
from tests.hostile.cases import Case, Outcome, Sandbox
from tests.hostile.process import descendants
from tests.hostile.worker import execute
from tests.support.builds import guanaco_file, guanaco_text

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["dataprep.build", "dataprep.cli.main", "dataprep.execution", __name__])

_TEXTS = [guanaco_text(f"question {n} " * 9, f"answer {n} " * 9) for n in range(400)]
_SAMPLES = (200, 300)  # each a version of its own
_SECONDS = 1200  # for a command to end: on a machine that is busy with other work, a second of CPU time takes minutes


def _build(store: Path, rows: str, sample: int, *more: str) -> tuple[str | Path, ...]:
    options = ("--gate", "off", "--sample", str(sample), "--partition-bytes", "20kB", "--shard-size", "20kB")
    return ("build", "--source", rows, "--store", store, "--name", NAME, *options, *more)


def _commands(sandbox: Sandbox, rows: str, rng: random.Random) -> tuple[str | Path, ...]:
    """A command that writes; two of three are builds, with the cache or without."""
    out, build = sandbox.out, sandbox.store / NAME / "latest"
    template = sandbox.input / "foreign.jinja"
    return rng.choice(
        (
            _build(sandbox.store, rows, rng.choice(_SAMPLES), "--force"),
            _build(sandbox.store, rows, rng.choice(_SAMPLES), "--force", "--workers", "2"),
            _build(sandbox.store, rows, rng.choice(_SAMPLES), "--force", "--no-cache"),
            _build(sandbox.store, rows, rng.choice(_SAMPLES)),
            (*_build(sandbox.store, rows, 200, "--force"), "--template", template, "--dry-run"),
            ("export", build, "--to", out / f"export-{rng.random()}"),
            ("publish", build, "--to", out / f"published-{rng.random()}"),
            ("report", build, "--out", out / "page.html"),
            ("audit", rows, "--repaired", out / "repaired.jsonl", "--report", out / "audit.html"),
            ("gc", "--store", sandbox.store, "--keep", "0"),
        )
    )  # fmt: skip


def run(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Execute a command in a process of its own group, and end with its exit code."""
    os.environ.update(environment)
    raise SystemExit(execute("dataprep", arguments, folder)["code"])


def _start(sandbox: Sandbox, arguments: tuple[str | Path, ...]) -> BaseProcess:
    sandbox.work.mkdir(exist_ok=True)
    values = [str(argument) for argument in arguments]
    process = FORKS.Process(target=run, args=(values, sandbox.work, sandbox.environment()), daemon=False)
    process.start()
    return process


def outcomes(sandbox: Sandbox, rng: random.Random, count: int) -> Iterator[Outcome]:
    """Kill `count` commands in one store; a command that ended before its kill counts too."""
    sandbox.prepare()
    rows = guanaco_file(sandbox.input, _TEXTS)
    (sandbox.input / "foreign.jinja").write_text(
        '{#- bos_token = "<s>"\neos_token = "</s>"\nspecial_tokens = ["<s>", "</s>"] -#}'
        "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    )
    seconds = 1.0
    for sample in _SAMPLES:
        began = time.monotonic()
        _finish_well(sandbox, _build(sandbox.root / "reference", rows, sample))
        seconds = time.monotonic() - began
    expected = _digests(sandbox.root / "reference")
    _finish_well(sandbox, _build(sandbox.store, rows, _SAMPLES[0]))
    for number in range(count):
        arguments = _commands(sandbox, rows, rng)
        process = _start(sandbox, arguments)
        _wait(process, sandbox, rng, seconds)
        children = descendants(process.pid or 0)[1:]
        victim = rng.choice(children) if children and rng.random() < 0.7 else process.pid or 0
        killed = _kill(victim)
        code = _finish(process)
        problem = _problem(code, victim != process.pid, killed, sandbox, expected)
        case = Case.of(f"kill {number} of {'a worker of ' if victim != process.pid else ''}{arguments[0]}", *arguments)
        yield Outcome(case, None if problem else 0, problem, err=_text(sandbox.work / "stderr") if problem else "")
    for sample in _SAMPLES:  # a build removes what killed ones left
        code = _finish(_start(sandbox, _build(sandbox.store, rows, sample, "--force")))
        digests = _digests(sandbox.store)
        # (an export removes what a killed one to the same folder left; here each has a folder of its own)
        left = [*sandbox.store.glob("*/.tmp-*"), *sandbox.out.glob(".*.partial-*")]
        case = Case.of(f"a build of {sample} rows after all kills")
        problem = (
            "" if code == 0 and not left and digests.items() <= expected.items() else f"code {code}, left {left[:3]}"
        )
        yield Outcome(case, None if problem else 0, problem)


def _wait(process: BaseProcess, sandbox: Sandbox, rng: random.Random, seconds: float) -> None:
    """Wait until a random moment of the command's time, or one shortly after it began to write."""
    until = time.monotonic() + rng.random() * seconds
    while_writing = rng.random() < 0.5
    while time.monotonic() < until and process.is_alive():
        if while_writing and list(sandbox.store.glob("*/.tmp-*")):
            time.sleep(rng.random() * seconds / 4)
            return
        time.sleep(0.002)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _finish(process: BaseProcess) -> int | None:
    """Return the exit code of a process; None if it hangs."""
    process.join(_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def _finish_well(sandbox: Sandbox, arguments: tuple[str | Path, ...]) -> None:
    """Execute a command that nothing kills.

    Raises:
        RuntimeError: it failed, or did not end.
    """
    code = _finish(_start(sandbox, arguments))
    if code != 0:
        raise RuntimeError(
            f"{' '.join(map(str, arguments))} ended with {code}: {_text(sandbox.work / 'stderr')[-3000:]}"
        )


def _problem(code: int | None, is_worker: bool, killed: bool, sandbox: Sandbox, expected: dict[str, str]) -> str:
    """Return what is wrong after a kill; empty if all that is visible is whole and as it is without kills."""
    if code is None:
        return "the command hangs"
    stderr = _text(sandbox.work / "stderr")
    if is_worker and (code not in (0, 1) or "Traceback" in stderr or "this is a bug" in stderr):
        return f"exit code {code} after a worker was killed"
    if not is_worker and code not in (0, -signal.SIGKILL):
        return f"exit code {code}"
    try:
        digests = _digests(sandbox.store)
    except (DataprepError, OSError, ValueError) as fault:
        return f"a damaged version: {fault}"
    if not digests.items() <= expected.items():
        return "a version with other bytes"
    pages = [path for path in sandbox.out.glob("*.html") if not path.read_text().rstrip().endswith("</html>")]
    return f"half a page: {pages[0].name}" if pages else ""


def _digests(store: Path) -> dict[str, str]:
    """Verify each visible version; return a digest of its content, without the time of its making, by its name."""
    digests = {}
    for version in versions(store, NAME) if (store / NAME).is_dir() else ():
        verify_build(store / NAME / version)
        manifest = json.loads((store / NAME / version / MANIFEST).read_bytes())
        files = {name: entry for name, entry in manifest["files"].items() if name not in _DATED}
        kept = {"splits": manifest["splits"], "files": files, "fates": manifest["fates"], "funnel": manifest["funnel"]}
        digests[version] = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    if digests and latest_version(store, NAME) not in (None, *digests):
        raise ValueError("the link latest leads nowhere")
    return digests


_DATED = ("report.html", "README.md", "croissant.json")  # they name the time of the build


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.exists() else ""
