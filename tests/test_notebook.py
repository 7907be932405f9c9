"""The notebook for Colab runs from top to bottom without a GPU, and is committed with real output."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.support.notebook import NOTEBOOK, executed
from tests.support.paths import ROOT

MAX_BYTES = 100_000


@pytest.fixture(scope="module")
def run_here(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook after a run in a folder of its own."""
    return executed(tmp_path_factory.mktemp("notebook"))


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: nbformat.NotebookNode, start: str) -> str:
    """The HTML of the cell whose code begins with `start`."""
    (cell,) = [cell for cell in code_cells(notebook) if cell.source.startswith(start)]
    return "".join(output["data"].get("text/html", "") for output in cell.outputs if "data" in output)


def test_a_build_and_a_run_show_themselves(run_here: nbformat.NotebookNode) -> None:
    assert "<mark>" in shown(run_here, "import dataprep")
    assert "<svg" in shown(run_here, "import training")


def test_the_run_prints_plain_lines_and_no_progress_bars_of_libraries(run_here: nbformat.NotebookNode) -> None:
    (run,) = [cell for cell in code_cells(run_here) if cell.source.startswith("import training")]
    assert "step 12/12" in printed(run)
    assert "\r" not in printed(run) and "Warning" not in printed(run)
    assert len(printed(run).splitlines()) < 20


def test_the_committed_notebook_has_the_outputs_of_a_whole_run_and_is_small() -> None:
    committed = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(committed)
    counts = [cell.execution_count for cell in code_cells(committed)]
    assert counts == list(range(1, len(counts) + 1)), "run `python -m tests.support.notebook`"
    assert not [o for cell in code_cells(committed) for o in cell.outputs if o.output_type == "error"]
    assert "<svg" in shown(committed, "import training")
    assert NOTEBOOK.stat().st_size < MAX_BYTES


def test_the_committed_notebook_holds_no_path_of_the_machine_that_ran_it() -> None:
    text = NOTEBOOK.read_text("utf-8")
    assert not [path for path in (str(ROOT), str(Path.home()) + "/", "/tmp/") if path in text]
