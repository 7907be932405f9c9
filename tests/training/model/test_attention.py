"""Packed conversations get the results that each gets alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, masking_utils

from tests.support.tiny_models import SIZES, tiny_mistral
from training.errors import OptionError, TrainingError
from training.model import attention

torch.set_num_threads(1)

LENGTHS = [12, 20, 8]
IDS = torch.arange(5, 45)


@pytest.fixture(scope="module")
def llama() -> Any:
    attention.register()
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES)
    config._attn_implementation = attention.SEGMENTS
    return LlamaForCausalLM(config).eval()


def test_a_packed_conversation_has_the_logits_it_has_alone(llama: Any) -> None:
    ids = IDS[None]
    packed = llama(input_ids=ids, use_cache=False, **attention.boundaries(LENGTHS, ids.device)).logits[0]
    for part, logits in zip(ids[0].split(LENGTHS), packed.split(LENGTHS), strict=True):
        alone = llama(input_ids=part[None], use_cache=False, **attention.boundaries([len(part)], ids.device)).logits[0]
        assert torch.allclose(logits, alone, atol=1e-5)


def test_positions_are_not_searched_for_packed_conversations(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search waits for the GPU in each pass."""
    searches: list[int] = []
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda positions: searches.append(1))
    llama(input_ids=IDS[None], use_cache=False, **attention.boundaries(LENGTHS, IDS.device))
    assert searches == []


def test_packed_windows_without_boundaries_are_an_error(llama: Any) -> None:
    with pytest.raises(TrainingError, match="boundaries"):
        llama(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)


def test_a_mask_that_a_layer_makes_itself_is_an_error_rather_than_ignored() -> None:
    """Doge's attention layers compute one from their values."""
    part = torch.ones(1, 1, 4, 8)
    kwargs: dict[str, Any] = {"cu_seq_lens_q": torch.tensor([0, 4]), "max_length_q": 4}
    with pytest.raises(TrainingError, match="a mask of their own"):
        attention.segment_attention(torch.nn.Identity(), part, part, part, torch.ones(1, 1, 4, 4), **kwargs)


def test_the_varlen_kernel_is_chosen_on_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert attention.choose_attention("auto", cpu) == attention.SEGMENTS
    with pytest.raises(OptionError, match="sm80"):
        attention.choose_attention("varlen", cpu)
    monkeypatch.setattr(attention, "_has_varlen", lambda device: True)
    assert attention.choose_attention("auto", gpu) == attention.VARLEN
    assert attention.choose_attention("sdpa", gpu) == attention.SEGMENTS


@pytest.mark.parametrize("window", [None, 7, 8, 19, 20, 64])
def test_a_sliding_window_gives_the_logits_of_transformers_own_attention(window: int | None) -> None:
    """The window is shorter than a conversation, as long, or longer."""
    model = tiny_mistral(sliding_window=window)
    ids = IDS[None]
    with torch.no_grad():
        packed = model(input_ids=ids, use_cache=False, **attention.boundaries(LENGTHS, ids.device)).logits[0]
        with attention.stock_attention(model):
            parts = ids[0].split(LENGTHS)
            alone = torch.cat([model(input_ids=part[None], use_cache=False).logits[0] for part in parts])
    assert torch.allclose(packed, alone, atol=1e-4)
    assert model.config._attn_implementation == attention.SEGMENTS


def test_the_varlen_kernel_gets_the_sliding_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the number of tokens before each token, or -1 if no conversation is longer than the window."""
    from torch.nn.attention import varlen

    window_sizes = []

    def kernel(query: torch.Tensor, *_: Any, window_size: tuple[int, int]) -> torch.Tensor:
        window_sizes.append(window_size)
        return query

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    q, packed = torch.zeros(1, 4, 40, 16, dtype=torch.bfloat16), attention.boundaries(LENGTHS, "cpu")
    for window in (None, 20, 19):
        attention.varlen_attention(torch.nn.Module(), q, q, q, None, sliding_window=window, **packed)
    assert window_sizes == [(-1, 0), (-1, 0), (18, 0)]
