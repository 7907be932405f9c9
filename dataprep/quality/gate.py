"""The quality gate: collects facts while shards are written, and has Great Expectations judge them in its own process."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa

from dataprep.common.errors import GateError, RecipeError
from dataprep.common.text import plural
from dataprep.quality.facts import SCHEMA, FactExtractor, TemplateChecks, to_arrow
from dataprep.quality.suite import CRITICAL, SEVERITIES, Suite, read_suite
from dataprep.quality.tokens import token_lengths
from dataprep.recipe import Recipe

OFF, PASSED, FAILED = "off", "passed", "failed"
QUALITY_FILE = "quality.json"

_WORKER = Path(__file__).with_name("worker.py")
_IDS_IN_SENTENCE = 20


@dataclass(frozen=True)
class Verdict:
    """The gate's result. `checks`: one for each expectation, the failed and the severe first."""

    outcome: str  # off, passed or failed
    rows: int = 0
    checks: list[dict[str, Any]] = field(default_factory=list)
    suite: str | None = None  # name of the expectations file
    result: dict[str, Any] = field(default_factory=dict)  # as Great Expectations gives it
    token_lengths: dict[str, Any] | None = None  # see `tokens.token_lengths`

    def as_record(self) -> dict[str, Any]:
        """What quality.json holds."""
        return {"gate": self.outcome, **{key: value for key, value in vars(self).items() if key != "outcome"}}

    def write(self, folder: Path) -> None:
        """Write quality.json into `folder`."""
        text = json.dumps(self.as_record(), indent=1, ensure_ascii=False, default=str)
        (folder / QUALITY_FILE).write_text(text + "\n", encoding="utf-8")

    @property
    def kept_files(self) -> list[str]:
        """The files that stay of a build that failed."""
        return [QUALITY_FILE, "report.html"]

    @property
    def critical(self) -> list[dict[str, Any]]:
        """The failed checks that stop a build."""
        return [check for check in self.checks if not check["passed"] and check["severity"] == CRITICAL]

    def error(self, folder: Path) -> GateError:
        """Return the failure as one sentence with the first failing ids; `folder` holds the files that were kept."""
        faults = "; ".join(f"{check['name']}: {_failing_rows(check)}" for check in self.critical)
        return GateError(
            f"The quality gate failed ({faults}); nothing was published: see {folder}, drop these rows, change "
            "--expectations, or let the build pass, marked as failed, with --gate warn.",
            {check["name"]: check["ids"] for check in self.critical},
            {check["name"]: check["failing"] for check in self.critical},
        )


def _failing_rows(check: dict[str, Any]) -> str:
    if not check["ids"]:
        return f"observed {check['observed']}" if check["observed"] is not None else "it does not hold"
    named = check["ids"][:_IDS_IN_SENTENCE]
    more = check["failing"] - len(named)
    return f"{check['failing']:,} of {plural(check['rows'], 'row')}, ids {', '.join(named)}" + (
        f" and {more} more" if more > 0 else ""
    )


class Gate:
    """Collects facts and judges them: `start` early, `add` the facts of each batch, `close`, and wait for the `verdict`.

    With `--gate off` all of them do nothing.
    """

    def __init__(self, recipe: Recipe, checks: TemplateChecks) -> None:
        """Raises:
        RecipeError: the expectations file is invalid, or there is no such tokenizer.
        """
        self._suite: Suite | None = read_suite(recipe) if recipe.gate != OFF else None
        columns = dict.fromkeys(["id", "tokens", *(self._suite.columns if self._suite else [])])
        self._extractor = FactExtractor(checks, recipe.tokenizer, tuple(columns))
        self._tokens: list[pa.ChunkedArray] = []

    @property
    def extractor(self) -> FactExtractor | None:
        """Computes the facts; None if the gate is off."""
        return self._extractor if self._suite else None

    @property
    def digests(self) -> list[str]:
        """Digests of the expectations and of the tokenizer; empty if the gate is off."""
        return [self._suite.sha256, self._extractor.digest] if self._suite else []

    def start(self) -> None:
        """Start the process that loads Great Expectations, which takes seconds."""
        if self._suite:
            # files without names, so that nothing is left of them when a process is killed
            self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the worker)
            self._table: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
            descriptor = self._table.fileno()
            columns = {name: SCHEMA[name] for name in self._extractor.columns}
            self._facts = pa.ipc.new_file(self._table, to_arrow(pl.DataFrame(schema=columns)).schema)
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER), str(descriptor)],  # -P: the worker imports nothing from its folder
                stdin=pipe,
                stdout=pipe,
                stderr=self._stderr,
                pass_fds=[descriptor],
                text=True,
                encoding="utf-8",
            )
            weakref.finalize(self, _stop, self._process)
            self._send(json.dumps([dataclasses.asdict(expectation) for expectation in self._suite.expectations]))

    def add(self, facts: pa.Table) -> None:
        """Add the facts of a batch, as `extractor` computes them; they wait in a file."""
        if self._suite:
            self._facts.write_table(facts)
            self._tokens.append(facts.column("tokens"))

    def close(self) -> None:
        """All facts were added: Great Expectations judges them while this process goes on."""
        if self._suite:
            self._facts.close()
            self._table.flush()
            self._send("")

    def verdict(self) -> Verdict:
        """Wait for the verdict on all facts that were added.

        Raises:
            RecipeError: Great Expectations refuses an expectation.
            GateError: its process ended without an answer.
        """
        if not self._suite:
            return Verdict(OFF)
        answer = self._answer()
        self._table.close()
        if "error" in answer:
            raise RecipeError(f"The expectations file {self._suite.name}: {answer['error']}.")
        result = answer["result"]
        checks = sorted(map(_check, result["results"]), key=_severe_first)
        stopped = any(not check["passed"] and check["severity"] == CRITICAL for check in checks)
        outcome = FAILED if stopped else PASSED
        tokens = pl.concat([pl.Series(dtype=SCHEMA["tokens"]), *map(pl.Series, self._tokens)])
        return Verdict(outcome, len(tokens), checks, self._suite.name, result, token_lengths(tokens))

    def _send(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended early; its answer gives the reason

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._stderr.seek(0)
            output = self._stderr.read().decode(errors="replace").strip().splitlines()
            reason = output[-1] if output else "it printed nothing"
            raise GateError(f"Great Expectations ended without an answer ({reason}); --gate off builds without it.")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _stop(process: subprocess.Popen[str]) -> None:
    """End the worker, whatever it is doing."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe:
                pipe.close()
        except BrokenPipeError:
            pass


def _check(result: dict[str, Any]) -> dict[str, Any]:
    """Return one result of Great Expectations in the terms of quality.json and the report."""
    config, values = result["expectation_config"], result["result"]
    return {
        "name": config["meta"]["name"],
        "says": config["meta"]["says"],
        "severity": config["severity"],
        "passed": bool(result["success"]),
        "type": config["type"],
        "arguments": {key: value for key, value in config["kwargs"].items() if key != "batch_id"},
        "rows": values.get("element_count"),
        "abstaining": values.get("missing_count"),
        "failing": values.get("unexpected_count", 0),
        "observed": values.get("observed_value"),
        "ids": values["ids"],
    }


def _severe_first(check: dict[str, Any]) -> tuple[bool, int, bool]:
    return check["passed"], SEVERITIES.index(check["severity"]), not check["failing"]
