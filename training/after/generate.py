"""Generate answers with a trained model, and find out whether they end with the end token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.after.cuda_graph import graphed_decoding
from training.after.finished_run import load_run_model, open_finished_run
from training.after.prompts import Messages, prompt_ids
from training.config import at_least, check_seed
from training.errors import MODEL_FAULTS, ModelError, first_line
from training.model import attention
from training.model.runtime import forked_random_state
from training.model.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from peft import PeftModel

    from dataprep.contract import Build


class GenerationUnsupported(ModelError):
    """transformers cannot generate with the model."""


@dataclass(frozen=True)
class Answer:
    """A generated answer; `stopped` is true if it ended with the end token."""

    text: str
    stopped: bool


def generate(
    path: Path, prompt: str, system: str | None, *, max_new_tokens: int, temperature: float, seed: int
) -> Answer:
    """Answer one prompt with the model of a finished run.

    Raises:
        OptionError: an invalid number.
    """
    at_least(1, max_new_tokens=max_new_tokens)
    at_least(0, temperature=temperature)
    check_seed(seed)
    run = open_finished_run(path)
    template = (run.folder.adapter / "chat_template.jinja").read_text("utf-8")  # the build's template
    messages = [{"role": "system", "content": system}] if system else []
    special = run.record["template"]
    ids = prompt_ids(template, [*messages, {"role": "user", "content": prompt}], special, run.tokenizer)
    return answers(
        load_run_model(run),
        run.tokenizer,
        [ids],
        special["end_token"],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )[0]


def answers(
    model: PeftModel,
    tokenizer: ChatTokenizer,
    prompts: Sequence[list[int]],
    end_token: str,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Answer]:
    """Answer prompts (ids) in one batch, padded on the left, with transformers' own attention as generation needs it.

    Args:
        temperature: 0 chooses the most likely token at each position.

    Raises:
        GenerationUnsupported: transformers raises an error.
    """
    import torch

    end, pad = tokenizer.id_of(end_token), tokenizer.padding_id(end_token)
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    length = longest + max_new_tokens
    with (
        attention.stock_attention(model),
        graphed_decoding(model, length) as decoding,
        torch.no_grad(),
        forked_random_state(device),
    ):
        torch.manual_seed(seed)
        try:
            generated = model.generate(  # type: ignore[no-untyped-call]
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                eos_token_id=end,
                pad_token_id=pad,
                use_cache=True,
                **decoding,
                **sampling(temperature),
            )
        except torch.OutOfMemoryError:
            raise
        except MODEL_FAULTS as error:
            raise GenerationUnsupported(
                f"transformers cannot generate with this model ({first_line(error)})."
            ) from None
    return [_answer(row, end, tokenizer) for row in generated[:, longest:].tolist()]


def sampling(temperature: float) -> dict[str, Any]:
    """How `generate` of transformers chooses tokens; at temperature 0 it takes the most likely one."""
    if temperature > 0:
        return {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    return {"do_sample": False}


def _answer(ids: list[int], end: int, tokenizer: ChatTokenizer) -> Answer:
    stopped = end in ids
    before_end = ids[: ids.index(end)] if stopped else ids
    return Answer(tokenizer.backend.decode(before_end, skip_special_tokens=True).strip(), stopped)


def stop_share(
    model: PeftModel, tokenizer: ChatTokenizer, build: Build, rows: Sequence[Messages], *, max_new_tokens: int = 256
) -> tuple[float, list[Answer]]:
    """Answer the first question of each row; returns the share of answers with an end token, and the answers."""
    template = (build.path / "template.jinja").read_text("utf-8")
    special = build.manifest.template
    prompts = [prompt_ids(template, first_question(row), special, tokenizer) for row in rows]
    generated = answers(model, tokenizer, prompts, special["end_token"], max_new_tokens=max_new_tokens)
    return sum(answer.stopped for answer in generated) / len(generated), generated


def first_question(messages: Messages) -> Messages:
    """The messages up to and including the first user message."""
    last = next((n for n, message in enumerate(messages) if message["role"] == "user"), len(messages) - 1)
    return [{"role": message["role"], "content": message["content"]} for message in messages[: last + 1]]
