"""Compare a merged model's logits with those of the base model and the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.after.finished_run import FinishedRun, autocast, load_run_model, open_run_build
from training.data.training_data import load_training_data
from training.model.architecture import read_architecture
from training.model.attention import set_attention
from training.model.identity import read_model_config

if TYPE_CHECKING:
    from torch import Tensor

CHECKED_ROWS = 8
CHECKED_TOKENS = 512  # of each row


def compare(run: FinishedRun, merged: Path, rows: list[list[int]]) -> tuple[float, float]:
    """Compare the merged model's logits with the adapter's on `rows` (ids), with one model in memory at a time.

    Returns:
        The largest difference, and the mean divergence per token of the merged model from the adapter, in nats.
    """
    import torch
    import transformers

    adapted = load_run_model(run)
    expected = [_logits(adapted, row, run) for row in rows]
    del adapted
    if run.runtime.device != "cpu":
        torch.cuda.empty_cache()
    architecture = read_architecture(read_model_config(str(merged), None), str(merged))
    model: Any = getattr(transformers, architecture.auto_class).from_pretrained(
        str(merged),
        dtype=run.runtime.dtype,
        device_map={"": run.runtime.device},
    )
    set_attention(model, run.runtime.attention)
    model.eval()
    largest, divergence, tokens = 0.0, 0.0, 0
    for row, before in zip(rows, expected, strict=True):
        after = _logits(model, row, run)
        largest = max(largest, float((after - before).abs().max()))
        p, q = before.log_softmax(-1), after.log_softmax(-1)
        divergence += float((p.exp() * (p - q)).sum())
        tokens += len(row)
    return largest, divergence / max(tokens, 1)


def rows_to_check(run: FinishedRun) -> list[list[int]]:
    data = load_training_data(run.config, open_run_build(run), run.tokenizer)
    rows = (data.test or data.train).labelled.rows
    return [
        rows.ids[rows.bounds[number] : rows.bounds[number + 1]][:CHECKED_TOKENS].tolist()
        for number in range(min(CHECKED_ROWS, len(rows.names)))
    ]


def _logits(model: Any, row: list[int], run: FinishedRun) -> Tensor:
    """Logits of every token of one row: tokens x vocabulary, float32, on the CPU."""
    import torch

    from training.model.attention import boundaries

    device = torch.device(run.runtime.device)
    ids = torch.tensor([row], device=device)
    alone = boundaries([len(row)], device) if run.runtime.packed else {}
    with torch.no_grad(), autocast(run.runtime):
        outputs = model(input_ids=ids, use_cache=False, **alone)
    logits: Tensor = outputs.logits[0].float().cpu()
    return logits
