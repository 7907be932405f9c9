"""Answers of a trained model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tiny_models import tiny_mistral, tiny_tokenizer
from training.after.generate import GenerationUnsupported, answers


def test_a_model_that_transformers_cannot_generate_with_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(**_: Any) -> None:
        raise ValueError("`get_seq_length` can only be called on Attention layers")

    model = tiny_mistral()
    monkeypatch.setattr(model, "generate", generate)
    with pytest.raises(GenerationUnsupported, match="cannot generate with this model .*get_seq_length"):
        answers(model, tiny_tokenizer(), [[5, 6]], "</s>")
