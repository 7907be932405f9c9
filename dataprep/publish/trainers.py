"""Configuration of other trainers, written beside an export in the layout that each of them reads.

| trainer | layout | configuration |
|---|---|---|
| axolotl | messages, as JSON lines | `axolotl.yml` with the build's template |
| llamafactory | sharegpt, as JSON lines | `dataset_info.json`, and `llamafactory.yaml` with LLaMA-Factory's own template |
| trl | messages; with a tokenizer tokens; as Parquet | `train_trl.py` |
| unsloth | tokens, as Parquet | `train_unsloth.py` |

The texts are in `configurations/`. docs/trainers.md has the versions that they were checked with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template as Text
from typing import Literal

from dataprep.common.errors import StoreError
from dataprep.contract import Build
from dataprep.publish.data_files import ExportLayout, Format
from dataprep.rendering.sandbox import has_generation_tags

Trainer = Literal["axolotl", "llamafactory", "trl", "unsloth"]

TEMPLATE = "template.jinja"
_CONFIGURATIONS = Path(__file__).with_name("configurations")
# LLaMA-Factory's name of each bundled template; it renders with its own.
_LLAMA_FACTORY = {
    name: name for name in ("alpaca", "chatml", "gemma", "llama2", "llama3", "mistral", "vicuna", "zephyr")
}
_LLAMA_FACTORY["qwen3"] = "qwen3_nothink"  # `qwen3` adds an empty <think> block to answers without reasoning
_SHAREGPT_TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip


def layout_for(trainer: Trainer, build: Build, tokenizer: str | None) -> tuple[ExportLayout, Format]:
    """Return the layout and file format of the data for a trainer.

    Raises:
        StoreError: the trainer would learn something else from this build, or needs a tokenizer.
    """
    if trainer == "axolotl":
        return "messages", "jsonl"
    context_only = _context_only_answers(build)
    if trainer == "llamafactory":
        if context_only:
            raise StoreError(
                f"{context_only:,} answers of the build are context only, and LLaMA-Factory would train them: "
                "use --for axolotl, or --for trl with --tokenizer."
            )
        _llama_factory_template(build)
        return "sharegpt", "jsonl"
    if tokenizer is not None:
        return "tokens", "parquet"
    if trainer == "unsloth":
        raise StoreError("--for unsloth writes ids and labels: pass --tokenizer with the model to fine-tune.")
    if context_only:
        raise StoreError(
            f"{context_only:,} answers of the build are context only, and trl would train them: "
            "pass --tokenizer with the model to fine-tune, and the export has ids and labels."
        )
    if not has_generation_tags(_template(build)):
        raise StoreError(
            "The build's template has no generation blocks, by which trl knows what to train: "
            "pass --tokenizer with the model to fine-tune, and the export has ids and labels."
        )
    return "messages", "parquet"


def configuration(trainer: Trainer, build: Build, layout: ExportLayout, names: Sequence[str]) -> dict[str, str]:
    """Return the content of each file that is written beside the data, by its name.

    Args:
        trainer: the trainer.
        build: the build.
        layout: the layout of the data.
        names: the data files, in the folder of the export.
    """
    files = {split: [name for name in names if name.startswith(f"data/{split}-")] for split in ("train", "test")}
    if trainer == "llamafactory":
        return _llama_factory(build, files)
    text = (_CONFIGURATIONS / _FILES[trainer]).read_text(encoding="utf-8")
    values = {"end_token": _quoted(build.manifest.template["end_token"])}
    if trainer == "axolotl":
        entries = "\n".join(map(_axolotl_entry, files["train"]))
        test = "test_datasets:\n" + "\n".join(map(_axolotl_entry, files["test"])) + "\n" if files["test"] else ""
        values |= {"train": entries, "test": test}
    else:
        loss = (
            "assistant_only_loss=True," if layout == "messages" else "packing=False,  # the labels say what is trained"
        )
        values |= {"splits": repr(tuple(split for split in files if files[split])), "loss": loss}
    name = _FILES[trainer].removesuffix(".txt")
    return {name: Text(text).substitute(values), TEMPLATE: _template(build)}


_FILES: dict[Trainer, str] = {
    "axolotl": "axolotl.yml",
    "llamafactory": "llamafactory.yaml",
    "trl": "train_trl.py.txt",
    "unsloth": "train_unsloth.py.txt",
}


def _axolotl_entry(file: str) -> str:
    return "\n".join(
        [
            f"  - path: {file}",
            "    ds_type: json",
            "    split: train",
            "    type: chat_template",
            "    field_messages: messages",
            "    message_field_training: train",
            "    roles_to_train: [assistant]",
            "    train_on_eos: turn",
        ]
    )


def _llama_factory(build: Build, files: dict[str, list[str]]) -> dict[str, str]:
    tools = any("tools" in table.schema.names for table in build.splits.values())
    columns = {"messages": "conversations"} | ({"tools": "tools"} if tools else {})
    entry = {"formatting": "sharegpt", "columns": columns, "tags": _SHAREGPT_TAGS}
    entries = {_entry_name(file): {"file_name": file, **entry} for split in files for file in files[split]}
    text = (_CONFIGURATIONS / _FILES["llamafactory"]).read_text(encoding="utf-8")
    values = {
        "train": _listed(files["train"]),
        "test": f"eval_dataset: {_listed(files['test'])}\neval_strategy: epoch" if files["test"] else "",
        "template": _llama_factory_template(build),
    }
    return {
        "dataset_info.json": json.dumps(entries, indent=2) + "\n",
        "llamafactory.yaml": Text(text).substitute(values),
    }


def _entry_name(file: str) -> str:
    """The name of a data file in dataset_info.json: `train_0` for `data/train-00000-of-00001.jsonl`."""
    split, number = Path(file).name.split("-")[:2]
    return f"{split}_{int(number)}"


def _listed(files: Iterable[str]) -> str:
    return ",".join(map(_entry_name, files))


def _llama_factory_template(build: Build) -> str:
    """The name of LLaMA-Factory's template for the build's.

    Raises:
        StoreError: the build's template is none of those that both have.
    """
    from dataprep.rendering import load_template

    name = str(build.manifest.template["name"])
    if name not in _LLAMA_FACTORY or load_template(name).sha256 != build.manifest.template["sha256"]:
        raise StoreError(
            f"LLaMA-Factory renders with its own templates and has none for {name}: use --for axolotl or --for trl."
        )
    return _LLAMA_FACTORY[name]


def _template(build: Build) -> str:
    return (build.path / TEMPLATE).read_text(encoding="utf-8")


def _quoted(text: str) -> str:
    """Text between double quotes, valid in YAML and in Python."""
    return json.dumps(text)


def _context_only_answers(build: Build) -> int:
    """The number of answers that are not trained."""
    import polars as pl

    count = 0
    for table in build.splits.values():
        messages = pl.Series("messages", table["messages"]).explode(empty_as_null=False)
        if "trained" in [field.name for field in messages.dtype.fields]:  # type: ignore[attr-defined]
            count += int((messages.struct.field("trained") == False).sum() or 0)  # noqa: E712
    return count
