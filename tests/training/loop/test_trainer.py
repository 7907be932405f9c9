"""A pass leaves the modes of modules alone unless one of them differs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trl.trainer.sft_trainer import SFTTrainer

from training.loop.trainer import QloraTrainer


def test_a_pass_sets_the_modes_of_modules_only_if_one_is_not_in_training_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    set_modes = []

    class Counted(torch.nn.Linear):
        def train(self, mode: bool = True) -> Counted:
            set_modes.append(mode)
            return super().train(mode)

    def step(_: Any, model: torch.nn.Module, *__: Any) -> torch.Tensor:
        return model.train()(torch.ones(1))

    monkeypatch.setattr(SFTTrainer, "training_step", step)
    model = torch.nn.Sequential(Counted(1, 1), torch.nn.Dropout())
    trainer: Any = object.__new__(QloraTrainer)
    trainer._modules = None
    trainer.training_step(model, {})
    assert set_modes == []
    model[1].eval()  # a part of the model, which itself stays in training mode
    trainer.training_step(model, {})
    assert set_modes == [True]
    assert all(module.training for module in model.modules())
    assert "train" not in vars(model)
