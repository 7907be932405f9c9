"""The dataset card of a build: README.md with the YAML metadata that the Hub reads."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from dataprep.common.markup import code_block, code_span, markdown, yaml_value
from dataprep.options import flag
from dataprep.recipe import Recipe, normalised
from dataprep.report.public_recipe import without_folders

_APACHE = ("openassistant/oasst", "timdettmers/openassistant-guanaco", "mlabonne/guanaco-llama2")
_LANGUAGE = re.compile("[a-z]{2,3}")  # the primary subtag of a language tag (BCP 47)
_SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
_SOURCES = 5  # names of sources that a sentence lists
_LANGUAGES = 8  # languages that a sentence lists
_FIELDS = 20  # unused fields that a sentence lists

_COLUMNS = """- `id`, `tree_id`, `source`, `lang`, `messages`, `message_ids`: as read; `tools` too, if any conversation has tools
- `text`: the rendered conversation
- `spans`: the trained parts of `text`, as start and end in Unicode code points; each runs from the end of the generation
  prompt to the end of the end token
- `controls`: the special tokens that the template wrote, as start and end in `text`"""
_LOAD = 'from datasets import load_from_disk\nbuild = load_from_disk("{name}/{version}")'
_DETAILS = {True: "`quality.json` and `report.html` have", False: "`quality.json` has"}
_GATE = {
    "off": "The quality gate was off.",
    "passed": "The quality gate passed; {details} the details.",
    "failed": "**The quality gate failed, and `--gate warn` allowed the build.** Read `quality.json` before using it.",
}


def card(
    manifest: Mapping[str, Any],
    *,
    head: Mapping[str, Any] | None = None,
    columns: str = _COLUMNS,
    load: str | None = None,
    with_report: bool = True,
) -> str:
    """The card's Markdown text.

    Args:
        manifest: the content of manifest.json.
        head: YAML entries to add or replace, for a data set in another layout than a build's.
        columns: the description of the columns, in Markdown.
        load: the Python code that loads the data set; None for a build.
        with_report: whether report.html lies beside the card.
    """
    name, rows = manifest["name"], manifest["rows"]
    splits = ", ".join(f"{split} {entry['rows']:,}" for split, entry in manifest["splits"].items())
    template = manifest["template"]
    return "\n".join(
        [
            "---",
            *_with_entries(_front_matter(manifest, own_layout=head is None), head or {}),
            "---",
            "",
            f"# {name}",
            "",
            f"{rows:,} conversations ({splits}), rendered with the chat template {code_span(template['name'])}; "
            f"version `{manifest['version']}`, made by dataprep {manifest['dataprep']} from "
            f"{markdown(origin(manifest))}.",
            *(f"\n> {markdown(note)}" for note in manifest["notes"]),
            "",
            "## From input to data set",
            "",
            "| stage | in | dropped | not sampled | out | dropped by rule |",
            "|---|---:|---:|---:|---:|---|",
            *(_funnel_row(stage) for stage in manifest["funnel"]),
            "",
            _processing(manifest, with_report),
            "",
            "`fates/` says for every record whether it was kept, and if not, at which stage, by which rule and why.",
            "",
            "## Columns",
            "",
            columns,
            "",
            "## Load the data",
            "",
            code_block(load or _LOAD.format(name=name, version=manifest["version"]), "python"),
            "",
            "## Limits",
            "",
            *(f"- {limit}" for limit in _limits(manifest)),
            "",
            "## Reproduce the build",
            "",
            code_block(rebuild_command(manifest["recipe"], name), "sh"),
            "",
        ]
    )


def _front_matter(manifest: Mapping[str, Any], own_layout: bool) -> list[str]:
    """The lines of YAML metadata; each value is written as JSON, which is valid YAML."""
    primary = {lang.split("-")[0].lower() for lang in manifest["languages"]}
    languages = sorted(lang for lang in primary if _LANGUAGE.fullmatch(lang))
    size = next((word for bound, word in _SIZES if manifest["rows"] < bound), "10M<n<100M")
    files = [{"split": split, "path": f"{split}/*.arrow"} for split in manifest["splits"]]
    return [
        f"pretty_name: {yaml_value(manifest['name'])}",
        f"license: {yaml_value(licence(manifest))}",
        *([f"language: {yaml_value(languages)}"] if languages else []),
        f"size_categories: {yaml_value([size])}",
        'task_categories: ["text-generation"]',
        f"tags: {yaml_value(['chat', 'fine-tuning', manifest['template']['name']])}",
        f"configs: {yaml_value([{'config_name': 'default', 'data_files': files}])}",
        *([f"dataset_info: {yaml_value(_info(manifest))}"] if own_layout else []),
    ]


def licence(manifest: Mapping[str, Any]) -> str:
    """The licence that the recipe states, else that of well-known sources and of the bundled sample, else `unknown`."""
    stated = manifest["recipe"].get("license")
    sources = [str(source) for source in manifest["recipe"]["source"]]
    apache = all(source.lower().startswith(_APACHE) for source in sources)  # without a source: the bundled sample
    return str(stated) if stated else "apache-2.0" if apache else "unknown"


def from_sample(manifest: Mapping[str, Any]) -> bool:
    """Whether a build was made from the bundled sample."""
    return not manifest["recipe"]["source"]


def origin(manifest: Mapping[str, Any]) -> str:
    """The names of the sources; only the first where there are many."""
    names = [source["name"] for source in manifest["sources"]]
    listed = ", ".join(names[:_SOURCES]) + (f" and {len(names) - _SOURCES:,} more" if len(names) > _SOURCES else "")
    return f"the bundled sample, which is synthetic ({listed})" if from_sample(manifest) else listed


def _info(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The card's `dataset_info`: rows and bytes of each split."""
    sizes = {split: sum(shard["bytes"] for shard in entry["shards"]) for split, entry in manifest["splits"].items()}
    splits = [
        {"name": split, "num_examples": entry["rows"], "num_bytes": sizes[split]}
        for split, entry in manifest["splits"].items()
    ]
    return {"splits": splits, "dataset_size": sum(sizes.values())}


def _processing(manifest: Mapping[str, Any], with_report: bool) -> str:
    """Paragraphs on repairs, the search for near-duplicates, and the gate."""
    repairs = ", ".join(f"{rule} {count:,}" for rule, count in manifest["repairs"].items())
    near = manifest.get("near_dup")
    paragraphs = [
        *([f"Repaired and kept: {repairs}."] if repairs else []),
        *(
            [f"Near-duplicates with a similarity of at least {near['threshold']} were removed: {near['algorithm']}."]
            if near
            else []
        ),
        _GATE[manifest["gate"]].format(details=_DETAILS[with_report]),
    ]
    return "\n\n".join(paragraphs)


def _limits(manifest: Mapping[str, Any]) -> list[str]:
    """What the data set is not good for."""
    languages = manifest["languages"]
    listed = ", ".join(f"{markdown(lang)} {count:,}" for lang, count in list(languages.items())[:_LANGUAGES])
    return [
        f"Languages, by the tags of the records: {listed}{' and others' if len(languages) > _LANGUAGES else ''}.",
        "The texts are synthetic: a program assembled them to try dataprep with. Do not train a model for use on them."
        if from_sample(manifest)
        else "The texts were written by people and models. Nobody checked them for truth, and they may contain personal data.",
        *_unused_fields(manifest.get("unused_fields") or {}),
        f"The texts are rendered for {code_span(manifest['template']['name'])}; for another chat format, build again with "
        "`--template`.",
    ]


def _unused_fields(counts: Mapping[str, int]) -> list[str]:
    frequent = sorted(counts.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{code_span(name)} {count:,}" for name, count in frequent[:_FIELDS])
    others = f" and {len(counts) - _FIELDS:,} more" if len(counts) > _FIELDS else ""
    return (
        [f"Fields of the records that were not used, with their numbers of values: {listed}{others}."] if counts else []
    )


def _with_entries(lines: list[str], head: Mapping[str, Any]) -> list[str]:
    """YAML `lines` in which the entries of `head` replace those of the same name or are added at the end."""
    entries = {line.split(":", 1)[0]: line for line in lines}
    return list((entries | {key: f"{key}: {yaml_value(value)}" for key, value in head.items()}).values())


def _funnel_row(stage: Mapping[str, Any]) -> str:
    counts = " | ".join(f"{stage[key]:,}" for key in ("in", "dropped", "not_sampled", "out"))
    rules = ", ".join(f"{rule} {count:,}" for rule, count in stage["rules"].items())
    return f"| {stage['stage']} | {counts} | {rules} |"


def rebuild_command(recipe: Mapping[str, Any], name: str) -> str:
    """The command that reproduces the build: the template, and every option that differs from its default.

    Files are given by name, because cards and reports are shown to others.
    """
    words = ["dataprep", "build", "--name", name]
    recipe = without_folders(recipe)
    for field, default in normalised(Recipe()).items():
        value = recipe.get(field, default)  # builds of older releases have fewer options
        if value == default and field != "template":
            continue
        if isinstance(value, bool):
            words.append(flag(field))
        elif isinstance(value, list):
            words += [word for item in value for word in (flag(field), str(item))]
        else:
            words += [flag(field), str(value)]
    return shlex.join(words)
