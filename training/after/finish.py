"""The end of a run: the stop check, the adapter, loss.html and the final run.json."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from dataprep.common import charts
from training.after.adapter import write_adapter
from training.metrics import Line, read_metrics, summarise
from training.run_folder import write_atomically, write_errors
from training.run_record import Metrics, RunRecord

if TYPE_CHECKING:
    from training.loop.trainer import QloraTrainer
    from training.run import RunContext


def finish_run(context: RunContext, trainer: QloraTrainer, best: tuple[int, float] | None) -> RunRecord:
    """Write the results of a trained run in the first process; returns the content of run.json.

    Args:
        best: step and held-out loss of the adapter, if it is not that of the last step.
    """
    folder = context.folder
    if context.first_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        lines = read_metrics(folder.metrics)
        metrics = summarise(lines)
        metrics["trained_tokens"] = int(trainer.trained_tokens)
        if best is not None:
            metrics["best_step"], metrics["held_out_after"] = best
        _check_stopping(context, model, metrics)
        record = folder.read()
        record["metrics"] = metrics
        with write_errors(str(folder.adapter), folder.path):
            write_adapter(context, model, trainer.processing_class, record)
        write_atomically(folder.path / "loss.html", loss_page(lines, folder.path.name))
        record["status"] = "done"
        folder.write(record)
    trainer.accelerator.wait_for_everyone()
    return folder.read()


def _check_stopping(context: RunContext, model: Any, metrics: Metrics) -> None:
    """Answer the first --stop-prompts held-out prompts, and record the share of answers that end with the end token."""
    from training.after.generate import stop_share

    if context.data.test is None or context.config.stop_prompts == 0:
        return
    rows = context.data.test.table.slice(0, context.config.stop_prompts)["messages"].to_pylist()
    share, answers = stop_share(model, context.tokenizer, context.build, rows)
    metrics["stopped_by_itself"] = share
    metrics["stop_prompts"] = len(answers)


def loss_page(lines: list[Line], name: str) -> str:
    """An HTML page without external resources that draws the training loss and the held-out loss by step."""
    training = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    held_out = [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
    drawn = charts.line_chart([charts.Series(training), charts.Series(held_out)], width=800, height=360)
    title = html.escape(name)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Loss of {title}</title><style>body {{ font: 16px system-ui; margin: 2em; max-width: 60em }} {charts.STYLE}"
        f".s0 {{ color: var(--accent, #0f6e56) }} .s1 {{ color: var(--warn, #b45309) }}</style><h1>{title}</h1>"
        '<p>Loss in nats per trained token, by optimizer step: <b class="s0">training</b>, <b class="s1">held out</b>.</p>'
        f"{drawn or '<p>No loss was logged.</p>'}</html>"
    )
