"""Answers of a trained model, and whether they end by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.after.prompts import Messages, prompt_ids
from training.model import attention
from training.model.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from peft import PeftModel

    from dataprep.contract import Build


@dataclass(frozen=True)
class Answer:
    """What a model said; `stopped`: it ended by itself, with the end token."""

    text: str
    stopped: bool


def answers(
    model: PeftModel,
    vocabulary: ChatTokenizer,
    prompts: list[list[int]],
    end_token: str,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Answer]:
    """An answer to each prompt (ids); batches are padded on the left, with plain attention, as generation needs.

    `temperature` 0 takes the likeliest token each time.
    """
    import torch

    end, pad = vocabulary.id_of(end_token), vocabulary.id_of(vocabulary.padding_token(end_token))
    device = next(model.parameters()).device
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    with attention.stock_attention(model), torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        out = model.generate(  # type: ignore[no-untyped-call]
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            eos_token_id=end,
            pad_token_id=pad,
            use_cache=True,
            **sampling,
        )
    return [_answer(row, end, vocabulary) for row in out[:, longest:].tolist()]


def _answer(ids: list[int], end: int, vocabulary: ChatTokenizer) -> Answer:
    stopped = end in ids
    kept = ids[: ids.index(end)] if stopped else ids
    return Answer(vocabulary.backend.decode(kept, skip_special_tokens=True).strip(), stopped)


def stop_share(
    model: PeftModel, vocabulary: ChatTokenizer, build: Build, rows: list[Messages], *, max_new_tokens: int = 256
) -> tuple[float, list[Answer]]:
    """The share of answers to `rows`' first questions that end by themselves, and the answers."""
    template = (build.path / "template.jinja").read_text("utf-8")
    facts = build.manifest.template
    prompts = [prompt_ids(template, first_question(row), facts, vocabulary) for row in rows]
    said = answers(model, vocabulary, prompts, facts["end_token"], max_new_tokens=max_new_tokens)
    return sum(answer.stopped for answer in said) / len(said), said


def first_question(messages: Messages) -> Messages:
    """A conversation up to its first question, that one included."""
    until = next((n for n, message in enumerate(messages) if message["role"] == "user"), len(messages) - 1)
    return [{"role": message["role"], "content": message["content"]} for message in messages[: until + 1]]
