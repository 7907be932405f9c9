"""A build's recipe as cards, reports and published manifests show it: without the folders of the machine that built it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dataprep.recipe import PATHS

_PINNED = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}(:|$)")  # a Hub id as a build records it
_ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:[/\\]")


def without_folders(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest's recipe with the names of files in place of their paths; Hub ids and bundled names stay."""
    return {key: _without_folder(value) if key in PATHS else value for key, value in recipe.items()}


def absolute_folders(recipe: Mapping[str, Any]) -> list[str]:
    """Return the absolute folders that a manifest's recipe names, each with its last separator."""
    values = [recipe[key] for key in PATHS if recipe.get(key)]
    paths = [path for value in values for path in ([value] if isinstance(value, str) else value)]
    folders = {path.removesuffix(_without_folder(path)) for path in paths if _ABSOLUTE.match(path)}
    return sorted(folder for folder in folders if len(folder) > 1)


def _without_folder(value: Any) -> Any:
    """Return the last part of a path, of each path of a list, or the value itself if it is a pinned Hub id."""
    if isinstance(value, list):
        return [_without_folder(item) for item in value]
    if not isinstance(value, str) or _PINNED.match(value):
        return value
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
