"""Packed equals alone, and a leak is caught."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training import attention
from training.errors import TrainingError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def llama():
    attention.register()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    config._attn_implementation = attention.SEGMENTS
    return LlamaForCausalLM(config).eval()


WINDOW = {"input_ids": list(range(5, 45)), "labels": list(range(5, 45)), "seq_lengths": [12, 20, 8]}


class Windows(list):
    """A list of rows that also gives columns, as a Dataset does."""

    def __getitem__(self, key):
        return [row[key] for row in list(self)] if isinstance(key, str) else super().__getitem__(key)


def test_packed_equals_alone(llama):
    ids = torch.tensor([WINDOW["input_ids"]])
    packed = llama(input_ids=ids, use_cache=False, **attention.boundaries(WINDOW["seq_lengths"], ids.device)).logits[0]
    at = 0
    for length in WINDOW["seq_lengths"]:
        part = ids[:, at : at + length]
        alone = llama(input_ids=part, use_cache=False, **attention.boundaries([length], ids.device)).logits[0]
        assert torch.allclose(packed[at : at + length], alone, atol=1e-5)
        at += length


def test_the_self_test_passes_and_fails_when_attention_leaks(llama, monkeypatch):
    windows = Windows([WINDOW])
    assert attention.self_test(llama, windows, bound=1e-4) <= 1e-4

    def leaking(kwargs):
        end = int(kwargs["cu_seq_lens_q"][-1])
        return torch.tensor([0, end], dtype=torch.int32), end

    monkeypatch.setattr(attention, "_boundaries", leaking)
    with pytest.raises(TrainingError, match="leaks"):
        attention.self_test(llama, windows, bound=1e-4)


def test_packed_windows_without_boundaries_are_an_error(llama):
    with pytest.raises(TrainingError, match="boundaries"):
        llama(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)


def test_the_choice(monkeypatch):
    from training.errors import OptionError

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert attention.choose("auto", cpu) == attention.SEGMENTS
    with pytest.raises(OptionError, match="sm80"):
        attention.choose("varlen", cpu)
    monkeypatch.setattr(attention, "_has_varlen", lambda device: True)
    assert attention.choose("auto", gpu) == attention.VARLEN
    assert attention.choose("sdpa", gpu) == attention.SEGMENTS
