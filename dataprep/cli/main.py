"""The commands of `dataprep`; only this package prints. Heavy libraries are imported by the command that needs them."""

from __future__ import annotations

import sys

# Each of these modules adds its commands to `app`.
from dataprep.cli import building, history, inspecting, publishing, quality, templates  # noqa: F401
from dataprep.cli.common import app
from dataprep.common.command_line import run_program


def main() -> None:
    """Run a command; exit codes: 0 done, 1 bad input, 2 wrong usage, 3 gate failed, 4 damaged build."""
    run_program(app, "dataprep", sys.argv[1:])
