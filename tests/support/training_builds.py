"""Write valid builds by the contract, so that the tests of `training` do not depend on `dataprep build`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from dataprep.contract import CONTRACT, SHARD_SCHEMA, sha256_of
from tests.support.paths import REAL

Pairs = Sequence[tuple[str, str | None]]
Row = dict[str, Any]  # one row of SHARD_SCHEMA
Style = Literal["llama2", "chatml"]

LLAMA2 = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<s>[INST] {{ message.content.strip() }} [/INST]"
    "{% else %} {{ message.content.strip() }} </s>{% endif %}"
    "{% endfor %}"
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content.strip() }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Writer:
    """Write a conversation's text piece by piece, and note where controls and answers are."""

    def __init__(self) -> None:
        self.text = ""
        self.controls: list[tuple[int, int]] = []
        self.spans: list[tuple[int, int]] = []

    def control(self, token: str) -> None:
        self.controls.append((len(self.text), len(self.text) + len(token)))
        self.text += token

    def llama2(self, question: str, answer: str | None) -> None:
        self.control("<s>")
        self.text += f"[INST] {question.strip()} [/INST]"
        start = len(self.text)
        if answer is not None:
            self.text += f" {answer.strip()} "
            self.control("</s>")
            self.spans.append((start, len(self.text)))

    def chatml(self, question: str, answer: str | None) -> None:
        self.control("<|im_start|>")
        self.text += f"user\n{question.strip()}"
        self.control("<|im_end|>")
        self.text += "\n"
        self.control("<|im_start|>")
        self.text += "assistant\n"
        start = len(self.text)
        if answer is not None:
            self.text += answer.strip()
            self.control("<|im_end|>")
            self.spans.append((start, len(self.text)))
            self.text += "\n"


def row(name: str, pairs: Pairs, *, style: Style = "llama2", system: str | None = None) -> Row:
    """One row of SHARD_SCHEMA from (question, answer) pairs."""
    writer = Writer()
    messages: list[dict[str, str | None]] = [{"role": "system", "content": system}] if system else []
    for number, (question, answer) in enumerate(pairs):
        rendered = f"<<SYS>>\n{system}\n<</SYS>>\n\n{question}" if system and number == 0 else question
        getattr(writer, style)(rendered, answer)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {
        "id": name,
        "tree_id": name.split("/")[0],
        "source": "test",
        "lang": "en",
        "messages": messages,
        "text": writer.text,
        "spans": [{"start": a, "end": b} for a, b in writer.spans],
        "controls": [{"start": a, "end": b} for a, b in writer.controls],
        "message_ids": [],
    }


def table(rows: Sequence[Row]) -> pa.Table:
    """The rows as a table of SHARD_SCHEMA."""
    return pa.Table.from_pylist(rows, schema=SHARD_SCHEMA)


def write_build(
    folder: Path,
    train: Sequence[Row],
    test: Sequence[Row] | None = None,
    *,
    style: Style = "llama2",
    gate: str = "passed",
) -> Path:
    """Write a build to `folder`: shards, template and manifest."""
    folder.mkdir(parents=True)
    template = {"llama2": LLAMA2, "chatml": CHATML}[style]
    (folder / "template.jinja").write_text(template, "utf-8")
    splits = {"train": _split(folder, "train", train)}
    if test is not None:
        splits["test"] = _split(folder, "test", test)
    files = {"template.jinja": _file_entry(folder / "template.jinja")}
    tokens = {"llama2": ("<s>", "</s>"), "chatml": ("<|im_start|>", "<|im_end|>")}[style]
    digest = hashlib.sha256(json.dumps([list(train), test and list(test), gate]).encode()).hexdigest()
    manifest = {
        "contract": CONTRACT,
        "name": "test",
        "version": digest[:12],
        "recipe": {"template": style},
        "template": {
            "name": style,
            "sha256": hashlib.sha256(template.encode()).hexdigest(),
            "bos_token": "<s>" if style == "llama2" else None,
            "eos_token": tokens[1],
            "end_token": tokens[1],
            "special_tokens": list(tokens),
        },
        "splits": splits,
        "files": files,
        "gate": gate,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


def _file_entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _split(folder: Path, name: str, rows: Sequence[Row]) -> dict[str, Any]:
    path = folder / name / "data-00000-of-00001.arrow"
    path.parent.mkdir()
    with pa.ipc.new_stream(path, SHARD_SCHEMA) as stream:
        stream.write_table(table(rows))
    return {"rows": len(rows), "shards": [{"file": f"{name}/{path.name}", "rows": len(rows), **_file_entry(path)}]}


def guanaco_pairs() -> dict[str, Pairs]:
    """The real guanaco test split as pairs; a last user turn without an answer is omitted."""
    conversations: dict[str, Pairs] = {}
    path = REAL / "guanaco" / "openassistant_best_replies_eval.jsonl"
    for number, line in enumerate(path.read_text("utf-8").splitlines()):
        parts = _turns(json.loads(line)["text"])
        pairs = [(parts[i], parts[i + 1]) for i in range(0, len(parts) - 1, 2)]
        if pairs:
            conversations[f"guanaco-{number:03d}"] = pairs
    return conversations


def _turns(text: str) -> list[str]:
    """The turns' contents, user first. The markers alternate, so `C#### Assistant:` is a turn that ends in `C#`."""
    turns, markers = [], ("### Human:", "### Assistant:")
    start, role = text.index(markers[0]) + len(markers[0]), 1
    while (end := text.find(markers[role], start)) >= 0:
        while text.startswith("#" + markers[role], end):
            end += 1
        turns.append(text[start:end])
        start, role = end + len(markers[role]), 1 - role
    return [*turns, text[start:]]


def guanaco_rows() -> list[Row]:
    """The real guanaco test split in Llama 2's format."""
    return [row(name, pairs) for name, pairs in guanaco_pairs().items()]


def chatter(count: int, *, turns: int = 2, seed: int = 0) -> list[Row]:
    """Synthetic conversations that follow a simple rule, so that a tiny model can learn them."""
    words = [
        "apple",
        "bread",
        "cloud",
        "dream",
        "eagle",
        "flame",
        "grass",
        "honey",
        "island",
        "jewel",
        "kettle",
        "lemon",
        "moon",
        "night",
        "ocean",
    ]
    rows = []
    for number in range(count):
        pairs: list[tuple[str, str | None]] = []
        for turn in range(1 + (number + seed) % turns):
            word = words[(number * 7 + turn * 3 + seed) % len(words)]
            pairs.append((f"Say {word} {1 + number % 4} times.", " ".join([word] * (1 + number % 4)) + "."))
        rows.append(row(f"tree{seed}-{number}", pairs))
    return rows
