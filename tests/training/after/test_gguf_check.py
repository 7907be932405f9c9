"""The comparison with llama.cpp, with a stand-in for it that answers as transformers does except where a test says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from training.after import gguf_check
from training.after.gguf_check import Comparison, Prompt, compare

END = 2
TOKENS = 10
PROMPTS = [Prompt("a", [1, 5, 9]), Prompt("b", [1, 7]), Prompt("c", [1, 11, 3, 30])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=1.0, tie_word_embeddings=False,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(str(path))
    return path


class StandIn:
    """llama.cpp's interface as far as `compare` uses it; the ids of the prompts are those of `PROMPTS`."""

    def tokenize(self, text: bytes, *, add_bos: bool, special: bool) -> list[int]:
        return next(prompt.ids for prompt in PROMPTS if prompt.text.encode() == text)

    def detokenize(self, tokens: Sequence[int], *, special: bool) -> bytes:
        return f"<{tokens[0]}>".encode()


def compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, end: int = END, change_at: tuple[int, int] | None = None
) -> Comparison:
    """Compare the model with itself; `change_at`: prompt and position at which the stand-in takes its second choice."""
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)

    def greedy(llama: StandIn, ids: Sequence[int], end_ids: Sequence[int]) -> tuple[list[int], list[Any]]:
        number = next(n for n, prompt in enumerate(PROMPTS) if prompt.ids == ids)
        answer: list[int] = []
        logits: list[Any] = []
        while len(answer) < TOKENS and (not answer or answer[-1] not in end_ids):
            with torch.no_grad():
                logits.append(model(torch.tensor([[*ids, *answer]])).logits[0, -1].numpy())
            order = np.argsort(logits[-1])
            answer.append(int(order[-2 if (number, len(answer)) == change_at else -1]))
        return answer, logits

    monkeypatch.setattr(gguf_check, "TOKENS", TOKENS)
    monkeypatch.setattr(gguf_check, "can_check", lambda: True)
    monkeypatch.setattr(gguf_check, "_open_llama", lambda gguf, context: StandIn())
    monkeypatch.setattr(gguf_check, "_greedy_llama", greedy)
    return compare(folder, folder / "none.gguf", PROMPTS, [end])


def first_tokens(folder: Path) -> list[list[int]]:
    """transformers' own greedy answers."""
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    answers = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt.ids])
        out = model.generate(ids, max_new_tokens=TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
        answers.append(out[0, len(prompt.ids) :].tolist())
    return answers


def test_equal_programs_agree_in_all_answers_and_stops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = first_tokens(folder)[1][5]  # a token that the second answer contains
    comparison = compared(folder, monkeypatch, end=end)
    assert (comparison.equal_ids, comparison.equal_answers, comparison.first_difference) == (3, 3, None)
    assert comparison.stopping == sum(end in answer for answer in first_tokens(folder)) == comparison.stopping_too > 0


def test_the_first_other_token_is_reported_with_its_position_and_both_logits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compared(folder, monkeypatch, end=399, change_at=(1, 3))
    assert (comparison.equal_answers, comparison.stopping) == (2, 0)
    difference = comparison.first_difference
    assert difference is not None
    assert (difference.prompt, difference.position) == (1, 3)
    assert difference.transformers_token == f"<{first_tokens(folder)[1][3]}>" != difference.llamacpp_token
    assert difference.transformers_logits == pytest.approx(difference.llamacpp_logits, abs=1e-4)
    assert difference.transformers_logits[0] > difference.transformers_logits[1]


def test_an_answer_that_stops_only_in_transformers_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = first_tokens(folder)[1][0]  # the second answer stops at once, unless another token is taken there
    comparison = compared(folder, monkeypatch, end=end, change_at=(1, 0))
    stopping = sum(end in answer for answer in first_tokens(folder))
    assert (comparison.stopping, comparison.equal_answers) == (stopping, 2)
    assert comparison.stopping - comparison.stopping_too == 1
