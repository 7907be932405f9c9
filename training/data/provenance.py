"""The build and tokenizer that a run was started with."""

from __future__ import annotations

import hashlib
import json
from typing import TypedDict

from dataprep.contract import Build
from training.model.tokenizer import ChatTokenizer


class Provenance(TypedDict):
    """What run.json records of a run's data; a resumed run must have the same."""

    build: str
    version: str
    recipe_sha256: str
    template: str | None
    gate: str
    tokenizer_sha256: str


def provenance(build: Build, tokenizer: ChatTokenizer) -> Provenance:
    """Name the build's version, recipe, template and gate, and the tokenizer, of a run."""
    recipe = json.dumps(dict(build.manifest.recipe), sort_keys=True, default=str)
    return {
        "build": build.manifest.name,
        "version": build.manifest.version,
        "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
        "template": build.manifest.template.get("name"),
        "gate": build.manifest.gate,
        "tokenizer_sha256": tokenizer.sha256,
    }
