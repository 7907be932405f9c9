"""The end of a run: the stop check, sample answers, the adapter, loss.html and the final run.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataprep.common.text import plural
from training.after.adapter import write_adapter
from training.after.loss_page import loss_page
from training.after.sample_answers import read_sample_answers
from training.log import log, log_phase
from training.metrics import read_metrics, summarise
from training.run_folder import RunFolder, write_atomically, write_errors
from training.run_record import RunRecord

if TYPE_CHECKING:
    from training.loop.trainer import QloraTrainer
    from training.run import RunContext


def finish_run(context: RunContext, trainer: QloraTrainer, best: tuple[int, float] | None) -> RunRecord:
    """Write the results of a trained run in the first process; returns the content of run.json.

    Args:
        best: step and held-out loss of the adapter, if it is not that of the last step.
    """
    folder = context.folder
    model = trainer.accelerator.unwrap_model(trainer.model)
    # All processes compute a divided model together.
    stopped = _stop_share(context, model) if context.first_process or context.config.shard else None
    if context.first_process:
        lines = read_metrics(folder.metrics)
        metrics = summarise(lines)
        metrics["trained_tokens"] = int(trainer.trained_tokens)
        if best is not None:
            metrics["best_step"], metrics["held_out_after"] = best
        if stopped is not None:
            metrics["stopped_by_itself"], metrics["stop_prompts"] = stopped
        record = folder.read()
        record["metrics"] = metrics
        with write_errors(str(folder.adapter), folder.path):
            write_adapter(context, model, trainer.processing_class, record)
        record["status"] = "done"
        write_page(folder, record)
        folder.write(record)
    trainer.accelerator.wait_for_everyone()
    return folder.read()


def _stop_share(context: RunContext, model: Any) -> tuple[float, int] | None:
    """Share of answers to the first --stop-prompts held-out prompts that end with the end token, and their number.

    None without prompts, or if transformers cannot generate with the model.
    """
    from training.after.generate import GenerationUnsupported, stop_share
    from training.after.sample_answers import SAMPLES, write_sample_answers

    if context.data.test is None or context.config.stop_prompts == 0:
        return None
    rows = context.data.test.table.slice(0, context.config.stop_prompts)["messages"].to_pylist()
    log_phase(f"answering {plural(len(rows), 'prompt')}")
    try:
        share, answers = stop_share(model, context.tokenizer, context.build, rows)
    except GenerationUnsupported as obstacle:
        log(f"{obstacle} The adapter is written without the stop check.")
        return None
    log_phase(f"answering {plural(len(rows[:SAMPLES]), 'prompt')} without the adapter")
    write_sample_answers(
        context.folder, model, context.tokenizer, context.build, rows, answers, write=context.first_process
    )
    return share, len(answers)


def write_page(folder: RunFolder, record: RunRecord) -> None:
    """Write loss.html from the record, the metrics and the sample answers of the run."""
    lines, samples = read_metrics(folder.metrics), read_sample_answers(folder.answers)
    write_atomically(folder.path / "loss.html", loss_page(folder.path.name, record, lines, samples))
