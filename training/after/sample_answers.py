"""answers.json: a few held-out questions with the answers of the base model and of the trained one, for people to compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from training.after.generate import Answer, first_question, stop_share
from training.after.prompts import Messages
from training.run_folder import RunFolder, write_atomically

if TYPE_CHECKING:
    from peft import PeftModel

    from dataprep.contract import Build
    from training.model.tokenizer import ChatTokenizer

SAMPLES = 3  # questions that are answered by the base model too


class SampleAnswer(TypedDict):
    """A question, its answer in the data, and the answers of both models, chosen greedily."""

    question: str
    reference: str
    before: str
    after: str
    before_stopped: bool  # ended with the end token
    after_stopped: bool


def write_sample_answers(
    folder: RunFolder,
    model: PeftModel,
    tokenizer: ChatTokenizer,
    build: Build,
    rows: Sequence[Messages],
    after: Sequence[Answer],
    *,
    write: bool,
) -> None:
    """Answer the first questions without the adapter, and write both answers to answers.json.

    Args:
        rows: the held-out conversations that were answered with the adapter.
        after: those answers.
        write: False in processes that only help to compute a model that is divided among them.
    """
    asked = rows[:SAMPLES]
    with model.disable_adapter():
        _, before = stop_share(model, tokenizer, build, asked)
    samples = [_sample(*sample) for sample in zip(asked, before, after, strict=False)]
    if write:
        write_atomically(folder.answers, json.dumps(samples, indent=1, ensure_ascii=False))


def read_sample_answers(path: Path) -> list[SampleAnswer]:
    """What `write_sample_answers` wrote; an empty list where there is no such file, or another program's."""
    try:
        samples: Any = json.loads(path.read_text("utf-8"))
        return [
            SampleAnswer(
                question=str(sample["question"]),
                reference=str(sample["reference"]),
                before=str(sample["before"]),
                after=str(sample["after"]),
                before_stopped=bool(sample["before_stopped"]),
                after_stopped=bool(sample["after_stopped"]),
            )
            for sample in samples[:SAMPLES]
        ]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def _sample(row: Messages, before: Answer, after: Answer) -> SampleAnswer:
    question = first_question(row)
    reference = row[len(question)]["content"] if len(row) > len(question) else ""
    return {
        "question": question[-1]["content"],
        "reference": reference,
        "before": before.text,
        "after": after.text,
        "before_stopped": before.stopped,
        "after_stopped": after.stopped,
    }
