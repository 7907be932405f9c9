"""Packed equals alone, and a leak is caught."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.errors import TrainingError
from training.model import attention

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
    assert attention.check_leaks(llama, windows, bound=1e-4) <= 1e-4

    def leaking(kwargs):
        end = int(kwargs["cu_seq_lens_q"][-1])
        return torch.tensor([0, end], dtype=torch.int32), end

    monkeypatch.setattr(attention, "_boundaries", leaking)
    with pytest.raises(TrainingError, match="leaks"):
        attention.check_leaks(llama, windows, bound=1e-4)


def test_packed_windows_without_boundaries_are_an_error(llama):
    with pytest.raises(TrainingError, match="boundaries"):
        llama(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)


def test_the_choice(monkeypatch):
    from training.errors import OptionError

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert attention.choose_attention("auto", cpu) == attention.SEGMENTS
    with pytest.raises(OptionError, match="sm80"):
        attention.choose_attention("varlen", cpu)
    monkeypatch.setattr(attention, "_has_varlen", lambda device: True)
    assert attention.choose_attention("auto", gpu) == attention.VARLEN
    assert attention.choose_attention("sdpa", gpu) == attention.SEGMENTS


SHAPE = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.3}  # fmt: skip


def mistral(**settings):
    from transformers import MistralConfig, MistralForCausalLM

    attention.register()
    torch.manual_seed(0)
    config = MistralConfig(**SHAPE, **settings)
    config._attn_implementation = attention.SEGMENTS
    return MistralForCausalLM(config).eval()


@pytest.mark.parametrize("window", [None, 7, 8, 19, 20, 64])
def test_a_sliding_window_is_kept(window):
    """Packed equals alone by transformers' own attention, whose window is shorter, as long, or longer."""
    model = mistral(sliding_window=window)
    ids = torch.tensor([WINDOW["input_ids"]])
    with torch.no_grad():
        laid = attention.boundaries(WINDOW["seq_lengths"], ids.device)
        packed = model(input_ids=ids, use_cache=False, **laid).logits[0]
        with attention.stock_attention(model):
            parts = ids[0].split(WINDOW["seq_lengths"])
            alone = torch.cat([model(input_ids=part[None], use_cache=False).logits[0] for part in parts])
    assert torch.allclose(packed, alone, atol=1e-4)
    assert model.config._attn_implementation == attention.SEGMENTS


def test_the_varlen_kernel_gets_the_window(monkeypatch):
    """On a GPU: as many tokens before its own as the window has, less itself; all of them where none is longer."""
    from torch.nn.attention import varlen

    asked = []

    def kernel(query, *_, window_size):
        asked.append(window_size)
        return query

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    q, laid = torch.zeros(1, 4, 40, 16, dtype=torch.bfloat16), attention.boundaries([12, 20, 8], "cpu")
    for window in (None, 20, 19):
        attention.varlen_attention(torch.nn.Module(), q, q, q, None, sliding_window=window, **laid)
    assert asked == [(-1, 0), (-1, 0), (18, 0)]


def test_what_cannot_be_computed_is_refused():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    attention.register()
    config = Gemma2Config(**SHAPE, attn_logit_softcapping=50.0)
    config._attn_implementation = attention.SEGMENTS
    with pytest.raises(TrainingError, match="soft cap"):
        attention.check_against_stock(Gemma2ForCausalLM(config), Windows([WINDOW]), bound=1e-3)


def test_other_attention_than_the_models_own_is_found(monkeypatch):
    model, windows = mistral(sliding_window=8), Windows([WINDOW])
    assert attention.check_against_stock(model, windows, bound=1e-3) < 1e-5
    monkeypatch.setattr(attention, "_window", lambda kwargs, longest: None)  # as if nothing were known of windows
    with pytest.raises(TrainingError, match="not what is computed here"):
        attention.check_against_stock(model, windows, bound=0.1)
