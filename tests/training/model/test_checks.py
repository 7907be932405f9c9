"""A model whose packed conversations are not independent, or whose attention is not transformers' own, is detected."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from tests.support.tiny_models import tiny_config, tiny_mistral
from training.errors import ModelError
from training.model import attention
from training.model.attention import PackingUnsupported
from training.model.checks import check_against_stock, check_causal, check_leaks

WINDOWS = Dataset.from_list([{"input_ids": list(range(5, 45)), "seq_lengths": [12, 20, 8]}])
BOUND = 1e-4


def tiny_model(name: str) -> Any:
    """A tiny model of an architecture with this project's attention."""
    attention.register()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(name, 97)).eval()
    model.set_attn_implementation(attention.SEGMENTS)
    return model


def test_attention_within_each_conversation_passes_the_leak_check() -> None:
    assert check_leaks(tiny_mistral(), WINDOWS, bound=BOUND) <= BOUND


def test_attention_over_the_whole_window_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_conversation(_: Any, kwargs: dict[str, Any]) -> tuple[torch.Tensor, int]:
        end = int(kwargs["cu_seq_lens_q"][-1])
        return torch.tensor([0, end], dtype=torch.int32), end

    monkeypatch.setattr(attention, "_boundaries", one_conversation)
    with pytest.raises(PackingUnsupported, match="another one's logits"):
        check_leaks(tiny_mistral(), WINDOWS, bound=BOUND)


def test_a_leak_into_the_next_conversation_alone_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each conversation attends to the one before it and to no other, as the window of a convolution does."""

    def attend_to_the_one_before(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        cuts = kwargs["cu_seq_lens_q"].tolist()
        parts = []
        for index, (start, end) in enumerate(zip(cuts, cuts[1:], strict=False)):
            first = cuts[max(0, index - 1)]
            pair = {"cu_seq_lens_q": torch.tensor([0, end - first]), "max_length_q": end - first}
            q, k, v = (part[:, :, first:end] for part in (query, key, value))
            out, _ = attention.segment_attention(module, q, k, v, None, kwargs["scaling"], **pair)
            parts.append(out[:, start - first :])
        return torch.cat(parts, 1), None

    model = tiny_mistral()
    from transformers import AttentionInterface

    AttentionInterface.register(attention.SEGMENTS, attend_to_the_one_before)
    try:
        with pytest.raises(PackingUnsupported):
            check_leaks(model, WINDOWS, bound=BOUND)
    finally:
        attention.register()


@pytest.mark.parametrize("name", ["lfm2", "bamba", "recurrent_gemma", "falcon_h1", "granitemoehybrid"])
def test_state_that_passes_from_one_conversation_to_the_next_is_detected(name: str) -> None:
    with pytest.raises(PackingUnsupported):
        check_leaks(tiny_model(name), WINDOWS, bound=BOUND)


@pytest.mark.parametrize("name, match", [("nemotron", "boundaries"), ("qwen3_next", "transformers refuses")])
def test_a_model_that_takes_no_packed_conversations_is_detected(name: str, match: str) -> None:
    with pytest.raises(PackingUnsupported, match=match):
        check_leaks(tiny_model(name), WINDOWS, bound=BOUND)


def test_one_conversation_has_no_neighbour_to_leak_into() -> None:
    alone = Dataset.from_list([{"input_ids": [5, 6, 7], "seq_lengths": [3]}])
    assert check_leaks(tiny_model("lfm2"), alone, bound=BOUND) == 0.0


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss"])
def test_soft_cap_and_sinks_give_the_logits_of_transformers_own_attention(name: str) -> None:
    model = tiny_model(name)
    assert check_against_stock(model, WINDOWS, bound=1e-3) < 1e-5
    assert check_leaks(model, WINDOWS, bound=BOUND) <= BOUND


def test_attention_other_than_transformers_own_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mistral(sliding_window=8)
    assert check_against_stock(model, WINDOWS, bound=1e-3) < 1e-5
    monkeypatch.setattr(attention, "_sliding_window", lambda kwargs, longest: None)
    with pytest.raises(PackingUnsupported, match="differ from transformers' own"):
        check_against_stock(model, WINDOWS, bound=0.1)


def test_an_encoder_is_refused() -> None:
    from transformers import BertConfig, BertLMHeadModel

    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    encoder = BertLMHeadModel(BertConfig(vocab_size=97, **settings)).eval()
    with pytest.raises(ModelError, match="In some-model a token's logits change with the tokens after it"):
        check_causal(encoder, WINDOWS, name="some-model", bound=BOUND)
    decoder = BertLMHeadModel(BertConfig(vocab_size=97, is_decoder=True, **settings)).eval()
    check_causal(decoder, WINDOWS, name="some-model", bound=BOUND)
    check_causal(tiny_mistral(), WINDOWS, name="some-model", bound=BOUND)


def test_logits_that_are_not_finite_are_refused() -> None:
    model = tiny_mistral()
    model.lm_head.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="The logits of some-model are not finite"):
        check_causal(model, WINDOWS, name="some-model", bound=BOUND)
