"""Execute examples/colab_t4.ipynb; `python -m tests.support.notebook` saves it with the output of a run in /content, as on Colab."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "colab_t4.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in `folder`."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / ".ipython")}
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute(env=environment)
    return notebook


def save() -> None:
    """Execute the notebook in /content and save it with its outputs."""
    folder = Path("/content")
    folder.mkdir(exist_ok=True)
    notebook = executed(folder)
    for cell in notebook.cells:
        cell.metadata.clear()  # times of execution
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    save()
