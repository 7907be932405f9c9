"""Every architecture that people fine-tune: its loss, packed or padded, is that of plain transformers, and it can be merged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.adapted import randomise_adapters
from tests.support.tiny_models import ARCHITECTURES, tiny_tokenizer, write_tiny_model
from training.after.finished_run import FinishedRun
from training.after.merge import merged_config, write_weights
from training.config import RunConfig
from training.data.collate import collate
from training.memory.choose import LEAK_BOUND, STOCK_BOUND
from training.model import attention
from training.model.architecture import read_architecture
from training.model.attention import PackingUnsupported
from training.model.base import checkpoint_layers
from training.model.checks import check_against_stock, check_leaks
from training.model.identity import read_model_config
from training.model.runtime import Runtime
from training.run import load_with_new_adapters

LENGTHS = [19, 30, 11]
TOKENIZER = tiny_tokenizer()


def conversations() -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [generator.integers(3, TOKENIZER.size, length).tolist() for length in LENGTHS]


def stock_loss(model: Any) -> float:
    """The loss per token of unpacked conversations in plain transformers, with every token trained."""
    total = 0.0
    for ids in conversations():
        row = torch.tensor([ids])
        with torch.no_grad():
            logits = model(input_ids=row, use_cache=False).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum"))
    return total / sum(length - 1 for length in LENGTHS)


def windows(*, packed: bool) -> Any:
    from datasets import Dataset

    rows = [{"input_ids": ids, "labels": ids, "seq_lengths": [len(ids)]} for ids in conversations()]
    if packed:
        together = [token for ids in conversations() for token in ids]
        rows = [{"input_ids": together, "labels": together, "seq_lengths": LENGTHS}]
    return Dataset.from_list(rows)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_is_that_of_plain_transformers_and_the_adapter_merges(name: str, tmp_path: Path) -> None:
    expected = stock_loss(write_tiny_model(name, tmp_path, TOKENIZER))
    architecture = read_architecture(read_model_config(str(tmp_path), None), name)
    packed = architecture.packing_obstacle is None
    implementation = "dataprep_segments" if packed else architecture.stock_attention
    config = RunConfig(data=tmp_path, model=str(tmp_path), device="cpu", quantization="none", lora_r=4)
    model: Any = load_with_new_adapters(str(tmp_path), config, Runtime("cpu", "fp32", implementation, liger=False))
    assert model.get_base_model().config.get_text_config().output_router_logits is False
    if packed:
        try:
            check_leaks(model, windows(packed=True), bound=LEAK_BOUND["fp32"])
            check_against_stock(model, windows(packed=True), bound=STOCK_BOUND["fp32"])
        except PackingUnsupported:
            packed = False
            attention.set_attention(model.get_base_model(), architecture.stock_attention)
    assert packed == ARCHITECTURES[name].packed
    assert architecture.sizes.layers == 2
    checkpoint_layers(model, 1)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    outputs = model(**collate(list(windows(packed=packed)), packed=packed), use_cache=False, fused_lm_head=True)
    loss = -outputs.log_probs.sum() / outputs.label_mask.sum()
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == architecture.sizes.adapter_weights(4, "all-linear")
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in trained)
    with attention.stock_attention(model):
        _compare_with_merged(model.eval(), config, tmp_path)


def _compare_with_merged(model: Any, config: RunConfig, folder: Path) -> None:
    """The merged files, in stock transformers, have the logits of the adapter."""
    import transformers

    randomise_adapters(model)
    model.save_pretrained(str(folder / "adapter"))
    runtime = Runtime("cpu", "fp32", "sdpa", liger=False)
    run_folder: Any = SimpleNamespace(adapter=folder / "adapter")
    record: Any = {}
    run = FinishedRun(run_folder, record, config, config.model, runtime, TOKENIZER)
    (folder / "merged").mkdir()
    assert write_weights(run, folder / "merged")["merged"] > 0
    model_config = read_model_config(config.model, None)
    merged_settings = merged_config(model_config, None, "float32", {"eos_token_id": [2]}, untied=False)
    (folder / "merged" / "config.json").write_text(json.dumps(merged_settings))
    auto = getattr(transformers, read_architecture(merged_settings, "merged").auto_class)
    merged, loading = auto.from_pretrained(str(folder / "merged"), output_loading_info=True)
    assert not loading["missing_keys"] and not loading["mismatched_keys"]
    row = torch.tensor([conversations()[0]])
    with torch.no_grad():
        expected, logits = (each(input_ids=row, use_cache=False).logits for each in (model, merged.eval()))
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))
