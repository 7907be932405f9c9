"""Compares a GGUF file in llama.cpp with the merged model in transformers: ids of prompts, greedy answers, and where
they stop.

llama-cpp-python (extra `gguf-check`) is llama.cpp's own library with bindings. Both programs get the same rendered
prompts of the build. Weights in 16 bits round differently in the two programs, so two tokens with nearly equal logits
can change places; the first such difference is reported with the logits of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ModelError, OptionError

if TYPE_CHECKING:
    import numpy.typing as npt

PROMPTS = 50
TOKENS = 64
AGREEING = 0.95  # share of prompts whose greedy answers must be equal


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt and the ids that a run trains for it."""

    text: str
    ids: list[int]


@dataclass(frozen=True)
class Difference:
    """The first token in which the two answers to a prompt differ, with the logits that each program gives to both
    tokens."""

    prompt: int
    position: int
    transformers_token: str
    llamacpp_token: str
    transformers_logits: tuple[float, float]
    llamacpp_logits: tuple[float, float]

    def sentence(self) -> str:
        """The difference as one sentence."""
        ours, theirs = self.transformers_logits, self.llamacpp_logits
        return (
            f"Prompt {self.prompt}, token {self.position}: transformers writes {self.transformers_token!r} and llama.cpp "
            f"{self.llamacpp_token!r}; their logits are {ours[0]:.4f} and {ours[1]:.4f} in transformers, "
            f"{theirs[0]:.4f} and {theirs[1]:.4f} in llama.cpp."
        )


@dataclass(frozen=True)
class Comparison:
    """What the check found. `stopping` counts answers that stop in transformers, `stopping_too` those of them that stop
    in llama.cpp."""

    prompts: int
    equal_ids: int
    equal_answers: int
    stopping: int
    stopping_too: int
    first_difference: Difference | None

    def as_json(self) -> dict[str, Any]:
        """The comparison as a JSON object."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """The comparison as lines for a person."""
        lines = [
            f"{self.equal_ids} of {self.prompts} prompts have the same ids in llama.cpp.",
            f"{self.equal_answers} of {self.prompts} greedy answers are equal for {TOKENS} tokens.",
            f"{self.stopping_too} of {self.stopping} answers that stop in transformers stop in llama.cpp.",
        ]
        return lines + ([self.first_difference.sentence()] if self.first_difference else [])


def can_check() -> bool:
    """Whether llama-cpp-python is installed."""
    return find_spec("llama_cpp") is not None


def compare(merged: Path, gguf: Path, prompts: Sequence[Prompt], end_ids: Sequence[int]) -> Comparison:
    """Compare the two models on `prompts`.

    Args:
        merged: the merged model's folder.
        gguf: the GGUF file made from it.
        prompts: rendered prompts, each with the run's ids.
        end_ids: ids that end an answer.

    Raises:
        OptionError: llama-cpp-python is not installed.
        ModelError: llama.cpp cannot load the file.
    """
    if not can_check():
        raise OptionError(
            "--check needs llama-cpp-python: install it with pip install 'dataprep-training[gguf-check]'."
        )
    import torch
    from transformers import AutoModelForCausalLM

    llama = _open_llama(gguf, max(len(prompt.ids) for prompt in prompts) + TOKENS)
    model = AutoModelForCausalLM.from_pretrained(str(merged), dtype=torch.float32)
    equal_ids = equal_answers = stopping = stopping_too = 0
    first: Difference | None = None
    for number, prompt in enumerate(prompts):
        equal_ids += llama.tokenize(prompt.text.encode(), add_bos=False, special=True) == prompt.ids
        theirs, their_logits = _greedy_llama(llama, prompt.ids, end_ids)
        our_logits = _logits(model, prompt.ids, theirs)
        choices = [int(logits.argmax()) for logits in our_logits]
        at = next((n for n, token in enumerate(theirs) if choices[n] != token), None)
        if at is None:
            equal_answers += 1
            ours = theirs
        else:
            ours = _continued(model, prompt.ids, [*theirs[:at], choices[at]], end_ids)
            if first is None:
                pair = (choices[at], theirs[at])
                first = Difference(
                    number,
                    at,
                    *(llama.detokenize([token], special=True).decode(errors="replace") for token in pair),
                    *(tuple(float(logits[at][token]) for token in pair) for logits in (our_logits, their_logits)),
                )
        stopping += ours[-1] in end_ids
        stopping_too += ours[-1] in end_ids and theirs[-1] in end_ids
    return Comparison(len(prompts), equal_ids, equal_answers, stopping, stopping_too, first)


def _open_llama(gguf: Path, context: int) -> Any:
    """Open a GGUF file in llama.cpp with a context of that many tokens, on the CPU with as many threads as PyTorch uses.

    llama.cpp's threads wait for each other in busy loops. Its default for prompts is one for each CPU, which is many
    times slower as soon as another process uses one of them.

    Raises:
        ModelError: llama.cpp cannot load the file.
    """
    import torch
    from llama_cpp import Llama

    threads = torch.get_num_threads()
    try:
        return Llama(
            str(gguf), n_ctx=context, n_gpu_layers=0, n_threads=threads, n_threads_batch=threads, verbose=False
        )
    except ValueError as error:
        raise ModelError(f"llama.cpp cannot load {gguf} ({error}).") from None


def _logits(model: Any, ids: Sequence[int], answer: Sequence[int]) -> npt.NDArray[Any]:
    """The logits in transformers of each token of `answer` to the prompt `ids`, tokens x vocabulary, in one forward.

    As long as their largest entries are the answer's tokens, they are what greedy decoding computes token by token.
    """
    import torch

    with torch.inference_mode():
        out = model(input_ids=torch.tensor([[*ids, *answer[:-1]]]), logits_to_keep=len(answer), use_cache=False)
    logits: npt.NDArray[Any] = out.logits[0].float().numpy()
    return logits


def _continued(model: Any, ids: Sequence[int], begun: list[int], end_ids: Sequence[int]) -> list[int]:
    """The greedy answer in transformers that begins with `begun`, the end token included."""
    import torch

    answer = list(begun)
    cache, pending = None, [*ids, *begun]
    with torch.inference_mode():
        while len(answer) < TOKENS and answer[-1] not in end_ids:
            out = model(input_ids=torch.tensor([pending]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            answer.append(int(out.logits[0, -1].argmax()))
            pending = answer[-1:]
    return answer


def _greedy_llama(llama: Any, ids: Sequence[int], end_ids: Sequence[int]) -> tuple[list[int], list[npt.NDArray[Any]]]:
    """The greedy answer in llama.cpp, the end token included, and the logits of each step."""
    import llama_cpp
    import numpy as np

    answer: list[int] = []
    logits = []
    llama.reset()
    pending = list(ids)
    while len(answer) < TOKENS and (not answer or answer[-1] not in end_ids):
        llama.eval(pending)
        last = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
        logits.append(np.ctypeslib.as_array(last, shape=(llama.n_vocab(),)).copy())
        answer.append(int(logits[-1].argmax()))
        pending = answer[-1:]
    return answer, logits
