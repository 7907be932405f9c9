"""The gate: collects facts while shards are written, and has them judged by a process that started with the build."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa

from dataprep.common.errors import GateError, RecipeError
from dataprep.quality.facts import SCHEMA, FactsOf
from dataprep.quality.suite import CRITICAL, SEVERITIES, Suite, read_suite
from dataprep.recipe import Recipe

OFF, PASSED, FAILED = "off", "passed", "failed"
QUALITY_FILE = "quality.json"

See = Callable[[pa.RecordBatch, str], None]

_WORKER = Path(__file__).with_name("worker.py")
_TOLD = 20  # failing ids in a sentence


@dataclass(frozen=True)
class Verdict:
    """What the gate found. `checks`: one dict an expectation, the failed and the severe first."""

    outcome: str  # off, passed or failed
    rows: int = 0
    checks: list[dict[str, Any]] = field(default_factory=list)
    suite: str | None = None
    result: dict[str, Any] = field(default_factory=dict)  # Great Expectations' own

    def facts(self) -> dict[str, Any]:
        """What quality.json holds."""
        return {"gate": self.outcome, **{key: value for key, value in vars(self).items() if key != "outcome"}}

    def write(self, folder: Path) -> None:
        """Write quality.json into `folder`."""
        text = json.dumps(self.facts(), indent=1, ensure_ascii=False, default=str)
        (folder / QUALITY_FILE).write_text(text + "\n", encoding="utf-8")

    @property
    def kept(self) -> list[str]:
        """The files that stay of a build that failed."""
        return [QUALITY_FILE, "report.html"]

    @property
    def critical(self) -> list[dict[str, Any]]:
        """The failed checks that stop a build."""
        return [check for check in self.checks if not check["passed"] and check["severity"] == CRITICAL]

    def error(self, where: Path) -> GateError:
        """The failure as one sentence, with the first failing ids."""
        told = "; ".join(f"{check['name']}: {_ids_told(check)}" for check in self.critical)
        ids = {check["name"]: check["ids"] for check in self.critical}
        return GateError(
            f"The quality gate failed ({told}); nothing was published: see {where}, drop these rows, change "
            "--expectations, or let the build through, marked, with --gate warn.",
            ids,
            {check["name"]: check["failing"] for check in self.critical},
        )


def _ids_told(check: dict[str, Any]) -> str:
    if not check["ids"]:
        return f"observed {check['observed']}" if check["observed"] is not None else "it does not hold"
    more = check["failing"] - len(check["ids"][:_TOLD])
    return f"{check['failing']} of {check['rows']} rows, ids {', '.join(check['ids'][:_TOLD])}" + (
        f" and {more} more" if more > 0 else ""
    )


class Gate:
    """`start` loading Great Expectations early, `see` what is written, then `judge`. Where it is off, nothing is done."""

    def __init__(self, recipe: Recipe, facts_of: FactsOf) -> None:
        """Raises:
        RecipeError: the expectations file cannot be read.
        """
        self._suite: Suite | None = read_suite(recipe) if recipe.gate != OFF else None
        self._facts_of = facts_of
        self._seen: list[pl.DataFrame] = []

    @property
    def digests(self) -> list[str]:
        """Digests of all that the gate asks with."""
        return [self._suite.sha256, self._facts_of.digest] if self._suite else []

    def start(self) -> None:
        """Begin to load Great Expectations, beside whatever follows."""
        if self._suite:
            self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the worker)
            command = [sys.executable, "-P", str(_WORKER)]  # -P: this folder's modules are not the worker's
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=self._stderr, text=True, encoding="utf-8"
            )
            weakref.finalize(self, _stop, self._process)
            self._say(json.dumps([dataclasses.asdict(expectation) for expectation in self._suite.expectations]))

    def see(self, batch: pa.RecordBatch, split: str) -> None:
        """Take the facts of a batch of `SHARD_SCHEMA` as it is written."""
        if self._suite:
            self._seen.append(self._facts_of.batch(batch, split))

    def judge(self) -> Verdict:
        """The verdict over all that was seen.

        Raises:
            RecipeError: the expectations file asks for something that Great Expectations cannot do.
        """
        if not self._suite:
            return Verdict(OFF)
        facts = pl.concat(self._seen) if self._seen else pl.DataFrame(schema=SCHEMA)
        with tempfile.TemporaryDirectory(prefix="dataprep-gate-") as folder:
            path = Path(folder) / "facts.arrow"
            facts.write_ipc(path, compat_level=pl.CompatLevel.oldest())
            self._say(str(path))
            answer = self._answer()
        if "error" in answer:
            raise RecipeError(f"The expectations file {self._suite.name}: {answer['error']}.")
        result = answer["result"]
        checks = sorted((_check(one) for one in result["results"]), key=_severe_first)
        stopped = any(not check["passed"] and check["severity"] == CRITICAL for check in checks)
        return Verdict(FAILED if stopped else PASSED, facts.height, checks, self._suite.name, result)

    def _say(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended early; its answer says why

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._stderr.seek(0)
            last = self._stderr.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise GateError(f"Great Expectations ended without an answer ({last[0]}); --gate off builds without it.")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _stop(process: subprocess.Popen[str]) -> None:
    """End the worker, whether it is still wanted or not."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe:
                pipe.close()
        except BrokenPipeError:
            pass


def _check(result: dict[str, Any]) -> dict[str, Any]:
    """What people are told of one result of Great Expectations."""
    config, found = result["expectation_config"], result["result"]
    kwargs = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    return {
        "name": config["meta"]["name"],
        "says": config["meta"]["says"],
        "severity": config["severity"],
        "passed": bool(result["success"]),
        "type": config["type"],
        "arguments": kwargs,
        "rows": found.get("element_count"),
        "abstaining": found.get("missing_count"),
        "failing": found.get("unexpected_count", 0),
        "observed": found.get("observed_value"),
        "ids": found["ids"],
    }


def _severe_first(check: dict[str, Any]) -> tuple[bool, int, bool]:
    return check["passed"], SEVERITIES.index(check["severity"]), not check["failing"]
