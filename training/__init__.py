"""Fine-tune chat models with QLoRA on prepared builds, with every trained token accounted for; see `training.api`."""

from typing import TYPE_CHECKING

from dataprep.common.lazy import export_lazily

if TYPE_CHECKING:
    from training.api import Run, run

__all__ = ["Run", "run"]

export_lazily(__name__, dict.fromkeys(["Run", "run"], "training.api"))
