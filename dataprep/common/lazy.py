"""Functions of a package that are imported when they are first used, so that importing the package is instant."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType


def export_lazily(package: str, names: Mapping[str, str]) -> None:
    """Let `package` offer each name of `names`, from the module that the name maps to.

    A package's attribute for a submodule of the same name would hide the function as soon as anything imports that
    submodule (`dataprep.build` is both). Properties of the package's class take precedence over its attributes.
    `from dataprep.build import …` still imports from the submodule.
    """
    module = sys.modules[package]
    properties = {name: _property(source, name) for name, source in names.items()}
    listing = {"__dir__": lambda self: sorted({*vars(self), *names})}
    module.__class__ = type("LazyPackage", (ModuleType,), {**properties, **listing})


def _property(source: str, name: str) -> property:
    def read(_: ModuleType) -> object:
        return getattr(import_module(source), name)

    def keep(_: ModuleType, __: object) -> None:
        """Ignore the import system, which sets the attribute to the submodule."""

    return property(read, keep)
