"""Attention that leaks, or that differs from transformers' own, is detected before the first step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Gemma2Config, Gemma2ForCausalLM

from tests.support.tiny_models import SIZES, tiny_mistral
from training.errors import TrainingError
from training.model import attention
from training.model.checks import check_against_stock, check_leaks

WINDOWS = Dataset.from_list([{"input_ids": list(range(5, 45)), "seq_lengths": [12, 20, 8]}])


def test_attention_that_leaks_across_conversations_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mistral()
    assert check_leaks(model, WINDOWS, bound=1e-4) <= 1e-4

    def one_conversation(kwargs: dict[str, Any]) -> tuple[torch.Tensor, int]:
        end = int(kwargs["cu_seq_lens_q"][-1])
        return torch.tensor([0, end], dtype=torch.int32), end

    monkeypatch.setattr(attention, "_boundaries", one_conversation)
    with pytest.raises(TrainingError, match="leaks"):
        check_leaks(model, WINDOWS, bound=1e-4)


def test_a_soft_cap_is_refused() -> None:
    attention.register()
    config = Gemma2Config(**SIZES, attn_logit_softcapping=50.0)
    config._attn_implementation = attention.SEGMENTS
    with pytest.raises(TrainingError, match="soft cap"):
        check_against_stock(Gemma2ForCausalLM(config), WINDOWS, bound=1e-3)


def test_attention_other_than_transformers_own_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mistral(sliding_window=8)
    assert check_against_stock(model, WINDOWS, bound=1e-3) < 1e-5
    monkeypatch.setattr(attention, "_sliding_window", lambda kwargs, longest: None)
    with pytest.raises(TrainingError, match="not supported"):
        check_against_stock(model, WINDOWS, bound=0.1)
