"""The estimate against what was measured on an H200 (docs/qlora.md), the choice, and a probe that leaves no trace."""

from __future__ import annotations

import pytest

from training.errors import MemoryShort
from training.memory.estimate import GIB, Choice, Load, candidates, count_adapters, count_weights, estimate, fitting

LLAMA = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000,
}  # fmt: skip


def load(micro_batch: int, layers: int, optimizer: str = "adamw", *, fused: bool = True) -> Load:
    tokens = micro_batch * 2048
    return Load(tokens, int(tokens * 0.85), layers, optimizer, 64, "all-linear", True, 2, fused, False)


def test_weights_of_llama_2_7b():
    assert count_weights(LLAMA).total == 6_738_415_616
    assert count_adapters(LLAMA, 64, "all-linear") == 159_907_840


# Peak allocated of one step, GiB: torch 2.11, transformers 5.17, peft 0.21.2, trl 1.16, liger 0.8.5, one H200.
@pytest.mark.parametrize(
    "micro_batch, layers, fused, measured",
    [(8, 0, True, 71.26), (4, 0, True, 38.63), (2, 0, True, 22.31), (1, 0, True, 14.05), (8, 32, True, 11.93),
     (2, 32, True, 7.15), (4, 28, True, 12.4), (2, 20, True, 13.2), (8, 0, False, 90.5)],
)  # fmt: skip
def test_the_estimate_is_within_15_percent(micro_batch, layers, fused, measured):
    assert estimate(LLAMA, load(micro_batch, layers, fused=fused)).total / GIB == pytest.approx(measured, rel=0.15)


def test_the_choice_by_memory():
    def chosen(gib: float) -> Choice:
        choices = candidates(32, 8, 2048, {}, on_gpu=True)
        need = lambda c: estimate(LLAMA, load(c.micro_batch, c.checkpoint_layers, c.optimizer)).total  # noqa: E731
        return fitting(choices, need, int(gib * GIB))[0]

    assert chosen(139) == Choice(8, 0, "adamw")
    assert chosen(44) == Choice(4, 0, "adamw")
    assert chosen(15).checkpoint_layers > 16
    assert chosen(7).optimizer == "paged_adamw_8bit"
    with pytest.raises(MemoryShort, match="lower --max-tokens"):
        chosen(4)


def test_what_the_user_set_is_kept():
    fixed = {"micro_batch": 3, "checkpoint_layers": 5, "optimizer": "adamw"}
    assert candidates(32, 8, 2048, fixed, on_gpu=True) == [Choice(3, 5, "adamw")]


@pytest.fixture(scope="module")
def adapted(small_build, tmp_path_factory):
    """A tiny model in NF4 with adapters, its windows, and trl's arguments for it."""
    from training import run
    from training.config import RunConfig
    from training.data import holdout as data
    from training.loop.trainer import arguments
    from training.model import base as model
    from training.model.tokenizer import load_vocabulary
    from training.run_folder import Folder

    config = RunConfig(data=small_build, model="tiny", device="cpu", held_out=0)
    build = data.open_data(config)
    folder = Folder(tmp_path_factory.mktemp("probe"))
    name = run.base_model(config, build, folder)
    place = model.choose_place(config)
    prepared = data.load(config, build, load_vocabulary(name))
    windows, _ = data.windows(prepared.train, 512, seed=0)
    choice = Choice(1, 0, "adamw")
    return run.adapt(name, config, place), windows, arguments(config, place, choice, folder, accumulate=1, steps=1)


def test_the_probe_leaves_no_trace(adapted):
    import random

    import numpy as np
    import torch

    from training.memory.probe import measure, worst_batch

    model, windows, args = adapted

    def state():
        weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        return weights, random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    before = state()
    measure(model, args, worst_batch(windows, 2), Choice(2, 0, "adamw"))
    after = state()
    assert all(torch.equal(weight, after[0][name]) for name, weight in before[0].items())
    assert before[1:3] == after[1:3] and torch.equal(before[3], after[3])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_probe_empties_the_list_of_paged_tensors(adapted, monkeypatch):
    """bitsandbytes keeps every paged tensor alive in a list of its own; on a CPU there are none, so one is put there."""
    import torch
    from bitsandbytes.functional import GlobalPageManager

    from training.memory import probe

    model, windows, args = adapted
    manager = GlobalPageManager.get_instance()
    monkeypatch.setattr(manager, "paged_tensors", [torch.zeros(1)])
    passed = probe._pass

    def paging(*arguments):
        manager.paged_tensors.append(torch.zeros(2))
        passed(*arguments)

    monkeypatch.setattr(probe, "_pass", paging)
    probe.measure(model, args, probe.worst_batch(windows, 1), Choice(1, 0, "adamw"), warm=1)
    assert len(manager.paged_tensors) == 1


def gradients(model, inputs, tokens):
    import torch

    out = model(**inputs, use_cache=False, fused_lm_head=True)
    (-out.log_probs.sum() / tokens).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()


def warmed(model):
    """Adapters that do something: B is zero at first."""
    import torch

    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.02)


def test_accumulated_equals_batched(adapted):
    """1 x n = n x 1: the same gradient from one pass over all windows as from one pass each."""
    import torch

    from training.data.holdout import lay
    from training.memory.probe import untouched
    from training.model.base import checkpoint_layers

    model, windows, _ = adapted
    rows = [windows[number] for number in range(min(4, len(windows)))]
    device = torch.device("cpu")
    with untouched(model):
        warmed(model)
        whole = lay(rows, device)
        tokens = int((whole["labels"] >= 0).sum())
        batched = gradients(model, whole, tokens)
        model.zero_grad(set_to_none=True)
        for row in rows:
            accumulated = gradients(model, lay([row], device), tokens)
        model.zero_grad(set_to_none=True)
        model.train()
        checkpoint_layers(model, 1)
        again = gradients(model, whole, tokens)
        checkpoint_layers(model, 0)
    assert torch.allclose(batched, accumulated, atol=1e-5 * float(batched.abs().max()) + 1e-7)
    assert torch.allclose(batched, again, atol=1e-6)


def test_fused_adapters_are_pefts(adapted):
    import torch

    from training.data.holdout import lay
    from training.memory.probe import untouched
    from training.model.fused_lora import fuse_adapters

    model, windows, _ = adapted
    inputs = lay([windows[0]], torch.device("cpu"))
    with untouched(model):
        warmed(model)
        theirs = gradients(model, inputs, 1)
        model.zero_grad(set_to_none=True)
        layers = fuse_adapters(model)
        try:
            ours = gradients(model, inputs, 1)
        finally:
            for module in model.modules():
                module.__dict__.pop("forward", None) if "lora_A" in module._modules else None
    assert layers == 14
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_fused_layers_with_one_input_are_computed_together(adapted, monkeypatch):
    from training.data.holdout import lay
    from training.memory.probe import untouched
    from training.model import fused_lora as fused

    model, windows, _ = adapted
    sizes = []
    together = fused._together
    monkeypatch.setattr(fused, "_together", lambda group, x: sizes.append(len(group)) or together(group, x))
    with untouched(model):
        fused.fuse_adapters(model)
        try:
            gradients(model, lay([windows[0]]), 1)
            pending = next(
                m.forward.pending for m in model.modules() if isinstance(m.__dict__.get("forward"), fused._Forward)
            )
        finally:
            for module in model.modules():
                module.__dict__.pop("forward", None) if "lora_A" in module._modules else None
    assert sizes == [3, 1, 2, 1] * 2  # q, k, v; o; gate, up; down
    assert pending.source is None and not pending.outputs


def test_windows_lie_as_trl_lays_them(adapted):
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from training.data.holdout import lay

    _, windows, _ = adapted
    rows = [windows[number] for number in range(min(3, len(windows)))]
    ours, theirs = lay(rows), DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    assert theirs.keys() - ours.keys() == {"seq_idx"}  # for models that are not made of attention
    for name, part in ours.items():
        same = (
            torch.equal(part, theirs[name]) and part.dtype == theirs[name].dtype
            if torch.is_tensor(part)
            else part == theirs[name]
        )
        assert same, name


def test_evaluation_does_not_spoil_the_weights(adapted):
    """bitsandbytes repacks 4-bit weights on some CPUs at the first evaluation forward: switched off (see the traps)."""
    import torch

    from training.data.holdout import lay
    from training.memory.probe import untouched

    model, windows, _ = adapted
    inputs = lay([windows[0]], torch.device("cpu"))
    with untouched(model):
        warmed(model)
        model.train()
        before = gradients(model, inputs, 1)
        model.zero_grad(set_to_none=True)
        model.eval()
        with torch.no_grad():
            model(**inputs, use_cache=False, fused_lm_head=True)
        model.train()
        after = gradients(model, inputs, 1)
    assert torch.equal(before, after)
