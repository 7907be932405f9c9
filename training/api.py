"""The Python API of training: the functions of the command line, with runs as objects.

import dataprep, training

run = training.run(data=dataprep.open_build("sample"), model="tiny")
run.losses                     # [(step, loss), …]
run.generate("What is a llama?")
run.merge(to="merged")
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from training.quiet import quiet_libraries
from training.run_folder import RunFolder
from training.run_record import RunRecord

if TYPE_CHECKING:
    from training.after.merge import MergeResult

StrPath = str | PathLike[str]


class HasPath(Protocol):
    """A build as dataprep opens it."""

    @property
    def path(self) -> Path:
        """The build's folder."""
        ...


@dataclass(frozen=True)
class Run:
    """A run in its folder. A notebook shows its losses as a chart."""

    path: Path

    @property
    def record(self) -> RunRecord:
        """run.json.

        Raises:
            RunError: the folder holds no run.
        """
        return RunFolder(self.path).read()

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Step and training loss, in nats per trained token, of each logged step."""
        return self._logged("loss")

    @property
    def held_out_losses(self) -> list[tuple[int, float]]:
        """Step and held-out loss, in nats per trained token, of each evaluation."""
        return self._logged("eval_loss")

    def _logged(self, key: str) -> list[tuple[int, float]]:
        from training.metrics import read_metrics

        return [(line["step"], line[key]) for line in read_metrics(RunFolder(self.path).metrics) if key in line]

    def generate(
        self,
        prompt: str,
        system: str | None = None,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> str:
        """Answer a prompt with the run's adapter and the build's template.

        Args:
            temperature: 0 chooses the most likely token at each position.

        Raises:
            TrainingError: the run is not finished, or its base model is missing.
        """
        from training.after.generate import generate

        quiet_libraries()
        return generate(
            self.path, prompt, system, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        ).text

    def merge(self, to: StrPath, *, check: bool = True) -> MergeResult:
        """Write the base model with the adapter merged to a new folder; see `training merge`.

        Raises:
            TrainingError: the run is not finished, or `to` is not empty.
        """
        from training.after.merge import merge

        quiet_libraries()
        return merge(self.path, Path(to), check=check)

    def _repr_html_(self) -> str:
        from training.after.loss_page import run_fragment
        from training.metrics import read_metrics

        return run_fragment(self.path.name, self.record, read_metrics(RunFolder(self.path).metrics))


def run(data: StrPath | HasPath, model: str, **options: Any) -> Run:
    """Train an adapter on a build.

    Args:
        data: a build that dataprep opened, or the folder of one.
        model: folder or Hub name of the base model, or `tiny`.
        options: fields of `training.config.RunConfig`, such as `lora_r=16` or `preset="t4"`.

    Raises:
        TrainingError: one sentence.
    """
    from training.config import with_defaults
    from training.run import run as train

    quiet_libraries()
    path = Path(data) if isinstance(data, str | PathLike) else data.path
    config = with_defaults({"data": path, "model": model, **options})
    return Run(Path(train(config)["operational"]["out"]).absolute())
