"""The Python API of dataprep: the functions of the command line, with builds as objects.

import dataprep

build = dataprep.build("chats.jsonl", template="llama2", sample=1000)
build.dataset("train")        # a datasets.Dataset over the mapped shards
build.why("chats.jsonl:7")    # why line 7 was kept or dropped
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.common.lookup import DEFAULT_STORE
from dataprep.contract import Manifest, read_manifest
from dataprep.contract import open_build as open_contract
from dataprep.recipe import Recipe
from dataprep.recipe_file import read_recipe, typed_options
from dataprep.resources import NAMES as RESOURCES
from dataprep.resources import Resources

if TYPE_CHECKING:
    import polars as pl
    from datasets import Dataset

    from dataprep.audit import Audit

StrPath = str | PathLike[str]

_SHOWN = 3  # conversations that a notebook shows of a build


@dataclass(frozen=True)
class Build:
    """A build in the store. A notebook shows its funnel and some conversations with the trained text marked."""

    path: Path
    manifest: Manifest = field(repr=False)

    @property
    def name(self) -> str:
        """The build's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The build's version: 12 hexadecimal digits."""
        return self.manifest.version

    @property
    def rows(self) -> dict[str, int]:
        """The number of rows of each split."""
        return {name: split["rows"] for name, split in self.manifest.splits.items()}

    def dataset(self, split: str = "train") -> Dataset:
        """Open a split as a `datasets.Dataset`; its files are memory-mapped.

        Raises:
            InputError: there is no such split.
        """
        from datasets import load_from_disk

        self._require(split)
        return load_from_disk(str(self.path))[split]

    def to_polars(self, split: str = "train") -> pl.DataFrame:
        """Open a split as a Polars frame with the columns of `dataprep.contract.shard_schema`.

        Raises:
            InputError: there is no such split.
            DamagedBuild: the files are not what the manifest says.
        """
        import polars as pl

        self._require(split)
        return pl.DataFrame(open_contract(self.path).splits[split])

    def why(self, record: str) -> list[dict[str, Any]]:
        """Explain why a record was kept or dropped; see `dataprep.store.explain.explain`.

        Args:
            record: the id of a conversation, message or tree, or FILE:LINE of a source.

        Raises:
            InputError: the build has no such record.
        """
        from dataprep.store.explain import explain

        return explain(open_contract(self.path), record)

    def report(self) -> Path:
        """The path of the build's report, an HTML page that works offline."""
        return self.path / "report.html"

    def _require(self, split: str) -> None:
        from dataprep.common.errors import InputError
        from dataprep.common.text import excerpt, nearest

        if split not in self.manifest.splits:
            raise InputError(
                f"There is no split '{excerpt(split, 100)}' in {self.path}. {nearest(split, self.manifest.splits)}"
            )

    def _repr_html_(self) -> str:
        from dataprep.report.notebook import build_fragment

        split = "train" if "train" in self.rows else next(iter(self.rows))
        rows = open_contract(self.path).splits[split].slice(0, _SHOWN).to_pylist()
        return build_fragment(self.manifest.complete(), split, rows)


def build(
    source: StrPath | Sequence[StrPath] = (),
    *,
    name: str | None = None,
    store: StrPath = DEFAULT_STORE,
    recipe: StrPath | None = None,
    force: bool = False,
    **options: Any,
) -> Build:
    """Build the version that the options and the sources determine, or open the existing one.

    Args:
        source: files, folders, globs or Hub ids; empty: the bundled synthetic sample.
        name: the build's name; None: that of the first source.
        store: folder of builds.
        recipe: a recipe file; `options` take precedence over it.
        force: build even if the version exists.
        options: fields of `dataprep.recipe.Recipe`, such as `template="chatml"` or `sample=1000`, and of
            `dataprep.resources.Resources`, such as `workers=2` or `max_memory="4GB"`.

    Raises:
        DataprepError: one sentence; the store is unchanged then.
    """
    from dataprep.build import build as build_version
    from dataprep.common.bundled import default_name
    from dataprep.common.progress import Progress
    from dataprep.common.terminal import ProgressDisplay, stderr_console

    resources = Resources(**{name: options.pop(name) for name in RESOURCES if name in options})
    sources = [source] if isinstance(source, str | PathLike) else list(source)
    stated = read_recipe(Path(recipe)) if recipe is not None else {}
    stated |= typed_options(options, "the call")
    chosen = Recipe(**stated)
    if sources:
        chosen = replace(chosen, source=tuple(map(str, sources)))
    with ProgressDisplay(stderr_console()) as display:
        outcome = build_version(
            chosen,
            Path(store),
            name or default_name(chosen.source),
            force=force,
            resources=resources,
            progress=Progress(display.show),
        )
    assert outcome.path is not None  # only a dry run has none
    return Build(outcome.path, read_manifest(outcome.path))


def open_build(reference: StrPath, store: StrPath = DEFAULT_STORE) -> Build:
    """Open a build by its path, its name (the latest version) or name@version.

    Raises:
        StoreError: there is no such build.
        DamagedBuild: its files are not what its manifest says.
    """
    from dataprep.common.lookup import locate

    opened = open_contract(locate(Path(store), str(reference)))
    return Build(opened.path, opened.manifest)


def audit(file: StrPath, template: str = "llama2", against: StrPath | None = None) -> Audit:
    """Read an already formatted data set back and find the faults of each row; see `dataprep audit`.

    Args:
        file: JSONL, JSON, Parquet or Arrow with a column text (rendered), messages or conversations.
        template: the chat template that rendered a column text.
        against: another set or a benchmark whose texts must not be in this one.

    Raises:
        DataprepError: one sentence.
    """
    from dataprep.audit import audit_file

    return audit_file(Path(file), template, against=Path(against) if against is not None else None)


def render(
    messages: Sequence[Mapping[str, Any]], template: str = "llama2", *, add_generation_prompt: bool = False
) -> str:
    """Render one conversation with a template: a bundled name, a .jinja file or a tokenizer's folder.

    Raises:
        TemplateError: the template refuses the conversation.
    """
    from dataprep.rendering import load_template
    from dataprep.rendering import render as render_messages

    return render_messages(load_template(template), messages, add_generation_prompt=add_generation_prompt)
