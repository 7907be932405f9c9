"""The dataset card of a build: README.md with the Hub's YAML head."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from dataprep.common.terminal import visible
from dataprep.recipe import Recipe, flag, normalised

_APACHE = ("openassistant/oasst", "timdettmers/openassistant-guanaco", "mlabonne/guanaco-llama2")
_SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
_SOURCES = 5  # names of sources in a sentence

_COLUMNS = """`id, tree_id, source, lang, messages, message_ids` as read; `text`: the rendered conversation; `spans`: what is
to be trained, start and end in Unicode code points of `text`, from the end of the generation prompt to the end of the
end token; `controls`: the places of the special tokens that the template wrote."""


def card(
    manifest: Mapping[str, Any],
    *,
    head: Mapping[str, Any] | None = None,
    columns: str = _COLUMNS,
    load: str | None = None,
) -> str:
    """The card's text, from the facts of a manifest.

    A data set in another layout than a build's says so: entries of the `head`, its `columns`, and how to `load` it.
    """
    name, rows = manifest["name"], manifest["rows"]
    splits = ", ".join(f"{split} {facts['rows']:,}" for split, facts in manifest["splits"].items())
    template = manifest["template"]
    return "\n".join(
        [
            "---",
            *_replaced(_front_matter(manifest, own_layout=head is None), head or {}),
            "---",
            "",
            f"# {name}",
            "",
            f"{rows:,} conversations ({splits}), rendered with the chat template `{template['name']}`; "
            f"version `{manifest['version']}`, made by dataprep {manifest['dataprep']} from "
            f"{visible(origin(manifest))}.",
            *(f"\n> {note}" for note in manifest["notes"]),
            "",
            "## What became of the input",
            "",
            "| stage | in | dropped | not sampled | out | why |",
            "|---|---:|---:|---:|---:|---|",
            *(_funnel_row(stage) for stage in manifest["funnel"]),
            "",
            *_done(manifest),
            "",
            "Every record's fate is in `fates/`, with the stage, the rule and the reason.",
            "",
            "## Columns",
            "",
            columns,
            "",
            "## Load it",
            "",
            "```python",
            load or f'from datasets import load_from_disk\nbuild = load_from_disk("{name}/{manifest["version"]}")',
            "```",
            "",
            "## Limits",
            "",
            *(f"- {limit}" for limit in _limits(manifest)),
            "",
            "## Build it again",
            "",
            "```sh",
            rebuild_command(manifest["recipe"], name),
            "```",
            "",
        ]
    )


def _front_matter(manifest: Mapping[str, Any], own_layout: bool) -> list[str]:
    """YAML lines; each value is written as JSON, which is YAML too."""
    languages = sorted({lang.split("-")[0].lower() for lang in manifest["languages"] if lang != "unknown"})
    size = next((word for bound, word in _SIZES if manifest["rows"] < bound), "10M<n<100M")
    files = [{"split": split, "path": f"{split}/*.arrow"} for split in manifest["splits"]]
    return [
        f"pretty_name: {json.dumps(manifest['name'])}",
        f"license: {json.dumps(licence(manifest))}",
        *([f"language: {json.dumps(languages)}"] if languages else []),
        f"size_categories: {json.dumps([size])}",
        'task_categories: ["text-generation"]',
        f"tags: {json.dumps(['chat', 'fine-tuning', manifest['template']['name']])}",
        f"configs: {json.dumps([{'config_name': 'default', 'data_files': files}])}",
        *([f"dataset_info: {json.dumps(_info(manifest))}"] if own_layout else []),
    ]


def licence(manifest: Mapping[str, Any]) -> str:
    """The data's licence: as the recipe says, or that of sources we know; else `unknown`."""
    stated = manifest["recipe"].get("license")
    sources = [str(source) for source in manifest["recipe"]["source"]]
    ours = all(source.lower().startswith(_APACHE) for source in sources)  # no source: the bundled sample
    return str(stated) if stated else "apache-2.0" if ours else "unknown"


def from_sample(manifest: Mapping[str, Any]) -> bool:
    """Whether a build is of the bundled sample."""
    return not manifest["recipe"]["source"]


def origin(manifest: Mapping[str, Any]) -> str:
    """The names of the sources, the first few where there are many."""
    names = [source["name"] for source in manifest["sources"]]
    told = ", ".join(names[:_SOURCES]) + (f" and {len(names) - _SOURCES:,} more" if len(names) > _SOURCES else "")
    return f"the bundled sample, which is synthetic ({told})" if from_sample(manifest) else told


def _info(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """`dataset_info`: the splits' rows and bytes."""
    sizes = {split: sum(shard["bytes"] for shard in facts["shards"]) for split, facts in manifest["splits"].items()}
    splits = [
        {"name": split, "num_examples": facts["rows"], "num_bytes": sizes[split]}
        for split, facts in manifest["splits"].items()
    ]
    return {"splits": splits, "dataset_size": sum(sizes.values())}


def _done(manifest: Mapping[str, Any]) -> list[str]:
    """What was done beside dropping: repairs, near-duplicates, the gate."""
    repairs = ", ".join(f"{rule} {count:,}" for rule, count in manifest["repairs"].items())
    near = manifest.get("near_dup")
    return [
        *([f"Repaired and kept: {repairs}."] if repairs else []),
        *(
            [f"Near-duplicates were looked for from a similarity of {near['threshold']} on: {near['algorithm']}."]
            if near
            else []
        ),
        _GATE[manifest["gate"]],
    ]


_GATE = {
    "off": "The quality gate was off.",
    "passed": "The quality gate passed: see `quality.json` and `report.html`.",
    "failed": "**The quality gate failed, and the build was let through with `--gate warn`**: see `quality.json` before use.",
}


def _limits(manifest: Mapping[str, Any]) -> list[str]:
    """What a reader should not expect of the data."""
    languages = manifest["languages"]
    told = ", ".join(f"{lang} {count:,}" for lang, count in list(languages.items())[:8])
    return [
        f"Languages, by the tags as read: {told}{' and others' if len(languages) > 8 else ''}.",
        "The texts are synthetic: a program put them together to try dataprep with, and a model trained on them learns nothing."
        if from_sample(manifest)
        else "The texts are what people and models wrote; nobody checked them for truth, and they may hold personal data.",
        f"Rendered for `{manifest['template']['name']}`: for another chat format, build it again with `--template`.",
    ]


def _replaced(lines: list[str], head: Mapping[str, Any]) -> list[str]:
    """`lines` of YAML with the entries of `head` in place of, or behind, their own."""
    entries = {line.split(":", 1)[0]: line for line in lines}
    return list((entries | {key: f"{key}: {json.dumps(value)}" for key, value in head.items()}).values())


def _funnel_row(stage: Mapping[str, Any]) -> str:
    why = ", ".join(f"{rule} {count:,}" for rule, count in stage["rules"].items())
    return f"| {stage['stage']} | {stage['in']:,} | {stage['dropped']:,} | {stage['not_sampled']:,} | {stage['out']:,} | {why} |"


def rebuild_command(recipe: Mapping[str, Any], name: str) -> str:
    """The command that gives the same build again: every option that differs from its default."""
    words = ["dataprep", "build", "--name", name]
    for field, default in normalised(Recipe()).items():
        value = recipe.get(field, default)  # an older build knows fewer
        if value == default and field != "template":
            continue
        if isinstance(value, bool):
            words.append(flag(field))
        elif isinstance(value, list):
            words += [word for item in value for word in (flag(field), item)]
        else:
            words += [flag(field), str(value)]
    return shlex.join(words)
